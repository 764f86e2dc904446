"""Write one HTML file about a run: pictures, scores, augmented images, curves.

inpaint.py report output/coigan --out output/report.html --augmented output/augmented
"""

import argparse
import json
from pathlib import Path
from typing import Any

_SETTINGS = ("MODEL.GENERATOR.NAME", "INPUT.SIZE", "SOLVER.MAX_ITER", "SOLVER.IMS_PER_BATCH", "DATA.ROOT", "SEED")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", metavar="OUTPUT_DIR", help="of the run; its report.json of evaluate is shown as well")
    parser.add_argument("--out", default="", metavar="FILE", help="default: report.html in OUTPUT_DIR")
    parser.add_argument(
        "--augmented", default="", metavar="DIR", help="a set that augment wrote; its audit is shown as well"
    )


def run(args: argparse.Namespace) -> None:
    """Write the report.

    Raises:
        UserError: the folder holds no run, or a file in it is damaged.
    """

    from coigan.audit import AUDIT
    from coigan.augmentation import ANNOTATIONS
    from coigan.visualization.grid import outlined
    from coigan.visualization.run_report import write_run_report
    from gan_plugin.errors import UserError

    folder = Path(args.folder)
    scores = folder / "report.json"
    try:
        evaluation = json.loads(scores.read_text(encoding="utf-8")) if scores.is_file() else None
        pictures = outlined(args.augmented) if args.augmented else []
        audit = _read(Path(args.augmented) / AUDIT) if args.augmented else None
        info = (_read(Path(args.augmented) / ANNOTATIONS) or {}).get("info", {}) if args.augmented else {}
        facts = _facts(folder / "config.yaml")
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"What the report shows cannot be read ({type(error).__name__}: {error}).") from error
    out = write_run_report(
        folder,
        args.out or folder / "report.html",
        evaluation=evaluation,
        augmented=pictures,
        facts=facts,
        audit=audit,
        labels=info if "invisible_labels" in info else None,
    )
    print(f"report: {out}")


def _read(file: Path) -> dict[str, Any] | None:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _facts(file: Path) -> list[tuple[str, str]]:
    from gan_plugin.config_files import look_up, read_yaml

    if not file.is_file():
        return []
    config = read_yaml(file.read_bytes(), f"The config {file}")
    return [(key, str(look_up(config, key))) for key in _SETTINGS]
