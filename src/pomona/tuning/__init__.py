"""The one training loop, with what it needs: masks at work on live parameters, checkpoints, progress."""
