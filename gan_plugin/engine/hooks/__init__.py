"""What happens around the step; AdversarialTrainer.build_hooks says in which order and why."""

from .best_checkpoint import BestCheckpoint
from .collapse import CollapseAlarm
from .ema import GeneratorEMA
from .evaluation import Evaluation
from .histograms import Histograms
from .learning_rate import DiscriminatorLRScheduler, JointLRScheduler
from .periodic_checkpoint import PeriodicCheckpoint
from .phase_schedules import PhaseSchedules
from .sample_grid import SampleGrid
from .stop_signal import StopOnSignal, TrainingInterrupted

__all__ = [
    "BestCheckpoint",
    "CollapseAlarm",
    "DiscriminatorLRScheduler",
    "Evaluation",
    "GeneratorEMA",
    "Histograms",
    "JointLRScheduler",
    "PeriodicCheckpoint",
    "PhaseSchedules",
    "SampleGrid",
    "StopOnSignal",
    "TrainingInterrupted",
]
