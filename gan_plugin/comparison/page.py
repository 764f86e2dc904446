"""A page of Markdown about a comparison, with its figures beside it: what docs/results is made of."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .arms import find_arm
from .bars import draw_bars
from .plan import MAIN, MAIN_IN_TRUTH_BOXES, MODEL_A, command_of
from .statistics import LEAST_SEEDS
from .workspace import write_if_new

# what a reader looks for first; what a comparison did not measure is left out
HEADLINES = (
    "segm/AP",
    "segm/AP50",
    "segm/AP75",
    "boundary/AP",
    *MAIN_IN_TRUTH_BOXES,
    "bbox/AP",
    "per_image/AP",
    "per_image/rAP",
    "cityscapes/AP",
    "cityscapes/AP50",
)
_PICTURED = (*MAIN, MAIN_IN_TRUTH_BOXES[-1])
_INTERVALS = ("interval", "images")


def write_page(
    results: Mapping[str, Any],
    file: Path,
    title: str,
    metrics: Sequence[str] = HEADLINES,
    photos: Sequence[Sequence[str]] = (),
) -> list[Path]:
    """Write a page with every seed's value of `metrics`, and bar charts in FILE's folder, named after FILE.

    Args:
        results: as `collect` returns or results.json holds them.
        file: the page, ending in .md.
        title: its heading.
        metrics: names of metrics, in the order of the page.
        photos: as `write_pictures` returns them.

    Returns:
        The files written, the page first.

    Raises:
        UserError: a file cannot be written.
    """
    known = {
        metric: {"model A" if arm == MODEL_A else arm: row for arm, row in rows.items()}
        for metric, rows in results["statistics"].items()
    }
    pictures = []
    for metric in (name for name in _PICTURED if name in known):
        picture = file.with_name(f"{file.stem}_{metric.replace('/', '_').lower()}.svg")
        chart = draw_bars(metric, known[metric])
        write_if_new(picture, chart.svg)
        pictures.append((picture, chart.alt))
    parts = [f"# {title}", _protocol(results), _arms(results["plan"])]
    parts += [f"![{alt}]({picture.name})" for picture, alt in pictures]
    parts += [_table(metric, known[metric], results["plan"]["seeds"]) for metric in metrics if metric in known]
    parts.append(_footnote(results))
    parts += [f"![{_alt(name)}]({name})\n\n{caption}" if name else caption for name, caption in photos]
    write_if_new(file, "\n\n".join(parts) + "\n")
    return [file, *(picture for picture, _ in pictures)]


def _alt(name: str) -> str:
    """A file's name as words; the caption below says the rest."""
    return Path(name).stem.replace("_", " ")


def _protocol(results: Mapping[str, Any]) -> str:
    plan = results["plan"]
    a, b, held_out = plan["split"]["used"]
    missing = [run["folder"] for seeds in results["runs"].values() for run in seeds.values() if not run["metrics"]]
    return (
        f"Model A: {plan['iterations_a']} iterations on the {a} images of `{plan['split']['names'][0]}`, without an "
        f"adversary. From its weights each arm: {plan['iterations_b']} iterations on the {b} images of "
        f"`{plan['split']['names'][1]}`, in the same order. Evaluated after the last iteration on the {held_out} "
        f"held-out images of `{plan['split']['names'][2]}`. Seeds {', '.join(map(str, plan['seeds']))}. "
        f"Runs without a score: {', '.join(missing) or 'none'}.\n\n```bash\n{command_of(plan)}\n```"
    )


def _arms(plan: Mapping[str, Any]) -> str:
    rows = [f"| {arm} | {known.description if (known := find_arm(arm)) else ''} |" for arm in plan["arms"]]
    return "\n".join(["| arm | what |", "|---|---|", *rows])


def _table(metric: str, rows: Mapping[str, Any], seeds: Sequence[int]) -> str:
    of_difference = ["difference", "95 % interval", "over images too", "detectable", "shows"]
    head = ["arm", *(f"seed {seed}" for seed in seeds), "mean", "std", *of_difference]
    lines = [f"## {metric}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for arm, row in rows.items():
        values = [_number(row["values"].get(str(seed))) for seed in seeds]
        cells = [arm, *values, _number(row["mean"]), _number(row["std"])]
        lines.append(f"| {' | '.join([*cells, *_difference(row['difference'])])} |")
    return "\n".join(lines)


def _difference(difference: Mapping[str, Any] | None) -> list[str]:
    if difference is None:
        return [""] * 5
    shown = [f"{each[0]:+.2f} to {each[1]:+.2f}" if each else "n/a" for each in map(difference.get, _INTERVALS)]
    return [_number(difference["mean"], "+"), *shown, _number(difference["detectable"]), difference["verdict"]]


def _number(value: float | None, sign: str = "") -> str:
    return "n/a" if value is None or not math.isfinite(value) else f"{value:{sign}.2f}"


def _footnote(results: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    seeds = len(results["plan"]["seeds"])
    few = "" if seeds >= LEAST_SEEDS else f" {seeds} seeds are too few for a verdict."
    return (
        "The difference is to the baseline of the same seed; std is the sample standard deviation over seeds; the "
        f"first interval is Student's t over seeds, the second adds what a bootstrap over test images shows.{few} "
        f"Detectable is the least true difference that {seeds} seeds would find in 80 % of comparisons. Verdicts are "
        f"on {', '.join(results['plan']['main'])} alone, after Holm's correction over arms and these metrics; the rest "
        f"is exploratory. Versions: {versions}."
    )
