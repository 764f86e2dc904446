"""One self-contained HTML file about a comparison."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gan_plugin.metrics import read_metrics
from gan_plugin.visualization.curves import Curve, Group, draw_curves
from gan_plugin.visualization.embed import drawing
from gan_plugin.visualization.page import number, template

from .bars import draw_bars
from .pictures import paired_pictures
from .plan import MODEL_A
from .statistics import LEAST_SEEDS
from .story import Story, adversarial_story
from .workspace import write_if_new

REPORT = "report.html"
_MODEL_A_NAME = "model A"
# the curves that show how the game went
_GAME = ("Generator: sum of its losses", "Generator: adversarial losses", "Discriminator")
_TRAINING = Group("Sum of the losses", {"total_loss": "total_loss"})


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
