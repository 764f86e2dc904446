"""Optuna's pruners, for a fine search by Optuna's own method."""

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner

from .fine import FINE
from .study import Study


def pruner_of(study: Study, phase: str) -> BasePruner | None:
    """The pruner for the trials of an Optuna study; None where none is wanted."""
    fine = study.phases.get(FINE)
    if fine is None or fine.method != "optuna" or not phase.startswith(f"{FINE}-") or not study.objective.is_loss:
        return None
    kinds: dict[str, type[BasePruner]] = {
        "median": MedianPruner,
        "hyperband": HyperbandPruner,
        "halving": SuccessiveHalvingPruner,
    }
    return kinds[fine.pruner]() if fine.pruner in kinds else None
