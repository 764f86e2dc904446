"""FID and KID of every checkpoint of a run, against its train tiles (or, with --against test, its test tiles).

    inpaint.py evaluate-all output/coigan --min-checkpoint 100000 --count 8594

evaluations.json in the run's folder grows by one entry a checkpoint; a run that was stopped continues. The features of
the real tiles are computed once.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from ._arguments import add_scores_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", metavar="OUTPUT_DIR", help="of the run")
    parser.add_argument("--data", default="", metavar="DIR", help="the prepared data set; default: the run's")
    parser.add_argument("--min-checkpoint", type=int, default=0, metavar="ITER", help="leave earlier ones out")
    parser.add_argument("--count", type=int, default=8594, metavar="N", help="images of each set (default: 8594)")
    parser.add_argument("--against", choices=("train", "test"), default="train")
    add_scores_arguments(parser)
    parser.add_argument("--last", action="store_true", help="the last weights in place of their moving average")
    parser.add_argument("--device", default="", metavar="NAME")


def run(args: argparse.Namespace) -> None:
    """Evaluate all checkpoints, print the table.

    Raises:
        UserError: there is no checkpoint, or weights or data cannot be used.
    """
    from tabulate import tabulate

    from coigan.engine.data import open_data
    from coigan.engine.players import choose_device
    from coigan.evaluation.features import real_features
    from coigan.evaluation.protocol import painted_set
    from coigan.inference.weights import read_trained
    from gan_plugin.errors import UserError
    from gan_plugin.evaluation.image_features import build_extractor
    from gan_plugin.evaluation.image_scores import score
    from gan_plugin.files import write_whole

    folder = Path(args.folder)
    found = {
        int(match[1]): path for path in folder.glob("model_*.pth") if (match := re.fullmatch(r"model_(\d+)", path.stem))
    }
    chosen = [found[iteration] for iteration in sorted(found) if iteration >= args.min_checkpoint]
    if not chosen:
        raise UserError(f"{folder} holds no checkpoint from iteration {args.min_checkpoint} on (model_*.pth).")
    extractor = build_extractor(args.inception, choose_device(args.device), args.features)
    out = folder / "evaluations.json"
    results = _former(out)
    # scores by another network, of another count or against other tiles stay in the file and out of the table
    protocol = f"{args.against} {args.count} {extractor.name}"
    real = None
    for path in chosen:
        trained = read_trained(path, average=not args.last)
        key = f"{path.stem} {trained.digest[:16]} {protocol}"
        if key in results:
            continue
        data = open_data(trained.cfg, args.data)
        if real is None:
            tiles = data.train_tiles if args.against == "train" else data.test_tiles
            cache = folder / "reference"
            real = real_features(tiles, trained.cfg.INPUT.SIZE, extractor, count=args.count, cache=cache)
        painted = painted_set(
            trained, data, extractor, count=args.count, batch=trained.cfg.TEST.BATCH, device=args.device
        )
        scores = score(real, painted).results()[extractor.label]
        results[key] = {"checkpoint": path.stem, "extractor": extractor.name, **scores}
        content = json.dumps(results, indent=1).encode()
        write_whole(out, lambda file, content=content: file.write(content), "Free some disk space.")  # type: ignore[misc]
    shown = [entry for key, entry in results.items() if key.endswith(f" {protocol}")]
    rows = [[entry["checkpoint"], entry["FID"], entry["KID"]] for entry in shown]
    print(tabulate(rows, ["checkpoint", "FID", "KID"], "github", floatfmt=".4f"))
    best = min(shown, key=lambda entry: entry["FID"])
    print(f"best: {best['checkpoint']}, FID {best['FID']:.4f}, by {extractor.name}; {out}")


def _former(path: Path) -> dict[str, dict[str, Any]]:
    from gan_plugin.errors import UserError

    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is no result of evaluate-all; move it away.") from error
