"""Runs: training, the scores on the way, and what a finished run is asked for."""
