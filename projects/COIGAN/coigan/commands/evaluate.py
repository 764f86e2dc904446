"""FID, KID and more of a trained generator, by the thesis' protocol.

    inpaint.py evaluate output/coigan/model_final.pth --data DIR --inception weights-inception-2015-12-05-6726825d.pth

Painted images against test tiles, and train against test tiles as the reference; and how much painting changes where
no mask asks for it. Without --inception the scores are by EfficientNet-Lite0, or by random convolutions where it is not
installed (--features), and compare among themselves only.
"""

import argparse
import json
from pathlib import Path

from ._arguments import add_scores_arguments, add_weights_arguments

SHOWN = ("FID", "KID", "IS", "precision", "recall", "density", "coverage")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_weights_arguments(parser)
    parser.add_argument("--data", default="", metavar="DIR", help="the prepared data set; default: the run's")
    parser.add_argument("--count", type=int, default=40_000, metavar="N", help="images of each set (default: 40000)")
    add_scores_arguments(parser)
    parser.add_argument("--out", default="", metavar="FILE", help="default: report.json beside the weights")


def run(args: argparse.Namespace) -> None:
    """Evaluate, write the report, print the table.

    Raises:
        UserError: weights, data or Inception's file cannot be used.
    """
    from tabulate import tabulate

    from coigan.engine.data import open_data
    from coigan.engine.players import choose_device
    from coigan.evaluation.protocol import evaluate_trained
    from coigan.inference.weights import read_trained
    from gan_plugin.evaluation.image_features import build_extractor
    from gan_plugin.files import write_whole

    trained = read_trained(args.weights, args.config_file, average=not args.last)
    extractor = build_extractor(args.inception, choose_device(args.device), args.features)
    data = open_data(trained.cfg, args.data)
    cache = Path(args.weights).parent / "reference"
    report = evaluate_trained(trained, data, extractor, count=args.count, cache=cache, device=args.device)
    out = Path(args.out) if args.out else Path(args.weights).parent / "report.json"
    write_whole(out, lambda file: file.write(json.dumps(report, indent=1).encode()), "Name another file with --out.")
    rows = [[name, report["painted_vs_test"][name], report["train_vs_test"][name]] for name in SHOWN]
    print(tabulate(rows, ["score", "painted vs test", "train vs test"], "github", floatfmt=".4f"))
    change = report["background"]
    psnr = "none, it is unchanged" if change["PSNR_outside"] is None else f"{change['PSNR_outside']:.1f} dB"
    print(
        f"background: L1 {change['L1_outside'] or 0:.3f} of 255 outside of the masks (PSNR {psnr}), "
        f"{change['L1_inside'] or 0:.2f} inside"
    )
    print(f"by {extractor.name}; report {out}")
