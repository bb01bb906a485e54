"""Benchmarks: ratios to a reference that is measured alternately in the same run, because absolute times mean little."""
