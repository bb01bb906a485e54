"""The training loop, its transforms (statistics, pruning, the best epoch), checkpoints and progress."""
