"""Benchmarks: ratios against a peer that is measured in turn in the same run, since absolute times mean little."""
