"""Data sets, their subsets, and the checks that run before training."""
