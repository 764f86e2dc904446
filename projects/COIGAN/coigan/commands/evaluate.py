"""How good painted defects are: crops of them against crops of real ones; and whole pictures, as in the thesis.

    inpaint.py evaluate output/coigan/model_final.pth --data DIR --inception weights-inception-2015-12-05-6726825d.pth
    inpaint.py evaluate output/coigan --all --min-checkpoint 100000 --against train

A crop is an object's box with a margin. The reference are the objects of real test tiles. Beside the painted ones are
copied objects, the base images left alone under the same masks, and the objects of real training tiles, which show what
can be reached. Every kind has as many crops. Scores of whole pictures, the protocol of the thesis, hardly see
the defects. Without --inception the scores are by EfficientNet-Lite0, or by random convolutions where it is not
installed (--features), and compare among themselves only.

--all scores every checkpoint of a run's folder: evaluations.json there grows by one entry a checkpoint, and a run that
was stopped continues.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from coigan.commands._arguments import add_scores_arguments, add_weights_arguments

_SCORES = ("FID", "KID", "precision", "recall")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_weights_arguments(parser)
    parser.add_argument("--data", default="", metavar="DIR", help="the prepared data set; default: the run's")
    few = "whole pictures of each set (default: 40000; 8594 with --all)"
    parser.add_argument("--count", type=int, metavar="N", help=few)
    parser.add_argument("--crops", type=int, default=2000, metavar="N", help="of each kind, at most (default: 2000)")
    add_scores_arguments(parser)
    parser.add_argument("--out", default="", metavar="FILE", help="default: report.json beside the weights")
    parser.add_argument("--all", action="store_true", help="WEIGHTS is the folder of a run: score all its checkpoints")
    parser.add_argument("--min-checkpoint", type=int, default=0, metavar="ITER", help="with --all: leave earlier ones")
    about = "with --all: the real tiles that are the reference (default: train)"
    parser.add_argument("--against", choices=("train", "test"), default="train", help=about)


def run(args: argparse.Namespace) -> None:
    """Evaluate, write the report, print the tables.

    Raises:
        UserError: weights, data or Inception's file cannot be used.
    """
    from gan_plugin.rules import whole

    for option in ("count", "crops"):
        whole(1).check(f"--{option}", 1 if getattr(args, option) is None else getattr(args, option))
    (_all_checkpoints if args.all else _one)(args)


def _one(args: argparse.Namespace) -> None:
    from coigan.data.samples import open_data, open_root
    from coigan.evaluation.crops import evaluate_crops
    from coigan.evaluation.protocol import evaluate_trained
    from coigan.inference import read_trained
    from coigan.modeling.build import choose_device
    from gan_plugin.evaluation.image_features import build_extractor

    trained = read_trained(args.weights, args.config_file, average=not args.last)
    extractor = build_extractor(args.inception, choose_device(args.device), args.features)
    data, prepared = open_data(trained.cfg, args.data), open_root(trained.cfg, args.data)
    cache, count = Path(args.weights).parent / "reference", args.count or 40_000
    report = evaluate_trained(trained, data, extractor, count=count, cache=cache, device=args.device)
    report["crops"] = evaluate_crops(trained, prepared, extractor, count=args.crops, cache=cache, device=args.device)
    out = Path(args.out) if args.out else Path(args.weights).parent / "report.json"
    _write(out, report, "Name another file with --out.")
    _print_scores(report)
    change = report["background"]
    psnr = "none, it is unchanged" if change["PSNR_outside"] is None else f"{change['PSNR_outside']:.1f} dB"
    print(
        f"background: L1 {change['L1_outside'] or 0:.3f} of 255 outside of the masks (PSNR {psnr}), "
        f"{change['L1_inside'] or 0:.2f} inside"
    )
    print(f"by {extractor.name}; report {out}")


def _print_scores(report: dict[str, Any]) -> None:
    from tabulate import tabulate

    from coigan.evaluation.crops import POOLED, ROWS
    from coigan.evaluation.protocol import WHOLE

    scores, classes = report["crops"]["scores"], []
    pooled = scores[POOLED]["rows"]
    rows = []
    for row, title in ROWS.items():
        whole = report[WHOLE[row]]
        rows.append([title, *(pooled.get(row, {}).get(name) for name in _SCORES), whole["FID"], whole["KID"]])
    heads = ["against real test", *(f"crop {name}" for name in _SCORES), "whole FID (thesis)", "whole KID"]
    print(tabulate(rows, heads, "github", floatfmt=".4f", missingval="none"))
    for name, found in scores.items():
        fids = [found["rows"].get(row, {}).get("FID") for row in ROWS]
        classes.append([name, found["crops"], found["real_crops"], *fids])
    heads = ["crop FID by class", "crops", "test crops", *ROWS.values()]
    print(tabulate(classes, heads, "github", floatfmt=".4f", missingval="none"))
    for row, (invisible, labels) in report["crops"]["invisible_labels"].items():
        print(f"invisible labels: {invisible} of {labels} {ROWS[row]}")


def _all_checkpoints(args: argparse.Namespace) -> None:
    from coigan.data.samples import open_data, open_root
    from coigan.evaluation.crops import POOLED, evaluate_crops
    from coigan.evaluation.protocol import left_alone, made_set, painter, pasted, real_features
    from coigan.inference import read_trained
    from coigan.modeling.build import choose_device
    from gan_plugin.errors import UserError
    from gan_plugin.evaluation.image_features import build_extractor
    from gan_plugin.evaluation.image_scores import score

    folder = Path(args.weights)
    found = {
        int(match[1]): path for path in folder.glob("model_*.pth") if (match := re.fullmatch(r"model_(\d+)", path.stem))
    }
    chosen = [found[iteration] for iteration in sorted(found) if iteration >= args.min_checkpoint]
    if not chosen:
        raise UserError(f"{folder} holds no checkpoint from iteration {args.min_checkpoint} on (model_*.pth).")
    device = choose_device(args.device)
    extractor = build_extractor(args.inception, device, args.features)
    count, cache, out = args.count or 8594, folder / "reference", folder / "evaluations.json"
    results = _former(out)
    # scores by another network, of another count or against other tiles stay in the file and out of the table
    protocol = f"{args.against} {count} {extractor.name}"
    for path in chosen:
        trained = read_trained(path, args.config_file, average=not args.last)
        key, others = f"{path.stem} {trained.digest[:16]} {protocol}", f"rows {protocol}"
        if "crops" in results.get(key, {}) and others in results:
            continue
        data, prepared = open_data(trained.cfg, args.data), open_root(trained.cfg, args.data)
        parts = {"train": data.train_tiles, "test": data.test_tiles}
        side, batch = trained.cfg.INPUT.SIZE, trained.cfg.TEST.BATCH
        real = {name: real_features(tiles, side, extractor, count=count, cache=cache) for name, tiles in parts.items()}
        paints = {"painted": painter(trained, device)}
        if others not in results:
            paints |= {"copied": pasted, "unpainted": left_alone}
        made = {
            name: made_set(paint, data, extractor, count=count, batch=batch, device=args.device)
            for name, paint in paints.items()
        }
        made["real"] = real["test" if args.against == "train" else "train"]
        whole = {name: score(real[args.against], own).results()[extractor.label] for name, own in made.items()}
        options = {"count": args.crops, "cache": cache, "device": args.device, "against": args.against}
        crops = evaluate_crops(trained, prepared, extractor, **options)
        pooled = crops["scores"][POOLED]["rows"]
        entry = {"checkpoint": path.stem, "extractor": extractor.name, **whole["painted"]}
        results[key] = {**entry, "crops": pooled.get("painted", {}), "invisible_labels": crops["invisible_labels"]}
        if others not in results:
            same = ("copied", "unpainted", "real")
            results[others] = {
                name: {"extractor": extractor.name, **whole[name], "crops": pooled.get(name, {})} for name in same
            }
        _write(out, results, "Free some disk space.")
    _print_checkpoints(results, protocol, extractor.name, out)


def _print_checkpoints(results: dict[str, Any], protocol: str, network: str, out: Path) -> None:
    from tabulate import tabulate

    from coigan.evaluation.crops import ROWS

    shown = [entry for key, entry in results.items() if key.endswith(f" {protocol}") and "checkpoint" in entry]
    others = results[f"rows {protocol}"]

    def row(title: str, entry: dict[str, Any]) -> list[Any]:
        crops = entry.get("crops", {})
        invisible = entry.get("invisible_labels", {}).get("painted")
        words = f"{invisible[0]} of {invisible[1]}" if invisible else ""
        return [title, crops.get("FID"), crops.get("KID"), entry["FID"], entry["KID"], words]

    rows = [row(entry["checkpoint"], entry) for entry in shown]
    rows += [row(ROWS[name], entry) for name, entry in others.items()]
    heads = ["checkpoint", "crop FID", "crop KID", "whole FID (thesis)", "whole KID", "invisible labels"]
    print(tabulate(rows, heads, "github", floatfmt=".4f", missingval="none"))
    judged = [entry for entry in shown if entry.get("crops")]
    # too few objects for crops leave the whole pictures
    best = min(judged, key=lambda entry: entry["crops"]["FID"]) if judged else min(shown, key=lambda one: one["FID"])
    by = f"crop FID {best['crops']['FID']:.4f}" if judged else f"whole FID {best['FID']:.4f}"
    print(f"best: {best['checkpoint']}, {by}, by {network}; {out}")


def _write(path: Path, content: dict[str, Any], advice: str) -> None:
    from gan_plugin.files import write_whole

    write_whole(path, json.dumps(content, indent=1), advice)


def _former(path: Path) -> dict[str, dict[str, Any]]:
    from gan_plugin.errors import as_user_error

    if not path.is_file():
        return {}
    with as_user_error(f"{path} is no result of evaluate --all", "move it away", OSError, ValueError, TypeError):
        return dict(json.loads(path.read_text(encoding="utf-8")))
