"""Runs: a typed recipe in, a run folder with its record out."""
