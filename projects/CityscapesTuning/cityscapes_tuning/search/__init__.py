"""A study as a table of trials in Optuna's storage, and the workers that do them."""

# of a study, in their order
PHASES = ("babysit", "coarse", "fine", "confirm", "full")
