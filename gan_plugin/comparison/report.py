"""One self-contained HTML file about a comparison: what it is about, its numbers, and pictures of single objects."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from gan_plugin.errors import UserError
from gan_plugin.metrics import read_metrics
from gan_plugin.visualization.curves import COLOURS, INK, Curve, Group, draw_curves, svg_of
from gan_plugin.visualization.page import drawing, number, template
from gan_plugin.visualization.run_files import read_config
from gan_plugin.visualization.versus import TestSet, reading_help, versus

from .arms import BASELINE, find_arm
from .plan import MODEL_A, command_of
from .run import write_if_new
from .statistics import LEAST_SEEDS

# as in the report of a single run
_SCORE_THRESHOLD = 0.5
REPORT = "report.html"
_MODEL_A_NAME = "model A"
# the curves that show how the game went
_GAME = ("Generator: sum of its losses", "Generator: adversarial losses", "Discriminator")
_TRAINING = Group("Sum of the losses", {"total_loss": "total_loss"})


@dataclass(frozen=True)
class Story:
    """The words around the numbers.

    Attributes:
        question: the heading.
        introduction: what the model, A, B, the baseline and the arms are, for a stranger.
        training_heading, training: of the section with the curves of the arms.
        descriptions: arm -> what it is; arms without one have none.
        command: that repeats the comparison.
    """

    question: str
    introduction: str
    training_heading: str
    training: str
    descriptions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    # the metric of each task that is shown first, where there is one
    headline: str = "AP"
    # whether there are discriminators: single objects are shown with what these say to them, and curves of the game
    adversarial: bool = True


def adversarial_story(plan: Mapping[str, Any]) -> Story:
    """The story of tools/compare.py, for a plan as results.json holds it."""
    return Story(
        question="Does the adversarial loss help?",
        introduction=(
            "A model that outlines objects in images was first trained on the images of subset A without any "
            "adversary: model A. From its weights each arm below was trained on subset B: the baseline as before, the "
            "others against a discriminator, a second network that learns to tell annotated masks from predicted ones. "
            "All arms of a seed had the same iterations, batches and order of images; all were evaluated on held-out "
            "images, which took no part in training."
        ),
        training_heading="How the game went",
        training=(
            "The generator is the model that draws masks, the discriminator (D) its adversary. Lower losses are better "
            "for the player whose they are. loss_adv_… is what D's verdict costs the generator, loss_rec_mask the "
            "distance of its masks to the annotated ones. D(real) is the mean probability of “annotated” that D gives "
            "annotated masks or boxes, D(fake) predicted ones; a D whose accuracy stays near 1 has won, near 0.5 it "
            "cannot tell."
        ),
        descriptions={name: arm.description for name in plan["arms"] if (arm := find_arm(name))},
        command=command_of(plan),
    )


def draw_bars(metric: str, rows: Mapping[str, Mapping[str, Any]]) -> Curve:
    """A bar at each arm's mean, with its sample standard deviation as an error bar and every seed as a dot.

    Args:
        metric: the title.
        rows: arm -> "values" (seed -> value), "mean", "std", as in results.json; arms without a value are left out.
    """
    shown = {arm: row for arm, row in rows.items() if row["values"]}
    figure = Figure(figsize=(1.6 + 0.9 * max(3, len(shown)), 3.0), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    for place, (row, colour) in enumerate(zip(shown.values(), COLOURS * 9, strict=False)):
        axes.bar(place, row["mean"], width=0.6, color=colour, alpha=0.75)
        if row["std"] is not None:
            axes.errorbar(place, row["mean"], row["std"], color=INK, capsize=5, lw=1.4)
        values = list(row["values"].values())
        # side by side, or equal seeds would hide one another
        beside = place + np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else [place]
        axes.plot(beside, values, "o", ms=4, mfc="none", mec=INK)
    axes.set_xticks(range(len(shown)), list(shown), color=INK)
    axes.set_ylabel(metric, color=INK)
    axes.tick_params(colors=INK)
    axes.grid(axis="y", color=INK, alpha=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    return Curve(metric, svg_of(figure), _alt(metric, shown))


def draw_intervals(
    statistics: Mapping[str, Mapping[str, Any]], metrics: Sequence[str], arms: Sequence[str], controls: Collection[str]
) -> Curve:
    """For each metric and arm the mean difference to the baseline, a thick line for its interval over seeds, a thin one
    for that over seeds and images; adversaries in one colour, controls in another.

    Args:
        statistics: as in results.json.
        metrics: one panel each, side by side.
        arms: from top to bottom; those without a difference are left out.
        controls: those of them that are.
    """
    rows = [arm for arm in arms if any(_difference(statistics, metric, arm) for metric in metrics)]
    figure = Figure(figsize=(1.5 + 2.3 * len(metrics), 1.1 + 0.32 * max(2, len(rows))), layout="constrained")
    FigureCanvasSVG(figure)
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    said = []
    for axes, metric in zip(panels, metrics, strict=True):
        axes.axvline(0, color=INK, lw=0.8)
        for place, arm in enumerate(rows):
            found = _difference(statistics, metric, arm)
            if not found:
                continue
            colour = COLOURS[6] if arm in controls else COLOURS[1]
            for key, width in (("images", 1.2), ("interval", 3.5)):
                if found.get(key):
                    axes.plot(found[key], [place, place], color=colour, lw=width, solid_capstyle="butt")
            axes.plot(found["mean"], place, "o", ms=5, color=colour)
            said.append(f"{metric}, {arm}: {found['mean']:+.2f}")
        axes.set_title(metric, color=INK, fontsize=9)
        axes.tick_params(colors=INK)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=INK, alpha=0.15)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(INK)
    panels[0].set_yticks(range(len(rows)), rows, color=INK)
    panels[0].invert_yaxis()
    figure.supxlabel("difference to the baseline, percent points", color=INK, fontsize=9)
    return Curve("Differences to the baseline", svg_of(figure), f"Differences to the baseline. {'; '.join(said)}.")


def _difference(statistics: Mapping[str, Mapping[str, Any]], metric: str, arm: str) -> Mapping[str, Any] | None:
    found = statistics.get(metric, {}).get(arm, {}).get("difference")
    return found if found and found["mean"] is not None else None


def _alt(metric: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    parts = [
        f"{arm}: mean {row['mean']:.2f}, deviation {'n/a' if row['std'] is None else format(row['std'], '.2f')}, "
        f"{row['n']} {'seed' if row['n'] == 1 else 'seeds'}"
        for arm, row in rows.items()
    ]
    return f"{metric}, bar chart: {'; '.join(parts)}."


def paired_pictures(results: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """What the template needs for them: a section for each arm that has finished seeds in common with the baseline.

    Args:
        results: see `collect`.
        output: the comparison's folder, with its runs.
    """
    sections: list[dict[str, Any]] = []
    notes = []
    finished = {
        arm: {seed: output / run["folder"] for seed, run in seeds.items() if run["status"] == "finished"}
        for arm, seeds in results["runs"].items()
    }
    baselines = finished[BASELINE]
    test_set: TestSet | None = None
    for arm in results["plan"]["arms"]:
        seeds = [seed for seed in finished[arm] if seed in baselines]
        if arm == BASELINE or not seeds:
            continue
        try:
            test_set = test_set or _held_out(results, baselines[seeds[0]])
            base, gan = ([of[seed] for seed in seeds] for of in (baselines, finished[arm]))
            sections.append(versus(test_set, base, gan, arm, seeds))
        except UserError as error:
            notes.append(f"No pictures of {arm}: {error}")
    return {
        "duels": sections,
        "duel_notes": notes,
        **reading_help(_SCORE_THRESHOLD),
    }


def _held_out(results: Mapping[str, Any], folder: Path) -> TestSet:
    name = results["plan"]["split"]["names"][2]
    _, names, problem = read_config(folder)
    if name not in names:
        raise UserError(problem or f"{folder} was not evaluated on {name}.")
    return TestSet(name, _SCORE_THRESHOLD)


def write_comparison_report(results: Mapping[str, Any], output: Path, story: Story | None = None) -> Path:
    """Write OUTPUT/report.html, whose words, numbers and pictures are a function of the results and the runs alone.

    Args:
        results: see `collect`.
        output: the comparison's folder, with its runs.
        story: the words around the numbers; None for those of tools/compare.py.

    Returns:
        The path of the report.

    Raises:
        UserError: it cannot be written.
    """
    plan = results["plan"]
    story = story or adversarial_story(plan)
    tasks = _by_task(results["statistics"])
    headlines: dict[str, Any] = {}
    for metrics in tasks.values():
        shown = [name for name in (_headline(metrics, story.headline), *plan["main"]) if name in metrics]
        headlines |= {name: metrics[name] for name in shown}
    seeds = len(plan["seeds"])
    page = template("comparison.html.j2", [Path(__file__).parent]).render(
        title=output.resolve().name,
        plan=plan,
        story=story,
        arms={name: story.descriptions.get(name, "") for name in plan["arms"]},
        seeds=seeds,
        least_seeds=LEAST_SEEDS,
        scaled=plan["split"]["asked"] != plan["split"]["used"],
        shortfalls=_shortfalls(results, story.headline),
        tasks=tasks,
        headlines=headlines,
        bars=[draw_bars(name, rows) for name, rows in headlines.items()],
        curves=_curves(results, output, story),
        **(paired_pictures(results, output) if story.adversarial else {"duels": [], "duel_notes": []}),
        controls=results["controls"],
        versions=results["versions"],
        number=number,
        drawing=drawing,
        model_a=_MODEL_A_NAME,
    )
    write_if_new(output / REPORT, page)
    return output / REPORT


def _by_task(statistics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{"segm": {"segm/AP": rows, ...}, "ema/segm": ...}: what all classes have in common before what one has alone."""
    tasks: dict[str, dict[str, Any]] = {}
    for metric in sorted(statistics, key=lambda name: (name.rpartition("/")[0], "-" in name.rpartition("/")[2])):
        tasks.setdefault(metric.rpartition("/")[0], {})[metric] = _named(statistics[metric])
    # masks are what the adversary is for
    return dict(sorted(tasks.items(), key=lambda item: (item[0] != "segm", item[0] == "bbox")))


def _named(rows: Mapping[str, Any]) -> dict[str, Any]:
    return {_MODEL_A_NAME if arm == MODEL_A else arm: row for arm, row in rows.items()}


def _headline(metrics: Mapping[str, Any], wanted: str) -> str | None:
    """The metric that sums up its task: the wanted one, or its AP, or else the first that is no class's own."""
    ends = (f"/{wanted}", "/AP")
    return next((name for end in ends for name in metrics if name.endswith(end)), next(iter(metrics), None))


def _shortfalls(results: Mapping[str, Any], wanted: str) -> list[str]:
    """A sentence for each run that lacks results."""
    sentences = []
    headlines = [name for metrics in _by_task(results["statistics"]).values() if (name := _headline(metrics, wanted))]
    for arm, seeds in results["runs"].items():
        for seed, run in seeds.items():
            missing = [name for name in headlines if run["metrics"].get(name) is None]
            if run["status"] != "finished":
                reason = results["failures"].get(run["folder"], "")
                sentences.append(f"The run {run['folder']}: {run['status']}. {reason}".strip())
            elif missing or not headlines:
                what = _MODEL_A_NAME if arm == MODEL_A else arm
                sentences.append(
                    f"{what} with seed {seed} has no {', '.join(missing) or 'score'}, most often because it detects "
                    "nothing; its means are over the other seeds, which flatters it."
                )
    return sentences


def _curves(results: Mapping[str, Any], output: Path, story: Story) -> dict[str, dict[str, list[Curve]]]:
    """Arm -> seed -> curves of the game, or of the training where there is no adversary."""
    curves: dict[str, dict[str, list[Curve]]] = {}
    for arm in results["plan"]["arms"]:
        for seed, run in results["runs"][arm].items():
            metrics = read_metrics(output / run["folder"] / "metrics.json")
            if story.adversarial:
                drawn = [curve for curve in draw_curves(metrics) if curve.title.startswith(_GAME)]
            else:
                drawn = draw_curves(metrics, [_TRAINING])
            curves.setdefault(arm, {})[seed] = drawn
    return curves
