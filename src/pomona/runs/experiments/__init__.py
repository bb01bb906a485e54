"""Experiments: a recipe over systems, settings and seeds, and the statistics over seeds that only they need."""
