"""The command line of a trial's training."""

from typing import Any

from gan_plugin.comparison.process import key_values

from .context import CONFIG, Context
from .events import weights_of
from .table import Row


def arguments_of(context: Context, row: Row) -> list[str]:
    """What the training tool is told to train `row` until its target, on from its last checkpoint if it has one."""
    folder = context.trial_folder(row.name)
    settings: dict[str, Any] = dict(row.settings)
    for key, value in settings.items():
        if isinstance(value, str) and value.startswith("@"):
            settings[key] = str(weights_of(context.trial_folder(value[1:])))
    settings["OUTPUT_DIR"] = str(folder)
    settings["TUNING.DATA"] = str(context.folder / settings["TUNING.DATA"])
    settings["SOLVER.MAX_ITER"] = row.iterations
    flags = ["--resume"] if folder.exists() else []
    if context.study.gpus_per_trial > 1:
        flags += ["--num-gpus", str(context.study.gpus_per_trial)]
    return ["--config-file", str(context.folder / CONFIG), *flags, *key_values(settings)]
