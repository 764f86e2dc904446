"""A page of Markdown about a comparison, with its figures and pictures beside it: what docs/results is made of."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from gan_plugin.files import write_whole

from .arms import BASELINE, find_arm
from .plan import MAIN_IN_TRUTH_BOXES, MODEL_A, command_of
from .report import draw_intervals, paired_pictures
from .run import write_if_new
from .statistics import ABOVE_ALL, LEAST_SEEDS

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
_INTERVALS = ("interval", "images")
_QUESTION = "Does an adversary make the masks of this model better than its controls do, which cost less?"
_CAPTION = (
    "Mean difference to the baseline of the same seed; thick: 95 % interval over seeds, thin: over seeds and test "
    "images. Grey: controls."
)
_HEIGHT = 200
_GAP = 6
_MOST_PIXELS = 900
# objects of an arm that gain most, and as many that lose most
_ROWS = 3
_COLOURS = "In the differences blue is right, orange too much, yellow missed."


def write_page(
    results: Mapping[str, Any],
    file: Path,
    title: str,
    metrics: Sequence[str] = HEADLINES,
    photos: Sequence[Sequence[str]] = (),
) -> list[Path]:
    """Write a page: the question, the answer, a figure with intervals, pictures; every number behind a fold.

    Args:
        results: as `collect` returns or results.json holds them.
        file: the page, ending in .md; the figure lies beside it and is named after it.
        title: its heading.
        metrics: names of metrics whose values the page has for every seed, in its order.
        photos: as `write_pictures` returns them.

    Returns:
        The files written, the page first.

    Raises:
        UserError: a file cannot be written.
    """
    statistics, plan = results["statistics"], results["plan"]
    known = {
        metric: {"model A" if arm == MODEL_A else arm: row for arm, row in rows.items()}
        for metric, rows in statistics.items()
    }
    main = [metric for metric in plan["main"] if metric in known]
    written = [file]
    parts = [f"# {title}", f"**{_QUESTION}**", _answer(results)]
    if main:
        others = [arm for arm in plan["arms"] if arm != BASELINE]
        controls = [arm for arm in others if (found := find_arm(arm)) and found.control]
        chart = draw_intervals(statistics, main, others, controls)
        written.append(file.with_name(f"{file.stem}.svg"))
        write_if_new(written[-1], chart.svg)
        parts += [f"![{chart.alt}]({written[-1].name})", _CAPTION, _differences(statistics, main, others)]
    parts += [_against_controls(results["controls"])] if results["controls"] else []
    parts += [f"![{_alt(name)}]({name})\n\n{caption}" if name else caption for name, caption in photos]
    parts.append(_fold("How it was made", [_protocol(results), _arms(plan), _footnote(results)]))
    tables = [_table(metric, known[metric], plan["seeds"]) for metric in metrics if metric in known]
    parts.append(_fold("Every seed", tables))
    write_if_new(file, "\n\n".join(parts) + "\n")
    return written


def _answer(results: Mapping[str, Any]) -> str:
    """Two sentences: what is shown, and how much more the adversaries may be worth."""
    seeds, controls = len(results["plan"]["seeds"]), results["controls"]
    if seeds < LEAST_SEEDS:
        return f"Too few seeds for an answer ({seeds}); what follows is an observation."
    if not controls:
        return "This comparison has no control besides the baseline, so it cannot tell."
    found = [(metric, arm, each) for metric, arms in controls.items() for arm, each in arms.items()]
    above = [f"{arm} in {metric}" for metric, arm, each in found if each["verdict"] == ABOVE_ALL]
    names = ", ".join(dict.fromkeys(arm for _, arm, _ in found))
    first = (
        f"Yes for {', '.join(above)}, where it is above every control."
        if above
        else f"Not shown of {names}: above every control in none of {', '.join(controls)}."
    )
    ends = []
    for metric, arms in controls.items():
        closest = [each["to"][each["closest"]] for each in arms.values()]
        highest = [(one["images"] or one["interval"] or (0, math.nan))[1] for one in closest]
        ends.append(f"{max(highest):+.1f} of {metric}")
    return f"{first} Over the closest control the intervals end at {', '.join(ends)}, in percent points."


def _differences(statistics: Mapping[str, Any], metrics: Sequence[str], arms: Sequence[str]) -> str:
    lines = [f"| arm | {' | '.join(metrics)} |", "|---" * (len(metrics) + 1) + "|"]
    for arm in arms:
        found = [statistics[metric].get(arm, {}).get("difference") for metric in metrics]
        lines.append(f"| {arm} | {' | '.join(map(_with_interval, found))} |")
    return "\n".join(lines)


def _with_interval(found: Mapping[str, Any] | None) -> str:
    if not found or found["mean"] is None:
        return "n/a"
    interval = found["images"] or found["interval"]
    return f"{found['mean']:+.2f}" + (f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else "")


def _against_controls(controls: Mapping[str, Any]) -> str:
    head = ["adversary", "metric", "closest control", "difference to it", "p, one-sided, after Holm", "shows"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for metric, arms in controls.items():
        for arm, found in arms.items():
            closest = found["closest"]
            p = "n/a" if found["adjusted"] is None else f"{found['adjusted']:.3f}"
            cells = [arm, metric, closest, _with_interval(found["to"][closest]), p, found["verdict"]]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _fold(summary: str, parts: Sequence[str]) -> str:
    return "\n\n".join([f"<details><summary>{summary}</summary>", *parts, "</details>"])


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
    lines = [f"**{metric}**", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
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
        "is exploratory. An adversary is above its controls if it is above each of them (intersection-union test); the "
        f"closest is the one of which that is least sure. Versions: {versions}."
    )


def write_pictures(results: Mapping[str, Any], comparison: Path, stem: Path, arms: Sequence[str]) -> list[list[str]]:
    """For each arm the objects that gain and lose most, three of either, and what its discriminator says.

    Args:
        results: as results.json holds them.
        comparison: the --output of tools/compare.py, with its runs.
        stem: what the names of the files begin with, such as docs/results/street for street_paper_gain1.jpg.
        arms: those wanted.

    Returns:
        [file name, caption] of each picture; of an arm without pictures the reason, with "" for the file name.

    Raises:
        UserError: a file cannot be written.
    """
    found = paired_pictures({**results, "plan": {**results["plan"], "arms": list(arms)}}, comparison)
    written = [["", note] for note in found["duel_notes"]]
    for section in found["duels"]:
        kinds = {"gain": " gains most", "loss": " loses most"}
        for kind, ending in kinds.items():
            rows = [row for group in section["groups"] if group["title"].endswith(ending) for row in group["rows"]]
            for number, row in enumerate(rows[:_ROWS], start=1):
                file = stem.with_name(f"{stem.name}_{section['who']}_{kind}{number}.jpg")
                _save(_strip(row["tiles"]), file)
                tiles = ", ".join(tile["caption"] for tile in row["tiles"])
                written.append([file.name, f"{row['caption']} From left to right: {tiles}. {_COLOURS}"])
        if section["verdict"]:
            file = stem.with_name(f"{stem.name}_{section['who']}_verdicts.jpg")
            picture = _opened(section["verdict"])
            picture.thumbnail((_MOST_PIXELS, _MOST_PIXELS), Image.Resampling.LANCZOS)
            _save(picture, file)
            written.append([file.name, section["verdict"]["caption"]])
    return written


def _opened(embedded: Mapping[str, str]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(embedded["src"].partition(",")[2]))).convert("RGB")


def _strip(tiles: Sequence[Mapping[str, str]]) -> Image.Image:
    """All tiles side by side, of equal height."""
    pictures = [_opened(tile) for tile in tiles]
    scaled = [p.resize((max(1, round(p.width * _HEIGHT / p.height)), _HEIGHT)) for p in pictures]
    strip = Image.new("RGB", (sum(p.width + _GAP for p in scaled) - _GAP, _HEIGHT), "white")
    left = 0
    for picture in scaled:
        strip.paste(picture, (left, 0))
        left += picture.width + _GAP
    return strip


def _save(picture: Image.Image, file: Path) -> None:
    write_whole(file, partial(picture.save, format="JPEG", quality=85))
