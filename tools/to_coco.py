#!/usr/bin/env python
"""Turn annotations in other forms into a COCO JSON, which Detectron2 and all programs of this project read.

    python tools/to_coco.py folders ROOT OUT.json     ROOT/<class>/.../a.jpg with its mask a.png or a_mask.png beside it
    python tools/to_coco.py labels IMAGES LABELS OUT.json     a.jpg, and a.png or a_mask.png with a number an object
    python tools/to_coco.py masks ROOT OUT.json       ROOT/<id>/images/a.png and ROOT/<id>/masks/*.png, one an object;
                                                      or ROOT/images/a.jpg and ROOT/masks/a/*.png
    python tools/to_coco.py labelme ROOT OUT.json     LabelMe's JSON files below ROOT

Masks become polygons along the pixel edges: decoded they are the same pixels again. The pictures stay where they are;
their names in OUT.json are relative to ROOT or IMAGES. Exit code 2: something is wrong, all of it is told, and nothing
is written.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _command_line import Parser, positive, run_command_line

if TYPE_CHECKING:
    from gan_plugin.data.findings import Findings

FORMS = {
    "folders": "class folders with a mask beside each picture",
    "labels": "label images, one a picture",
    "masks": "mask folders, one file an object",
    "labelme": "JSON files of LabelMe",
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line (None: this process's)."""
    parser = Parser(__doc__)
    forms = parser.add_subparsers(dest="form", required=True, parser_class=Parser, metavar="FORM")
    for form, text in FORMS.items():
        one = forms.add_parser(form, help=text, description=text)
        one.add_argument("root", type=Path, metavar="IMAGES" if form == "labels" else "ROOT", help="of the pictures")
        if form == "labels":
            one.add_argument("labels", type=Path, metavar="LABELS", help="of the label images; may be IMAGES itself")
        one.add_argument("out", type=Path, metavar="OUT.json", help="is replaced if it is there")
        if form in ("labels", "masks"):
            one.add_argument("--category", default="object", metavar="NAME", help="of all objects (default: object)")
        else:
            one.add_argument("--classes", nargs="+", default=(), metavar="NAME", help="in this order, no others")
        if form == "folders":
            one.add_argument("--whole", action="store_true", help="a mask is one object, not one for each of its parts")
        one.add_argument("--rle", action="store_true", help="write masks as run lengths (INPUT.MASK_FORMAT bitmask)")
        one.add_argument("--skip", action="store_true", help="leave out what is broken, and say how much that was")
        one.add_argument("--workers", type=positive, default=-1, metavar="N", help="processes (default: one a core)")
    return parser.parse_args(arguments)


def _check(args: argparse.Namespace) -> None:
    from gan_plugin.errors import UserError
    from gan_plugin.files import check_exists

    for folder in (args.root, *((args.labels,) if args.form == "labels" else ())):
        check_exists(folder, "The folder", "name the one that holds the files", folder=True)
    if args.out.is_dir() or args.out.suffix.lower() != ".json":
        raise UserError(f"{args.out} is to be a file whose name ends in .json.")
    check_exists(args.out.parent, "The folder", "make it, or choose another place for OUT.json", folder=True)


def _jobs(args: argparse.Namespace, findings: "Findings") -> tuple[list[Any], Callable[[Any], Any]]:
    """The pictures, and the function that reads one of them with its objects."""
    from gan_plugin.data import mask_files
    from gan_plugin.data.conversion import annotated, labelme_files, read_labelme

    if args.form == "labelme":
        return labelme_files(args.root, args.out, findings), partial(read_labelme, args.rle)
    if args.form == "folders":
        pairs = mask_files.class_folders(args.root, findings)
        return pairs, partial(annotated, partial(mask_files.objects_of_mask, whole=args.whole), args.rle)
    if args.form == "labels":
        pairs = mask_files.label_images(args.root, args.labels, findings, args.category)
        return pairs, partial(annotated, mask_files.objects_of_labels, args.rle)
    pairs = mask_files.mask_folders(args.root, findings, args.category)
    return pairs, partial(annotated, mask_files.objects_of_files, args.rle)


def work(args: argparse.Namespace) -> None:
    """Write OUT.json, and print how much is in it."""
    import json

    from tqdm import tqdm

    from gan_plugin.data.conversion import coco_of, summary_of
    from gan_plugin.data.findings import Findings
    from gan_plugin.data.parallel import parallel_map
    from gan_plugin.files import write_whole

    _check(args)
    findings = Findings("skip" if args.skip else "stop", "--skip")
    jobs, read = _jobs(args, findings)
    found = tqdm(parallel_map(read, jobs, args.workers), total=len(jobs), desc="pictures", disable=None)
    content = coco_of(found, args.root, findings, getattr(args, "classes", ()))
    for remark in findings.remarks:
        print(remark)
    findings.refuse()
    data = json.dumps(content).encode()
    write_whole(args.out, data)
    print(f"{args.out}: {summary_of(content)}")


def main(arguments: list[str] | None = None) -> int:
    work(parse(arguments))
    return 0


command = partial(run_command_line, parse, work)

if __name__ == "__main__":
    sys.exit(command())
