"""One self-contained HTML file about a run, from what the run left in its OUTPUT_DIR."""

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

import gan_plugin
from gan_plugin.config import add_gan_config
from gan_plugin.data.builtin import prepare_datasets
from gan_plugin.data.checks import image_problem
from gan_plugin.errors import UserError
from gan_plugin.files import write_whole
from gan_plugin.metrics import final_evaluation, read_metrics, scores_by_task

from . import panels
from .curves import draw_curves

_LONGEST_SIDE = 896
_ZOOMS = 3
_LOG_LINES = 40
_RUN_FILES = ("metrics.json", "config.yaml", "log.txt")


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
    config_text = config_file.read_text(encoding="utf-8") if config_file.is_file() else ""
    evaluation = final_evaluation(metrics)
    config, names, config_problem = _read_config(config_text)
    log_file = folder / "log.txt"
    log = log_file.read_text(encoding="utf-8", errors="replace").splitlines() if log_file.is_file() else []
    examples, example_notes = _examples(folder, names, score_threshold)
    page = _template().render(
        title=folder.resolve().name,
        facts=_facts(folder, metrics, log),
        setting=lambda key: _look_up(config, key),
        config_text=config_text,
        config_problem=config_problem,
        evaluation=evaluation,
        scores=scores_by_task(evaluation),
        classes=_class_names(names, evaluation),
        curves=[_picture(c.svg.encode(), "image/svg+xml", c.alt, c.title) for c in draw_curves(metrics)],
        examples=examples,
        example_notes=example_notes,
        difference_legend=list(panels.DIFFERENCE_LEGEND.values()),
        outline_legend=list(panels.OUTLINE_LEGEND.items()),
        sample=_last_sample(folder / "samples"),
        problem=_problem(folder, metrics, log),
        log_tail=log[-_LOG_LINES:],
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The report {target} cannot be written ({error.strerror}); choose another path.") from error
    write_whole(target, lambda file: file.write(page.encode()), "Choose another path, or free some disk space.")
    return target


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["number"] = lambda value: "n/a" if value is None or not math.isfinite(value) else f"{value:.2f}"
    return environment.get_template("report.html.j2")


def _picture(content: bytes, media_type: str, alt: str, caption: str) -> dict[str, str]:
    data = base64.b64encode(content).decode()
    return {"src": f"data:{media_type};base64,{data}", "alt": alt, "caption": caption}


def _photo(pixels: np.ndarray, alt: str, caption: str) -> dict[str, str]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return _picture(buffer.getvalue(), "image/jpeg", alt, caption)


def _read_config(text: str) -> tuple[dict[str, Any], list[str], str]:
    """The config as nested dicts, the test sets that could be made ready, and what went wrong, as a sentence."""
    if not text:
        return {}, [], "The run left no config.yaml, so its settings and its test set are unknown."
    cfg = get_cfg()
    add_gan_config(cfg)
    try:
        config = yaml.safe_load(text)
        # only this node: a project's own keys elsewhere are none of our business
        cfg.DATASETS.merge_from_other_cfg(CfgNode(config["DATASETS"]))
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        return {}, [], f"config.yaml cannot be read ({type(error).__name__})."
    try:
        prepare_datasets(cfg, train=False)
    except UserError as error:
        return config, [], f"The test set is not available, so no images are shown: {error}"
    return config, list(cfg.DATASETS.TEST), ""


def _look_up(config: Mapping[str, Any], key: str) -> str | None:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return ", ".join(map(str, value)) if isinstance(value, list) else None if value is None else str(value)


def _facts(folder: Path, metrics: Sequence[Mapping[str, float]], log: Sequence[str]) -> list[tuple[str, str]]:
    text = "\n".join(log)
    written = max(file.stat().st_mtime for file in map(folder.joinpath, _RUN_FILES) if file.is_file())
    times = [line["time"] for line in metrics if "time" in line]
    found = {
        "Config file": r"Namespace\(config_file='([^']*)'",
        "Options": r"Namespace\(.*opts=\[(.*?)\]\)",
        "PyTorch": r"\nPyTorch +(\d\S*)",
        "Detectron2": r"\ndetectron2 +(\d\S*)",
        "Python": r"\nPython +(\d\S*)",
    }
    # the last run that wrote to the log is the one whose results are in the folder
    facts = [(label, matches[-1]) for label, pattern in found.items() if (matches := re.findall(pattern, text))]
    facts.append(("gan_plugin (made this report)", gan_plugin.__version__))
    facts.append(("Last iteration recorded", f"{metrics[-1]['iteration']:.0f}" if metrics else "none"))
    facts.append(("Seconds an iteration (median)", f"{np.median(times):.2f}" if times else "n/a"))
    facts.append(("Run last written", f"{datetime.fromtimestamp(written):%Y-%m-%d %H:%M}"))
    facts.append(("Report made", f"{datetime.now():%Y-%m-%d %H:%M}"))
    return facts


def _problem(folder: Path, metrics: Sequence[Mapping[str, float]], log: Sequence[str]) -> str:
    """A sentence if the run did not come to its end, else ""."""
    last_start = max((i for i, line in enumerate(log) if "Command line arguments:" in line), default=0)
    recent = log[last_start:]
    if any(line.startswith("Traceback (most recent call last)") or " ERROR: " in line for line in recent):
        return "The log of this run ends with an error."
    eval_only = bool(recent) and "eval_only=True" in recent[0]
    if eval_only and final_evaluation(metrics) or (folder / "model_final.pth").is_file():
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
    return _picture(files[-1].read_bytes(), "image/png", alt, f"Iteration {int(files[-1].stem[5:])}")


def _examples(folder: Path, names: Sequence[str], threshold: float) -> tuple[list[dict[str, Any]], list[str]]:
    """The best, the median and the worst image of each test set by mask IoU; sentences on what could not be shown."""
    examples: list[dict[str, Any]] = []
    notes = []
    for name in names:
        metadata = MetadataCatalog.get(name)
        file = folder / "inference" / (name if len(names) > 1 else "") / "coco_instances_results.json"
        try:
            predicted = panels.read_predictions(file, metadata.get("thing_dataset_id_to_contiguous_id", {}))
        except (OSError, ValueError, KeyError, TypeError) as error:
            notes.append(f"No images of {name}: inference/{file.name} is missing or unusable ({type(error).__name__}).")
            continue
        ranked = []
        for record in DatasetCatalog.get(name):
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
            pictures = _pictures(record, found, metadata.get("thing_classes", []), hint)
            examples.append({"title": title, "file": Path(record["file_name"]).name, **pictures})
    return examples, notes


def _pictures(record: dict[str, Any], found: list[panels.Instance], classes: Sequence[str], hint: str) -> dict:
    image = np.asarray(Image.open(record["file_name"]).convert("RGB"))
    truth = panels.instances_of_record(record)
    matches = panels.match(truth, found)
    # an object and its prediction share a colour
    order = {partner: index for index, (partner, _) in matches.items()}
    order |= {index: len(truth) + k for k, index in enumerate(sorted(set(range(len(found))) - set(order)))}
    picture, colours = panels.scale(image, _LONGEST_SIDE), panels.INSTANCE_COLOURS

    def draw(instances: list[panels.Instance], numbers: Sequence[int], texts: list[str]) -> np.ndarray:
        masks = [panels.scale(instance.mask, _LONGEST_SIDE) for instance in instances]
        return panels.draw_instances(picture, masks, texts, [colours[number % len(colours)] for number in numbers])

    def name(instance: panels.Instance) -> str:
        return classes[instance.label] if instance.label < len(classes) else str(instance.label)

    drawn_truth = draw(truth, range(len(truth)), [name(t) for t in truth])
    drawn_found = draw(found, [order[i] for i in range(len(found))], [f"{name(p)} {p.score:.2f}" for p in found])
    differing = panels.scale(panels.difference(truth, found, image.shape[:2]), _LONGEST_SIDE)
    largest = sorted(matches, key=lambda index: -truth[index].mask.sum())[:_ZOOMS]
    zooms = [(truth[i], found[matches[i][0]], matches[i][1]) for i in largest]
    pairs = len(matches)
    counts = f"{pairs} matched, {len(truth) - pairs} missed, {len(found) - pairs} invented"
    return {
        "panels": [
            _photo(picture, "The image as it is.", "Image"),
            _photo(
                drawn_truth,
                f"The image with {len(truth)} annotated masks.",
                f"Truth: {len(truth)} {'object' if len(truth) == 1 else 'objects'}",
            ),
            _photo(drawn_found, f"The image with {len(found)} predicted masks.", f"Predicted: {len(found)} ({hint})"),
            _photo(panels.draw_difference(picture, differing), f"Difference: {counts}.", f"Difference: {counts}"),
        ],
        "zooms": [
            _photo(
                panels.boundary_zoom(image, t.mask, p.mask), f"Outlines of a {name(t)}.", f"{name(t)}, IoU {iou:.2f}"
            )
            for t, p, iou in zooms
        ],
    }
