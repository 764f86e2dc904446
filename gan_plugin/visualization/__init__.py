"""Pictures of masks, curves of a run, and both in one HTML report."""
