"""One self-contained HTML file about two kinds of runs: where a GAN gains on its baseline, object by object."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gan_plugin.errors import UserError
from gan_plugin.metrics import FILE, read_metrics

from . import panels
from .curves import draw_curves
from .embed import drawing
from .page import save_page, template
from .paired import LEAST_IOU
from .run_files import read_config
from .versus import TestSet, versus


def write_versus_report(
    baselines: Sequence[Path], gans: Sequence[Path], path: Path, *, score_threshold: float = 0.5
) -> Path:
    """Compare the predictions of runs on the test sets that they have in common.

    Args:
        baselines, gans: OUTPUT_DIRs, one a seed, in the same order.
        path: of the report, whose folder is made if need be.
        score_threshold: predictions below it, in [0, 1], do not count.

    Returns:
        `path`.

    Raises:
        UserError: the sides do not have as many runs, no test set in common, or a run cannot be read; or `path` cannot
            be written.
    """
    if len(baselines) != len(gans):
        raise UserError(
            f"--baseline names {len(baselines)} and --gan {len(gans)} runs; name one of each for every seed, in the "
            "same order."
        )
    configs, shared = _configs([*baselines, *gans])
    seeds = _seeds(configs[len(baselines) :])
    names = {folder.resolve().name for folder in gans}
    who = names.pop() if len(names) == 1 else "GAN"
    sections = [versus(TestSet(name, score_threshold), baselines, gans, who, seeds) for name in shared]
    page = template("versus.html.j2").render(
        who=who,
        runs=[
            {"seed": seed, "baseline": base, "gan": gan} for seed, base, gan in zip(seeds, baselines, gans, strict=True)
        ],
        sections=dict(zip(shared, sections, strict=True)),
        curves=[drawing(curve) for curve in draw_curves(read_metrics(gans[0] / FILE))],
        **reading_help(score_threshold),
    )
    return save_page(page, path)


def reading_help(score_threshold: float) -> dict[str, Any]:
    """What the macro "how_to_read" of the template takes."""
    return {
        "score_threshold": score_threshold,
        "least_iou": LEAST_IOU,
        "difference_legend": list(panels.DIFFERENCE_LEGEND.values()),
        "outline_legend": list(panels.OUTLINE_LEGEND.items()),
    }


def _configs(folders: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """The configs of all runs, and the test sets that they share."""
    read = [(folder, *read_config(folder)) for folder in folders]
    for folder, _, names, problem in read:
        if not names:
            raise UserError(f"{folder} cannot be compared: {problem or 'its DATASETS.TEST is empty.'}")
    shared = [name for name in read[0][2] if all(name in names for _, _, names, _ in read)]
    if not shared:
        raise UserError("The runs have no test set in common; compare runs that were evaluated on the same images.")
    return [config for _, config, _, _ in read], shared


def _seeds(configs: Sequence[dict[str, Any]]) -> list[str]:
    """What the runs call their seeds; their numbers, if that does not tell them apart."""
    seeds = [str(config.get("SEED", -1)) for config in configs]
    return seeds if len(set(seeds)) == len(seeds) else [str(number) for number in range(1, len(seeds) + 1)]
