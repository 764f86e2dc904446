"""Does a segmenter get better from synthetic defects? Networks, losses, scores, and the comparison."""
