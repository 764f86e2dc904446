"""A study as a table of trials in Optuna's storage, and the workers that do them."""
