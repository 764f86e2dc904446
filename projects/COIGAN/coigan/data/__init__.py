"""Reading, preparing, splitting and loading data sets of defects."""
