"""What happens around the step; AdversarialTrainer.build_hooks says in which order and why."""

from .best_checkpoint import BestCheckpoint
from .ema import GeneratorEMA
from .evaluation import Evaluation
from .learning_rate import DiscriminatorLRScheduler, JointLRScheduler
from .stop_signal import StopOnSignal, TrainingInterrupted

__all__ = [
    "BestCheckpoint",
    "DiscriminatorLRScheduler",
    "Evaluation",
    "GeneratorEMA",
    "JointLRScheduler",
    "StopOnSignal",
    "TrainingInterrupted",
]
