"""The budgeted study: babysitting, coarse and fine search, full training, ablations, report."""
