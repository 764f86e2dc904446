"""One self-contained HTML file about a run, from what the run left in its OUTPUT_DIR."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

import gan_plugin
from gan_plugin.data.pictures import image_problem
from gan_plugin.engine.checkpoint import FINAL, checkpoint_file
from gan_plugin.engine.provenance import LOG, read_facts
from gan_plugin.errors import UserError
from gan_plugin.metrics import final_evaluation, read_metrics, scores_by_task

from . import panels
from .curves import draw_curves
from .page import drawing, embed, save_page, template
from .run_files import read_config, results_file, stored_predictions
from .scenes import Scene
from .verdicts import verdict_picture

_LOG_LINES = 40
_RUN_FILES = ("metrics.json", "config.yaml", LOG)
_NAMES = {"python": "Python", "torch": "PyTorch", "detectron2": "Detectron2", "numpy": "NumPy"}


def write_report(output_dir: str | Path, path: str | Path, *, score_threshold: float = 0.5) -> Path:
    """Write the report of the run in `output_dir` to the HTML file `path`, whose folder is made if need be.

    What the run did not leave (predictions, log, samples, ...) is named in the report by a sentence.

    Args:
        output_dir: with metrics.json or config.yaml, as `AdversarialTrainer` or a stock Detectron2 trainer writes it.
        path: of the report.
        score_threshold: predictions below it, in [0, 1], are not drawn unless an image has no other.

    Returns:
        `path`.

    Raises:
        UserError: `output_dir` holds no run, or `path` cannot be written.
    """
    folder, target = Path(output_dir), Path(path)
    metrics_file, config_file = folder / "metrics.json", folder / "config.yaml"
    if not (metrics_file.is_file() or config_file.is_file()):
        raise UserError(f"{folder} holds neither metrics.json nor config.yaml; name the OUTPUT_DIR of a run.")
    metrics = read_metrics(metrics_file)
    config_text = config_file.read_text(encoding="utf-8", errors="replace") if config_file.is_file() else ""
    evaluation = final_evaluation(metrics)
    config, names, config_problem = read_config(folder)
    facts = read_facts(folder)
    log = _log(folder, facts)
    examples, example_notes = _examples(folder, names, score_threshold)
    page = template("report.html.j2").render(
        title=folder.resolve().name,
        facts=_shown(facts, folder, metrics),
        setting=lambda key: _look_up(config, key),
        config_text=config_text,
        config_problem=config_problem,
        evaluation=evaluation,
        scores=scores_by_task(evaluation),
        classes=_class_names(names, evaluation),
        curves=[drawing(curve) for curve in draw_curves(metrics)],
        examples=examples,
        example_notes=example_notes,
        difference_legend=list(panels.DIFFERENCE_LEGEND.values()),
        outline_legend=list(panels.OUTLINE_LEGEND.items()),
        sample=_last_sample(folder / "samples"),
        **_verdicts(folder, config, names),
        problem=_problem(folder, metrics, log, bool(facts.get("eval_only"))),
        log_tail=log[-_LOG_LINES:],
    )
    return save_page(page, target)


def _look_up(config: Mapping[str, Any], key: str) -> str | None:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return ", ".join(map(str, value)) if isinstance(value, list) else None if value is None else str(value)


def _log(folder: Path, facts: Mapping[str, Any]) -> list[str]:
    """What the last run that wrote to the folder has logged."""
    file = folder / LOG
    if not file.is_file():
        return []
    content = file.read_bytes()
    start = facts.get("log_from", 0)
    # a log that somebody has emptied since is read from its beginning
    return content[start if start < len(content) else 0 :].decode(errors="replace").splitlines()


def _shown(facts: Mapping[str, Any], folder: Path, metrics: Sequence[Mapping[str, float]]) -> list[tuple[str, str]]:
    written = max(file.stat().st_mtime for file in map(folder.joinpath, _RUN_FILES) if file.is_file())
    times = [line["time"] for line in metrics if "time" in line]
    shown = {"Config file": facts.get("config_file"), "Options": " ".join(facts.get("options", []))}
    shown |= {_NAMES.get(name, name): version for name, version in facts.get("versions", {}).items()}
    return [
        *((label, str(value)) for label, value in shown.items() if value),
        ("gan_plugin (made this report)", gan_plugin.__version__),
        ("Last iteration recorded", f"{metrics[-1]['iteration']:.0f}" if metrics else "none"),
        ("Seconds an iteration (median)", f"{np.median(times):.2f}" if times else "n/a"),
        ("Run last written", f"{datetime.fromtimestamp(written):%Y-%m-%d %H:%M}"),
        ("Report made", f"{datetime.now():%Y-%m-%d %H:%M}"),
    ]


def _problem(folder: Path, metrics: Sequence[Mapping[str, float]], log: Sequence[str], eval_only: bool) -> str:
    """A sentence if the run did not come to its end, else ""."""
    if any(line.startswith("Traceback (most recent call last)") or " ERROR: " in line for line in log):
        return "The log of this run ends with an error."
    if eval_only and final_evaluation(metrics) or checkpoint_file(folder, FINAL).is_file():
        return ""
    return "This run did not come to its end: there is no model_final.pth."


def _class_names(names: Sequence[str], evaluation: Mapping[str, float]) -> list[str]:
    """All classes of the first test set, then those that have a score; also classes without any, to show as n/a."""
    declared = MetadataCatalog.get(names[0]).get("thing_classes", []) if names else []
    return list(dict.fromkeys([*declared, *(key.split("/AP-")[1] for key in evaluation if "/AP-" in key)]))


def _last_sample(folder: Path) -> dict[str, str] | None:
    files = sorted(folder.glob("iter_*.png"))
    if not files or image_problem(files[-1]):
        return None
    alt = "Two rows of small masks: annotated ones above, predicted ones below."
    return embed(files[-1].read_bytes(), "image/png", alt, f"Iteration {int(files[-1].stem[5:])}")


def _verdicts(folder: Path, config: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Pictures of what the mask discriminator says to the first test set, or why there are none."""
    if _look_up(config, "MODEL.GAN.ENABLED") != "True" or not names:
        return {"verdicts": [], "verdict_note": ""}
    try:
        return {"verdicts": [verdict_picture(folder, names[0])], "verdict_note": ""}
    except UserError as error:
        return {"verdicts": [], "verdict_note": str(error)}


def _examples(folder: Path, names: Sequence[str], threshold: float) -> tuple[list[dict[str, Any]], list[str]]:
    """The best, the median and the worst image of each test set by mask IoU; sentences on what could not be shown."""
    examples: list[dict[str, Any]] = []
    notes = []
    for name in names:
        metadata = MetadataCatalog.get(name)
        several = len(names) > 1
        records = DatasetCatalog.get(name)
        try:
            predicted = stored_predictions(folder, name, records, several=several)
        except (OSError, ValueError, KeyError, TypeError) as error:
            file = results_file(folder, name, several=several).relative_to(folder)
            notes.append(f"No images of {name}: {file} is missing or unusable ({type(error).__name__}).")
            continue
        ranked = []
        for record in records:
            found, sure = panels.confident(predicted.get(record["image_id"], []), threshold)
            iou = panels.image_iou(panels.instances_of_record(record), found)
            if iou is not None:
                ranked.append((iou, record, found, sure))
        ranked.sort(key=lambda entry: entry[0])
        places = {(len(ranked) - 1) // 2: "Median", 0: "Worst", len(ranked) - 1: "Best"} if ranked else {}
        for index, place in sorted(places.items(), reverse=True):
            iou, record, found, sure = ranked[index]
            problem = image_problem(record["file_name"])
            if problem:
                notes.append(problem)
                continue
            title = f"{place} of {len(ranked)} images of {name}: mask IoU {iou:.2f}"
            hint = f"score {threshold} or more" if sure else f"none scores {threshold}, so the best few"
            scene = Scene(record, metadata.get("thing_classes", []))
            shown = [scene.image(), scene.annotated(), scene.predicted(found, f"Predicted: {len(found)} ({hint})")]
            pictures = {"panels": [*shown, scene.difference(found)], "zooms": scene.zooms(found)}
            examples.append({"title": title, "file": Path(record["file_name"]).name, **pictures})
    return examples, notes
