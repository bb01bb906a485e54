"""Experiments on real data, each resumable, each writing its page into `docs/results/`."""
