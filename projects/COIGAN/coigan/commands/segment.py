"""Does a segmenter get better from synthetic defects? Train it with and without them, several seeds each.

    inpaint.py segment --train real.json --test test.json --output output/segment --seeds 0 1 2 3 4 \\
        --extra gan=gan/annotations.json copy_paste=copies/annotations.json
    inpaint.py segment --audit output/augmented --segmenter output/segment/segmenter_seed0.pth

All arms of a seed start from the same weights and take as many steps. A run that was stopped continues. A fifth of the
real training images (--val-share), or those of --val, train no arm: learning rate and choice of weights go by them. The
test images are looked at once, in the end.

--audit asks a segmenter of real images alone for each object of a synthetic set whether it sees it: the agreement is
the IoU of its label with what the segmenter sees there. audit.json in the set's folder has it, with counts and
histograms. With --out a set is written without the images of which an object is below --min-agreement.
"""

import argparse
import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from coigan.choices import LOSSES, NETWORKS
from coigan.commands._arguments import add_sets_arguments

_logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_sets_arguments(parser, required=False)
    parser.add_argument("--val", default="", metavar="JSON", help="COCO JSON of real images to validate with")
    parser.add_argument("--val-share", type=float, default=0.2, metavar="F", help="of --train, without --val")
    parser.add_argument("--group", default="", metavar="REGEX|CSV", help="what stays together there, as in prepare")
    parser.add_argument("--group-within", type=int, default=0, metavar="N", help="as in prepare")
    parser.add_argument("--output", default="output/segment", metavar="DIR")
    five = [0, 1, 2, 3, 4]
    parser.add_argument("--seeds", nargs="+", type=int, default=five, metavar="S", help="five or more for a verdict")
    parser.add_argument("--preset", choices=("severstal", "cccd"), default="severstal")
    parser.add_argument("--model", choices=NETWORKS, default="unet")
    parser.add_argument("--loss", choices=LOSSES, default="log_cosh_dice")
    parser.add_argument("--steps", type=int, default=50_000, metavar="N")
    parser.add_argument("--batch", type=int, default=12, metavar="N")
    parser.add_argument("--val-every", type=int, metavar="N", help="steps between validations")
    parser.add_argument("--average", type=float, default=0.0, metavar="DECAY", help="score an average of the weights")
    parser.add_argument("--device", default="", metavar="NAME")
    parser.add_argument("--audit", default="", metavar="SET", help="check a set that inpaint.py augment has written")
    parser.add_argument(
        "--segmenter", default="", metavar="FILE", help="for --audit: segmenter_seed*.pth of a comparison"
    )
    parser.add_argument("--min-agreement", type=float, default=0.3, metavar="IOU", help="in [0, 1] (default: 0.3)")
    parser.add_argument("--out", default="", metavar="DIR", help="where --audit writes the set without weak images")


def run(args: argparse.Namespace) -> None:
    """Compare, write results.json, print the table; or audit a set.

    Raises:
        UserError: an argument is not usable, a data set cannot be read, or the test set holds a training image.
    """
    from gan_plugin.errors import UserError

    if args.audit:
        if not args.segmenter:
            raise UserError("--audit needs --segmenter, a segmenter_seed*.pth that inpaint.py segment has left.")
        _audit(args)
        return
    if not (args.train and args.test):
        raise UserError("A comparison needs --train and --test; --audit SET checks a synthetic set.")
    _compare(args)


def _compare(args: argparse.Namespace) -> None:
    from detectron2.utils.logger import setup_logger

    from coigan.data.split import check_apart
    from coigan.modeling.build import choose_device
    from coigan.segmentation.coco import CocoMasks
    from coigan.segmentation.comparison import BASELINE, compare
    from coigan.segmentation.training import SegmentOptions, cccd
    from gan_plugin.comparison.training_sets import named_paths
    from gan_plugin.errors import UserError
    from gan_plugin.rules import BELOW_1, whole

    paths = {"train": args.train, "test": args.test}
    if args.val:
        paths["val"] = args.val
    own = ("train", "test", "val")
    paths |= named_paths(args.extra, "--extra", taken=(*own, BASELINE))
    if not args.val and not 0 < args.val_share < 1:
        raise UserError(f"--val-share is {args.val_share}; set it between 0 and 1, or name images with --val.")
    whole(1).check("--steps", args.steps)
    whole(1).check("--batch", args.batch)
    BELOW_1.check("--average", args.average)
    options = cccd() if args.preset == "cccd" else SegmentOptions()
    options = replace(
        options,
        model=args.model,
        loss=args.loss,
        steps=args.steps,
        batch=args.batch,
        average=args.average,
        val_every=args.val_every or min(options.val_every, args.steps),
        device=str(choose_device(args.device)),
    )
    sets = {name: CocoMasks(path) for name, path in paths.items()}
    check_apart(sets["train"].pictures(), sets["test"].pictures())
    extras = {name: data for name, data in sets.items() if name not in own}
    train: Any = sets["train"]
    val: Any = sets.get("val")
    if val is None:
        train, val = sets["train"].held_out(args.val_share, 0, args.group, args.group_within)
    # a set that was written anew is another one
    sources = {name: f"{path}, SHA-256 {_digest(path)}" for name, path in paths.items()}
    if args.val:
        for name in ("train", "test"):
            check_apart(sets[name].pictures(), sets["val"].pictures(), "validation")
    else:
        held = {"share": args.val_share, "group": args.group, "within": args.group_within}
        sources["val"] = f"held out of train: {held}"
    setup_logger(args.output, name="coigan")
    report = compare(train, val, sets["test"], extras, args.seeds, options, Path(args.output), sources)
    print(_table(report["summary"], [BASELINE, *extras]))
    print(_class_table(report["classes"]))
    for arm, found in report["collapsed"].items():
        if found:
            how = ", ".join(f"seed {seed} {words}" for seed, words in found.items())
            print(f"The arm {arm} has collapsed ({how}): its differences say nothing about the pictures.")


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def _class_table(classes: dict) -> str:
    from tabulate import tabulate

    rows = [
        [name, arm, scores["IoU"], scores["recall"]] for arm, found in classes.items() for name, scores in found.items()
    ]
    return tabulate(sorted(rows), ["class", "arm", "IoU", "recall"], "github", floatfmt=".4f", missingval="none")


def _table(summary: dict, arms: list[str]) -> str:
    from tabulate import tabulate

    from coigan.segmentation.comparison import METRICS

    rows = []
    for metric in METRICS:
        for arm in arms:
            entry = summary[metric][arm]
            gap = entry["difference"]
            interval = gap and gap["interval"]
            shown = "" if not interval else f"{gap['mean']:+.4f} [{interval[0]:+.4f}, {interval[1]:+.4f}]"
            rows.append([metric, arm, entry["mean"], entry["std"], shown, gap["verdict"] if gap else ""])
    heads = ["metric", "arm", "mean", "std", "difference to real alone", "shows"]
    return tabulate(rows, heads, "github", floatfmt=".4f")


def _audit(args: argparse.Namespace) -> None:
    import numpy as np
    import torch
    from tabulate import tabulate

    from coigan.audit import audit_set, read_set, summarise, write_audit, write_passed
    from coigan.modeling.build import choose_device
    from coigan.segmentation.training import read_segmenter
    from gan_plugin.rules import SHARE

    SHARE.check("--min-agreement", args.min_agreement)
    augmented, least = read_set(args.audit), args.min_agreement
    segmenter = read_segmenter(args.segmenter, str(choose_device(args.device)))

    def find(pixels: np.ndarray) -> np.ndarray:
        return segmenter.find(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255).numpy()

    results = audit_set(augmented, find)
    summary = summarise(results, augmented, least)
    facts = {"segmenter": segmenter.options.model, "segmenter_sha256": segmenter.digest}
    report = write_audit(augmented, results, summary, facts)
    rows = [
        [name, row["objects"], row["weak"], row["IoU"], row["recall"], " ".join(map(str, row["histogram"]))]
        for name, row in summary["classes"].items()
    ]
    headers = ["class", "objects", "weak", "mean IoU", "mean recall", "objects by IoU, 0 to 1 in tenths"]
    print(tabulate(rows, headers, "github", floatfmt=".3f"))
    print(f"{summary['weak_images']} of {summary['images']} images have an object below {least}; {report}")
    if args.out:
        left = write_passed(augmented, Path(args.out), results, least)
        print(f"{left} synthetic images are left: {args.out}")
