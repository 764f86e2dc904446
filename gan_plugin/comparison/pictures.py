"""The pictures of a comparison that show single objects: each GAN arm against the baseline, over all seeds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gan_plugin.errors import UserError
from gan_plugin.visualization.run_files import read_config
from gan_plugin.visualization.versus import TestSet, versus
from gan_plugin.visualization.versus_report import reading_help

from .arms import BASELINE

# as in the report of a single run
_SCORE_THRESHOLD = 0.5


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
