"""Adversarial objectives: what either player minimises, given the discriminator's verdicts."""

from .base import OBJECTIVE_REGISTRY, AdversarialObjective, Verdicts, build_objective
from .critic import Hinge, Wasserstein
from .cross_entropy import Minimax, NonSaturatingBCE
from .feature_distance import MultiLayerL1
from .least_squares import LSGAN, LeastSquares
from .relativistic import RelativisticAverage

__all__ = [
    "LSGAN",
    "OBJECTIVE_REGISTRY",
    "AdversarialObjective",
    "Hinge",
    "LeastSquares",
    "Minimax",
    "MultiLayerL1",
    "NonSaturatingBCE",
    "RelativisticAverage",
    "Verdicts",
    "Wasserstein",
    "build_objective",
]
