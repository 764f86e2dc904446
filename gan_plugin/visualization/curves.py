"""Curves of a run: one SVG picture for each group of the scalars in its metrics.json."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Okabe and Ito, without the yellow that vanishes on white
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8c8c8c")
# stands for the colour of text in the picture, and is replaced by a CSS variable that follows light and dark
INK = "#010203"
_STYLE = "<style>svg{--ink:#222;color-scheme:light dark}@media(prefers-color-scheme:dark){svg{--ink:#ddd}}</style>"
_WIDTH, _HEIGHT = 5.4, 2.7


@dataclass(frozen=True)
class Curve:
    """A picture: its title, the SVG document, and what it shows in words."""

    title: str
    svg: str
    alt: str


@dataclass(frozen=True)
class Group:
    """The scalars of one picture."""

    title: str
    # key in metrics.json -> name in the legend; a key that ends in "*" stands for all keys that begin so
    keys: Mapping[str, str]
    log: bool = False
    bounds: tuple[float, float] | None = None
    x_label: str = "iteration"


_GROUPS = (
    Group(
        "Generator: sum of its losses",
        {"loss_gen_total": "loss_gen_total: all that it minimises", "total_loss": "total_loss"},
    ),
    Group("Discriminator: sum of its losses", {"loss_disc_total": "loss_disc_total: all that it minimises"}),
    Group(
        "Generator: detection and mask losses",
        {key: key for key in ("loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc")},
        log=True,
    ),
    Group("Generator: adversarial losses", {"loss_adv_*": "", "loss_rec_*": ""}),
    Group(
        "Discriminator: its verdicts",
        {
            "gan/mask/d_real": "D(real mask)",
            "gan/mask/d_fake": "D(fake mask)",
            "gan/mask/d_accuracy": "accuracy on masks",
            "gan/box/d_real": "D(real box)",
            "gan/box/d_fake": "D(fake box)",
            "gan/box/d_accuracy": "accuracy on boxes",
        },
        bounds=(-0.03, 1.03),
    ),
    Group("Learning rates", {"lr": "generator", "lr_disc": "discriminator"}, log=True),
    Group("Gradient norms", {"grad_norm/generator": "generator", "grad_norm/discriminator": "discriminator"}, log=True),
    Group("Gradient at the shared features: share of each loss", {"feature_share/*": ""}, bounds=(-0.03, 1.03)),
    Group(
        "AP on the test set, in percent",
        {"cityscapes/AP": "Cityscapes AP", "segm/AP": "COCO mask AP", "bbox/AP": "COCO box AP"},
    ),
)
# exact by nature or measured seldom: a moving average would falsify them
_NOT_SMOOTHED = ("lr", "lr_disc", "cityscapes/AP", "segm/AP", "bbox/AP")
# begins the keys of series that are as measured
_EXACT = "exact: "


def draw_curves(metrics: Sequence[Mapping[str, float]], groups: Sequence[Group] = _GROUPS) -> list[Curve]:
    """One picture for each group of scalars that the run has; a run without a discriminator has none of its groups.

    Raw values are thin, their moving average (over a tenth of the points) thick. The adversarial scalars begin where
    the game does: zeros before its start are not drawn.

    Args:
        metrics: see `gan_plugin.metrics.read_metrics`.
        groups: of scalars; those of an instance segmenter's training by default.
    """
    curves = []
    has_players = any("loss_gen_total" in line for line in metrics)
    start = _start_of_game(metrics)
    for group in groups:
        series = {}
        for key, name in _expand(group.keys, metrics).items():
            if key == "total_loss" and has_players:
                continue
            points = _points(metrics, key, start if _is_adversarial(key) else 0)
            if len(points):
                series[key] = (name, points)
        if series and (group.title[:2] != "AP" or max(len(points) for _, points in series.values()) > 1):
            curves.append(Curve(group.title, _svg(group, series), _alt(group.title, series)))
    return curves


def draw_lines(
    title: str, lines: Mapping[str, np.ndarray], *, x_label: str = "iteration", log: bool = False, exact: bool = False
) -> Curve:
    """One picture of any lines, such as one score of several runs.

    Args:
        title: of the picture.
        lines: name in the legend -> (N, 2), places and values, N above 0.
        x_label: what the places are.
        log: a logarithmic scale, where all values are positive.
        exact: values measured seldom, which no moving average may falsify.
    """
    series = {f"{_EXACT if exact else ''}{name}": (name, points) for name, points in lines.items()}
    return Curve(title, _svg(Group(title, {}, log=log, x_label=x_label), series), _alt(title, series, x_label))


def _expand(keys: Mapping[str, str], metrics: Sequence[Mapping[str, float]]) -> dict[str, str]:
    known = sorted({key for line in metrics for key in line})
    expanded: dict[str, str] = {}
    for key, name in keys.items():
        if key.endswith("*"):
            expanded |= {found: found for found in known if found.startswith(key[:-1])}
        else:
            expanded[key] = name
    return expanded


def _is_adversarial(key: str) -> bool:
    return key.startswith(("loss_adv_", "loss_rec_", "loss_disc_", "grad_norm/discriminator"))


def _start_of_game(metrics: Sequence[Mapping[str, float]]) -> float:
    playing = (line["iteration"] for line in metrics if line.get("loss_disc_total", 0) != 0)
    return next(playing, math.inf if any("loss_disc_total" in line for line in metrics) else 0)


def _points(metrics: Sequence[Mapping[str, float]], key: str, start: float) -> np.ndarray:
    """(N, 2): iteration and value, finite ones from iteration `start` on."""
    pairs = [(line["iteration"], line[key]) for line in metrics if key in line and line["iteration"] >= start]
    return np.array([pair for pair in pairs if math.isfinite(pair[1])], dtype=float).reshape(-1, 2)


def smooth(values: np.ndarray) -> np.ndarray:
    """(N,) -> (N,): the centred moving average over a tenth of the points; the window is cut off at both ends."""
    half = len(values) // 20
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    first, end = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (sums[end] - sums[first]) / (end - first)


def _svg(group: Group, series: Mapping[str, tuple[str, np.ndarray]]) -> str:
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    for (key, (name, points)), colour in zip(series.items(), COLOURS * 9, strict=False):
        line: dict[str, Any] = {"color": colour, "lw": 1.8, "label": name}
        if key in _NOT_SMOOTHED or key.startswith(_EXACT) or len(points) < 20:
            axes.plot(*points.T, marker="o" if len(points) < 20 else None, ms=3, **line)
        else:
            axes.plot(*points.T, color=colour, lw=0.7, alpha=0.35, zorder=1)
            axes.plot(points[:, 0], smooth(points[:, 1]), **line)
    everything = np.concatenate([points[:, 1] for _, points in series.values()])
    if group.log and (everything > 0).all():
        axes.set_yscale("log")
        few = everything.max() < 1000 * everything.min()
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if few else (1,)))
        axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    if group.bounds:
        axes.set_ylim(*group.bounds)
    _set_look(figure, axes, group.x_label)
    return svg_of(figure)


def svg_of(figure: Figure) -> str:
    """The figure as an SVG document, byte for byte the same each time; what is drawn in INK follows light and dark."""
    # glyphs as paths look the same everywhere; a fixed salt makes the same run give the same file
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "gan_plugin"}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().replace(INK, "var(--ink)")
    head, tag, rest = text[text.index("<svg") :].partition(">")
    return head + tag + _STYLE + rest


def _set_look(figure: Figure, axes: matplotlib.axes.Axes, x_label: str) -> None:
    axes.set_xlabel(x_label, color=INK)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    axes.tick_params(colors=INK, which="both")
    axes.grid(color=INK, alpha=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    # above the axes, where it can hide no curve
    figure.legend(loc="outside upper left", ncols=3, frameon=False, labelcolor=INK, fontsize=9, handlelength=1.4)


def _alt(title: str, series: Mapping[str, tuple[str, np.ndarray]], x_label: str = "iteration") -> str:
    parts = [
        f"{name} from {points[0, 1]:.3g} at {x_label} {points[0, 0]:.0f} to {points[-1, 1]:.3g} at {points[-1, 0]:.0f}"
        for name, points in series.values()
    ]
    return f"{title}, line plot: {'; '.join(parts)}."
