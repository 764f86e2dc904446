"""The data set builder: one picture for each car of each scene that passes the filters (section 2)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from car_gan.colour import MANIFEST
from car_gan.journal import work_through
from car_gan.output_folder import PROGRESS, output_folder
from car_gan.scenes.scene import SceneSource, check_category, digest
from gan_plugin.config_files import flat
from gan_plugin.errors import UserError
from gan_plugin.files import write_whole

from .cutter import CROPS, Cutter
from .funnel import Funnel

DROPPED, SCORES, FUNNEL, LICENCE = "dropped.jsonl", "scores.json", "funnel.json", "LICENCE_NOTE.txt"
_ADVICE = "Choose another --output, or free some disk space."


def build(source: SceneSource, cfg: CfgNode, output: Path, *, workers: int = 0) -> Funnel:
    """Build the data set of `source` in `output`; a build that was interrupted is continued.

    Args:
        source: the scenes.
        cfg: see `build_defaults`.
        output: gets crops/*.png, manifest.jsonl (a line for each), dropped.jsonl, scores.json, funnel.json.
        workers: processes; 0 works in this one.

    Raises:
        UserError: an option, a path or a picture is wrong, or no car is kept.
    """
    check_category(cfg.CATEGORY, (*source.categories.values(), *source.more))
    cutter = Cutter(source, cfg, output / CROPS)
    files = source.files()
    settings = {"command": "build", "source": source.title, "place": source.place, "scenes": digest(files), **flat(cfg)}
    with output_folder(output, settings):
        (output / CROPS).mkdir(exist_ok=True)
        results = work_through(files, cutter, output / PROGRESS, workers=workers, title="build")
        funnel = _summarise(results, source, output)
    if not funnel.kept:
        raise UserError(
            f"No '{cfg.CATEGORY}' was kept. {funnel.sentence()} Loosen FILTER or DETECTOR, or look at the data."
        )
    return funnel


def _summarise(results: Iterator[dict[str, Any]], source: SceneSource, output: Path) -> Funnel:
    everything = list(results)
    kept = [line for result in everything for line in result["kept"]]
    dropped = [line for result in everything for line in result["dropped"]]
    scores = {key: entry for result in everything for key, entry in result["scores"].items()}
    funnel = Funnel.of([result["scene"] for result in everything], kept, dropped)
    _write_lines(output / MANIFEST, kept)
    _write_lines(output / DROPPED, dropped)
    _write(output / FUNNEL, json.dumps(funnel.to_dict(), indent=1))
    _write(output / LICENCE, source.licence + "\n")
    if scores:
        _write(output / SCORES, json.dumps({"source": source.title, "scores": scores}, indent=0))
    return funnel


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    _write(path, "".join(json.dumps(line) + "\n" for line in lines))


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda file: file.write(text.encode()), _ADVICE)
