"""How long a study will take, from a few timed iterations of its first trial."""

import math
import tempfile
from pathlib import Path

from gan_plugin.comparison.conduct import TIMED, Cost, timed
from gan_plugin.comparison.run import key_values

from .context import CONFIG, Context
from .fine import FINE, brackets
from .fine import cost as epochs_of
from .study import Coarse, Fine, Study
from .worker import TOOL
from .workspace import STUDY, open_study, set_up


def dry_run(study_file: Path, output: Path, workers: int) -> str:
    """What a study would do and how long it would take; nothing is left behind, and nothing in `output` changes.

    Raises:
        UserError: the study is not usable, or the timed iterations fail; the sentence is their own.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if (output / STUDY).is_file():
            context, _ = open_study(output)
        else:
            context, _ = set_up(study_file, Path(scratch) / "study", storage="")
        return describe(context, measure(context, Path(scratch)), workers)


def measure(context: Context, scratch: Path) -> Cost:
    """Time a short run with the study's own settings in the folder `scratch`."""
    settings = context.settings(train="small_train", val="small_val", iterations=TIMED)
    first = next(iter(context.study.phases.values()))
    settings |= context.settings(getattr(first, "settings", {}), train="small_train", val="small_val", iterations=TIMED)
    folder = scratch / "timed"
    settings |= {"OUTPUT_DIR": str(folder), "SOLVER.MAX_ITER": TIMED, "TUNING.DATA": str(context.folder / "data")}
    settings = {key: value for key, value in settings.items() if not str(value).startswith("@")}
    return timed(TOOL, ["--config-file", str(context.folder / CONFIG), *key_values(settings)], folder)


def describe(context: Context, cost: Cost, workers: int) -> str:
    """A line for each phase, and the time of all."""
    lines, total = [], 0.0
    for name, (starts, iterations) in planned(context).items():
        seconds = starts * cost.start + iterations * cost.iteration
        total += seconds
        lines.append(f"  {name:8} {starts:>4} runs {iterations:>9} iterations {seconds / 60:>9.1f} min")
    parts = ", ".join(f"{part} {count}" for part, count in context.images.items())
    limit = context.study.budget.hours
    return "\n".join(
        [
            f"Images: {parts}; {len(context.classes)} classes.",
            *lines,
            f"One iteration takes {cost.iteration:.2f} s, start and validation of a run {cost.start:.0f} s.",
            f"Estimated at most {total / 60:.1f} minutes of one worker, {total / 60 / workers:.1f} with --workers "
            f"{workers}" + (f"; the budget ends it after {limit:g} hours." if limit else "."),
        ]
    )


def planned(context: Context) -> dict[str, tuple[int, int]]:
    """Phase -> (runs, iterations) at most; early stopping and divergence only make it less."""
    study, small = context.study, context.epoch("small_train")
    plans: dict[str, tuple[int, int]] = {}
    for name, phase in study.phases.items():
        if name == "babysit":
            ramp = phase.lr_range_iterations
            plans[name] = (1 + bool(ramp), round(phase.epochs * small) + ramp)
        elif name == "coarse":
            count = coarse_count(phase)
            plans[name] = (count, round(count * phase.epochs * small))
        elif name == FINE:
            plans[name] = _fine(phase, small)
        elif name == "confirm":
            count = phase.top * len(phase.seeds)
            plans[name] = (count, round(count * _fine_epochs(study) * small))
        else:
            count = len(phase.variants)
            plans[name] = (count, round(count * phase.epochs * context.epoch("train")))
    return plans


def coarse_count(phase: Coarse) -> int:
    """Trials of the coarse search; a combination that two factors ask for is trained once."""
    sizes = [len(levels) for levels in phase.factors.values()]
    if phase.procedure == "factorial":
        return len(phase.lr) * math.prod(sizes)
    return len(phase.lr) * (1 + sum(size - 1 for size in sizes))


def _fine(phase: Fine, epoch: int) -> tuple[int, int]:
    arms = len(phase.arms)
    if phase.method == "optuna":
        return arms * phase.trials, round(arms * phase.trials * phase.epochs * epoch)
    table = brackets(phase.epochs, phase.eta)
    runs = sum(rung.trials for bracket in table for rung in bracket.rungs)
    return arms * runs, round(arms * epochs_of(table) * epoch)


def _fine_epochs(study: Study) -> float:
    return study.phases[FINE].epochs
