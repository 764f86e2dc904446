"""Curves, sweeps and bars of a study's trials (slides, sections 1 and 3 to 7)."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from gan_plugin.metrics import read_metrics
from gan_plugin.visualization.curves import INK

from ..data.statistics import PartStatistics
from ..search.table import Row, Table
from ..training.outcome import LR_RANGE
from .gather import Judged
from .picture import Picture, colour, fit_axis, new_axes, plot
from .seed_rows import AP, THRESHOLDS

_MARKERS = "os^Dvp*"


def class_bars(parts: Mapping[str, PartStatistics]) -> Picture:
    """The share of each class in every part."""
    figure, axes = new_axes(7.5, 3.0)
    names = list(next(iter(parts.values())).by_class)
    width = 0.8 / len(parts)
    for number, (part, statistics) in enumerate(parts.items()):
        shares = [100 * statistics.by_class[name] / max(1, statistics.instances) for name in names]
        places = [place + (number - (len(parts) - 1) / 2) * width for place in range(len(names))]
        axes.bar(places, shares, width=width, color=colour(number), label=part)
    axes.set_xticks(range(len(names)), names, color=INK, rotation=20)
    axes.set_ylabel("% of the part's instances")
    caption = "How often each class occurs in each part of the data, in percent of that part's instances."
    return plot("class_distribution", caption, figure, legend=True)


def loss_curves(name: str, caption: str, rows: Sequence[Row], epoch: int, folder: Path | None = None) -> Picture:
    """Validation loss over epochs, one line a trial, and for a single one its training loss too.

    Args:
        name, caption: of the picture.
        rows: with a history.
        epoch: its iterations.
        folder: of the trial, whose training loss is drawn as well.
    """
    figure, axes = new_axes()
    for number, row in enumerate(rows):
        points = [(entry["iteration"] / epoch, entry["total"]) for entry in row.attr("history", [])]
        style = {"marker": _MARKERS[number % len(_MARKERS)], "ms": 3.5, "lw": 1.5}
        axes.plot(*zip(*points, strict=True), color=colour(number), label=_label(row, folder), **style)
    if folder is not None and (folder / "metrics.json").is_file():
        lines = read_metrics(folder / "metrics.json")
        key = "loss_gen_total" if any("loss_gen_total" in line for line in lines) else "total_loss"
        training = [((line["iteration"] + 1) / epoch, line[key]) for line in lines if key in line]
        if training:
            axes.plot(*zip(*training, strict=True), color=colour(1), lw=1.2, ls="--", label="training")
    fit_axis(axes, (value for line in axes.get_lines() for value in line.get_ydata()))
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    return plot(name, caption, figure, legend=True)


def _label(row: Row, folder: Path | None) -> str:
    return "validation" if folder is not None else row.key


def lr_sweep(name: str, caption: str, rows: Sequence[Row], groups: Mapping[str, str], metric: str) -> Picture:
    """The objective against the learning rate, one line a group; crosses for what has failed.

    Args:
        name, caption: of the picture.
        rows: of the coarse search.
        groups: key of a trial -> name of its group.
        metric: the objective.
    """
    figure, axes = new_axes()
    values = [row.value for row in rows if row.value is not None] or [1.0]
    worst = max(values) if metric.startswith("val_loss/") else min(values)
    for number, group in enumerate(dict.fromkeys(groups.values())):
        own = sorted((row for row in rows if groups[row.key] == group), key=lambda row: row.params["lr"])
        points = [(row.params["lr"], row.value) for row in own if row.value is not None]
        if points:
            marker = _MARKERS[number % len(_MARKERS)]
            axes.plot(*zip(*points, strict=True), color=colour(number), marker=marker, ms=5, label=group)
        lost = [row.params["lr"] for row in own if row.is_failed]
        axes.plot(lost, [worst] * len(lost), "x", ms=8, mew=2, color=colour(number))
    fit_axis(axes, values)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel(metric)
    return plot(name, caption, figure, legend=True)


def lr_range(folder: Path) -> Picture | None:
    """The training loss while the learning rate rises."""
    try:
        content = json.loads((folder / LR_RANGE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    rates, losses = content["lr"], content["loss"]
    if not rates:
        return None
    figure, axes = new_axes()
    axes.plot(rates, losses, color=colour(0), lw=1.4)
    axes.set_xscale("log")
    fit_axis(axes, losses)
    axes.set_xlabel("learning rate, rising over the iterations")
    axes.set_ylabel("training loss")
    steepest = suggested_rate(rates, losses)
    axes.axvline(steepest, color=INK, lw=1, ls=":")
    caption = (
        f"Learning-rate range check: the rate rises from {rates[0]:g} until the loss explodes or the iterations end. "
        f"The dotted line is where the smoothed loss falls fastest, {steepest:.2g}."
    )
    return plot("lr_range", caption, figure)


def suggested_rate(rates: Sequence[float], losses: Sequence[float], window: int = 5) -> float:
    """The rate at which the loss, smoothed over `window` iterations, falls fastest before its minimum."""
    smoothed = []
    for place in range(len(losses)):
        part = losses[max(0, place - window // 2) : place + window // 2 + 1]
        smoothed.append(sum(part) / len(part))
    lowest = min(range(len(smoothed)), key=smoothed.__getitem__)
    if lowest == 0:
        return rates[0]
    slopes = [
        (smoothed[i + 1] - smoothed[i]) / (math.log(rates[i + 1]) - math.log(rates[i]))
        for i in range(lowest)
        if rates[i + 1] > rates[i]
    ]
    return rates[min(range(len(slopes)), key=slopes.__getitem__)] if slopes else rates[0]


def gradient_norms(folder: Path, epoch: int) -> Picture | None:
    """The norm of the gradient over the babysitting."""
    file = folder / "metrics.json"
    lines = read_metrics(file) if file.is_file() else []
    key = "grad_norm/generator"
    points = [((line["iteration"] + 1) / epoch, line[key]) for line in lines if key in line]
    if not points:
        return None
    figure, axes = new_axes()
    axes.plot(*zip(*points, strict=True), color=colour(0), marker="o", ms=3)
    axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel("gradient norm")
    caption = "Euclidean norm of the gradient before any clipping; a norm that grows without end announces divergence."
    return plot("gradient_norm", caption, figure)


def ap_bars(judged: Mapping[str, Judged]) -> Picture:
    """AP at IoU 0.5 of every variant with its interval over images, and the slides' beside it."""
    figure, axes = new_axes(max(5.4, 0.9 * len(judged) + 2))
    for place, (name, result) in enumerate(judged.items()):
        axes.bar(place - 0.2, result.ap[0], width=0.38, color=colour(0), label="ours" if not place else None)
        if result.interval:
            low, high = result.interval
            axes.errorbar(
                place - 0.2, result.ap[0], [[result.ap[0] - low], [high - result.ap[0]]], color=INK, capsize=4
            )
        if name in AP:
            first = "slides" if name == next(variant for variant in judged if variant in AP) else None
            axes.bar(place + 0.2, AP[name][0], width=0.38, color=colour(5), label=first)
    axes.set_xticks(range(len(judged)), list(judged), color=INK)
    axes.set_ylabel("AP at IoU 0.5, mean over images")
    caption = (
        "Mean over the test images of each image's AP at IoU 0.5; error bars are 95 % bootstrap intervals over images. "
        "The slides' bars are of their Cityscapes test images and compare only where ours are the same images."
    )
    return plot("ap_bars", caption, figure, legend=True)


def threshold_curves(judged: Mapping[str, Judged]) -> Picture:
    """AP against the IoU threshold."""
    figure, axes = new_axes()
    for number, (name, result) in enumerate(judged.items()):
        marker = _MARKERS[number % len(_MARKERS)]
        axes.plot(THRESHOLDS, result.ap, color=colour(number), marker=marker, ms=3.5, lw=1.5, label=name)
    axes.set_xlabel("IoU threshold")
    axes.set_ylabel("AP, mean over images")
    return plot("ap_thresholds", "AP over the IoU threshold; its mean is the rAP.", figure, legend=True)


def budget_bars(table: Table, phases: list[str]) -> Picture | None:
    """Iterations that each phase has computed, by how its trials ended."""
    spent = {
        phase: {
            status: sum(row.trained for row in table.rows(phase).values() if row.status == status)
            for status in dict.fromkeys(row.status for row in table.rows(phase).values())
        }
        for phase in phases
    }
    if not any(spent.values()):
        return None
    figure, axes = new_axes()
    statuses = list(dict.fromkeys(status for of_phase in spent.values() for status in of_phase))
    below = dict.fromkeys(spent, 0.0)
    for number, status in enumerate(statuses):
        heights = [of_phase.get(status, 0) for of_phase in spent.values()]
        axes.bar(list(spent), heights, bottom=list(below.values()), color=colour(number), label=status)
        below = {phase: below[phase] + height for phase, height in zip(spent, heights, strict=True)}
    axes.set_ylabel("iterations")
    axes.tick_params(axis="x", rotation=15)
    return plot("budget", "Iterations that each phase has spent, by how its trials ended.", figure, legend=True)
