#!/usr/bin/env python
"""Examine data sets as a training does before its first iteration, and print all that is wrong with them as a table.

    python tools/check_data.py --config-file configs/gan_mask_rcnn_cityscapes.yaml [KEY VALUE ...]
    python tools/check_data.py --coco annotations.json images/

With a config the data sets of DATASETS.TRAIN and DATASETS.TEST are also compared with each other and with the model.
--pictures decodes every picture besides reading its header. Nothing is written. Exit code 2: no training would start.
"""

import argparse
import sys
from functools import partial
from typing import TYPE_CHECKING

from _command_line import Parser, run_command_line

if TYPE_CHECKING:
    from gan_plugin.data.examine import Demand


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line (None: this process's)."""
    parser = Parser(__doc__)
    parser.add_argument("--config-file", default="", metavar="FILE", help="of a training, whose data sets are examined")
    parser.add_argument(
        "--coco", nargs=2, metavar=("JSON", "IMAGES"), help="a COCO JSON and the folder of its pictures"
    )
    parser.add_argument("--pictures", action="store_true", help="decode every picture")
    parser.add_argument("--boxes", action="store_true", help="with --coco: the annotations need no masks")
    parser.add_argument(
        "--box-only", action="store_true", help="with --coco: some objects have no mask (MODEL.GAN.MASK.BOX_ONLY)"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="change the config")
    args = parser.parse_args(arguments)
    if bool(args.coco) == bool(args.config_file or args.opts):
        parser.error("name either a config or --coco JSON IMAGES")
    return args


def demand_of_files(json_file: str, images: str, *, masks: bool, box_only: bool) -> "Demand":
    """What a training on one COCO JSON asks of it."""
    from gan_plugin.data.builtin import register_coco_json
    from gan_plugin.data.examine import Demand

    register_coco_json((json_file, json_file, images))
    return Demand(train=(json_file,), test=(), masks=masks, box_only=box_only, mask_format="")


def demand_of_config(args: argparse.Namespace) -> "Demand":
    """What the training of a config asks of its data."""
    from gan_plugin.data.builtin import demand_of, register_of
    from gan_plugin.engine.setup import load_config

    cfg = load_config(args)
    register_of(cfg)
    return demand_of(cfg, train=True)


def work(args: argparse.Namespace) -> int:
    """Print the table; returns the exit code."""
    from tabulate import tabulate
    from tqdm import tqdm

    from gan_plugin.data.examine import Examination
    from gan_plugin.data.pictures import decode_problem, header_problem
    from gan_plugin.errors import USER_ERROR_EXIT_CODE

    if args.coco:
        demand = demand_of_files(*args.coco, masks=not args.boxes, box_only=args.box_only)
    else:
        demand = demand_of_config(args)
    examination = Examination(demand)
    progress = partial(tqdm, total=len(examination.pictures), desc="pictures", disable=None)
    examination.examine_pictures(decode_problem if args.pictures else header_problem, progress)
    findings = examination.findings
    if rows := findings.table():
        print(tabulate(rows, headers=("done", "count", "problem", "first examples"), maxcolwidths=(None, None, 48, 80)))
    for place, (count, of) in examination.unmasked.items():
        if count and demand.masks:
            use = "they teach class and box" if demand.box_only else "MODEL.GAN.MASK.BOX_ONLY True makes them usable"
            print(f"{place}: {count} of {of} objects have no mask; {use}.")
    refused = len(findings.refused)
    print(
        f"{len(examination.pictures)} pictures; {refused or 'no'} {'kind' if refused == 1 else 'kinds'} of problems "
        "that would keep a training from starting."
    )
    return USER_ERROR_EXIT_CODE if findings.refused else 0


def main(arguments: list[str] | None = None) -> int:
    return work(parse(arguments))


command = partial(run_command_line, parse, work)

if __name__ == "__main__":
    sys.exit(command())
