"""Training of two players."""

from .trainer import AdversarialTrainer

__all__ = ["AdversarialTrainer"]
