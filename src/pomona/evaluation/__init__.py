"""What a system is worth: answers on the test set, scores with intervals, baselines, paired comparisons."""
