"""Paste generated cars into street scenes, with masks.

    cars.py compose --samples SAMPLES --cityscapes DIR --output OUT
    cars.py compose --samples samples.pt --coco instances.json IMAGES --output OUT MIX 1.0 CARS "(1,5)"

SAMPLES is a folder of PNG files (RGB on the key colour, or RGBA), or a .pt file with (N, C, H, W) in [-1, 1]. OUT gets
images/, annotations.json for register_coco_instances, provenance.jsonl (which sample went where), summary.json and
examples.html. The same command again continues. KEY VALUE pairs at the end change options; car_gan/compose/config.py
has them all.
"""

import argparse
from pathlib import Path

from car_gan.scenes.choose import add_scene_arguments, chosen_scenes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    add_scene_arguments(parser)
    parser.add_argument("--samples", type=Path, metavar="PATH", help="the generated cars; not needed with MIX 0")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="of these scenes alone")
    parser.add_argument("--config-file", default="", metavar="FILE", help="options")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes; default: this one")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="options that go over the file's")


def run(args: argparse.Namespace) -> None:
    """Compose, say what came of it, write the page of examples."""
    from car_gan.compose.compose import compose
    from car_gan.compose.config import compose_defaults
    from car_gan.compose.examples import write_examples
    from car_gan.compose.samples import SampleBank
    from gan_plugin.engine.setup import merge_options

    cfg = compose_defaults()
    merge_options(cfg, args.config_file, args.opts)
    summary = compose(chosen_scenes(args, cfg.SPLITS), args.samples, cfg, args.output, workers=args.workers)
    refused = ", ".join(f"{reason} {count}" for reason, count in summary["refused"].items()) or "none"
    print(
        f"{summary['synthetic']} new '{cfg.CATEGORY}' in {summary['composed']} of {summary['images']} scenes, beside "
        f"{summary['annotated']} annotated ones ({summary['share']:.0%} are new). Tries without success: {refused}."
    )
    bank = SampleBank(args.samples, cfg.MATTING) if cfg.MIX else None
    print(f"Scenes and annotations.json in {args.output}; look at some: {write_examples(args.output, bank)}")
