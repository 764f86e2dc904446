"""Check the labels of a synthetic set by a segmenter that has learnt from real images alone.

    inpaint.py segment --train DATA/train/annotations.json --test DATA/test/annotations.json --output segment
    inpaint.py audit output/augmented --segmenter segment/segmenter_seed0.pth
    inpaint.py audit output/augmented --segmenter segment/segmenter_seed0.pth --min-agreement 0.3 --out output/passed

The agreement of an object is the IoU of its label with what the segmenter sees there. audit.json in the set's folder
has it for each object, with counts and histograms. With --out a set is written without the images of which an object
is below --min-agreement, and its provenance.jsonl has the values.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", metavar="SET", help="that inpaint.py augment has written")
    parser.add_argument("--segmenter", required=True, metavar="FILE", help="segmenter_seed*.pth of inpaint.py segment")
    parser.add_argument("--min-agreement", type=float, default=0.3, metavar="IOU", help="in [0, 1] (default: 0.3)")
    parser.add_argument("--out", default="", metavar="DIR", help="where the set without weak images is written")
    parser.add_argument("--device", default="", metavar="NAME")


def run(args: argparse.Namespace) -> None:
    """Audit, print the table, write what is left.

    Raises:
        UserError: the set or the segmenter cannot be used, or no image passes.
    """
    import numpy as np
    import torch
    from tabulate import tabulate

    from coigan.audit import audit_set, read_set, summarise, write_audit, write_passed
    from coigan.engine.players import choose_device
    from coigan.segmentation.training import read_segmenter
    from gan_plugin.errors import UserError

    if not 0 <= args.min_agreement <= 1:
        raise UserError(f"--min-agreement is {args.min_agreement}; set it to a number between 0 and 1.")
    augmented, least = read_set(args.folder), args.min_agreement
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
