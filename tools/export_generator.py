#!/usr/bin/env python
"""The generator of a training checkpoint, for Detectron2 without this plugin.

    python tools/export_generator.py OUTPUT_DIR/model_final.pth OUT.pth [--ema] [--config-out OUT.yaml]
    python tools/export_generator.py OUTPUT_DIR/model_final.pth OUT.safetensors
    python tools/export_generator.py OUTPUT_DIR/model_final.pth OUT.pth --import project.modeling

The discriminator, optimizers and random states are left out; the result is a Mask R-CNN whose predictions are the
trained model's, bit for bit. Detectron2's DetectionCheckpointer loads the .pth, safetensors.torch.load_file the other.
With the run's config.yaml at hand, the weights are loaded into the model without the plugin before they are written:
Detectron2's own, or that of a project whose components `--import` registers.
"""

import argparse
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

from _command_line import Parser, run_command_line


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("checkpoint", type=Path, help="a model_*.pth of a run")
    parser.add_argument("out", type=Path, help="OUT.pth or OUT.safetensors")
    parser.add_argument("--ema", action="store_true", help="the moving average (MODEL.GAN.EMA) in place of the weights")
    parser.add_argument(
        "--config-file", type=Path, metavar="FILE", help="the run's config; default: config.yaml beside the checkpoint"
    )
    parser.add_argument("--config-out", type=Path, metavar="FILE", help="also write the config for Detectron2 alone")
    parser.add_argument(
        "--torchscript",
        type=Path,
        metavar="FILE",
        help="also write a TorchScript trace for the CPU: one image of --image-size in, float32 (3, H, W) of 0..255 in "
        "the config's channel order; boxes, classes, 28x28 mask probabilities and scores out, masks not pasted. Other "
        "sizes usually work, only HxW is checked. Above 1000 proposals equal to the model up to rounding",
    )
    parser.add_argument(
        "--image-size", type=size, metavar="HxW", help="size in pixels that --torchscript is traced and checked at"
    )
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read a .pkl of Detectron2's model zoo, or a .pth with objects besides weights, as CHECKPOINT. DANGEROUS: "
        "reading a pickle runs whatever code its author put there, with your rights; only for files whose origin you "
        "trust. A .pth of a run never needs this",
    )
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="import this first, which registers a project's components; may be given several times",
    )
    parser.add_argument("--no-check", action="store_true", help="write the weights without loading them into a model")
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    args = parser.parse_args(arguments)
    if args.torchscript and args.no_check:
        parser.error("--torchscript needs the model that --no-check does not build")
    if bool(args.torchscript) != bool(args.image_size):
        parser.error("--torchscript FILE and --image-size HxW (such as 512x1024) go together")
    return args


def size(text: str) -> tuple[int, int]:
    """(height, width) in pixels of HxW, for argparse."""
    sides = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if sides is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write it as HEIGHTxWIDTH, such as 512x1024")
    return int(sides[1]), int(sides[2])


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse, before any work is done, what could not or should not be written.

    Raises:
        UserError: OUT has another suffix, or a file exists, is an input, is named twice or has no folder.
    """
    from gan_plugin.engine.export import SUFFIXES
    from gan_plugin.errors import UserError

    if args.out.suffix not in SUFFIXES:
        raise UserError(f"{args.out} must end in {' or '.join(SUFFIXES)}.")
    outputs = [path for path in (args.out, args.config_out, args.torchscript) if path is not None]
    taken = {path.resolve() for path in (args.checkpoint, config_of(args))}
    for path in outputs:
        if path.resolve() in taken:
            raise UserError(f"{path} is an input of this export, or is named twice; choose another name.")
        taken.add(path.resolve())
        if path.is_dir() or not path.parent.is_dir():
            raise UserError(f"{path} is a folder, or lies in a folder that does not exist; choose another name.")
        if path.exists() and not args.force:
            raise UserError(f"{path} exists already; choose another name, or add --force to replace it.")


def config_of(args: argparse.Namespace) -> Path:
    """The config file of the run, whether or not it exists."""
    return args.config_file or args.checkpoint.with_name("config.yaml")


def work(args: argparse.Namespace) -> None:
    """Read, check, write, say what was written."""
    from gan_plugin.engine.export import (
        import_modules,
        read_named_generator,
        trace_model,
        write_torchscript,
        write_weights,
    )
    from gan_plugin.files import write_whole

    check_outputs(args)
    import_modules(args.modules)
    weights, classes = read_named_generator(args.checkpoint, average=args.ema, allow_pickle=args.allow_pickle)
    model, config, checked = check(args, weights)
    if args.torchscript:
        write_torchscript(trace_model(model, *args.image_size), args.torchscript)
    if args.config_out:
        write_whole(args.config_out, config)
    write_weights(weights, args.out, classes)
    size = sum(tensor.numel() for tensor in weights.values()) / 1e6
    print(f"{args.out}: {len(weights)} tensors, {size:.1f} million numbers; {checked}")


def check(args: argparse.Namespace, weights: dict[str, Any]) -> tuple[Any, str, str]:
    """(the model without the plugin with these weights, its config, how well they fit), None and "" for what is not
    asked for."""
    from gan_plugin.engine.export import (
        build_lazy_model,
        build_stock_model,
        is_lazy,
        plain_lazy_config,
        stock_config,
    )
    from gan_plugin.engine.lazy_config import as_yaml

    needs_config = args.config_file or args.config_out or args.torchscript
    if not needs_config and (args.no_check or not config_of(args).is_file()):
        return None, "", f"not checked against a model{'' if args.no_check else ', for want of a config.yaml'}"
    if is_lazy(config_of(args)):
        if not needs_config:
            return None, "", "not checked against a model: a LazyConfig is a program; name it with --config-file"
        lazy = plain_lazy_config(config_of(args))
        text, build = as_yaml(lazy), lambda: build_lazy_model(lazy, weights, args.modules)
    else:
        cfg = stock_config(config_of(args), args.modules)
        # Detectron2's loader takes no .safetensors with every release of PyTorch
        cfg.MODEL.WEIGHTS = str(args.out) if args.out.suffix == ".pth" else ""
        text, build = cfg.dump(), lambda: build_stock_model(cfg, weights, args.modules)
    if args.no_check:
        return None, text, "not checked against a model"
    return build(), text, f"fits the model of {', '.join(args.modules)}" if args.modules else "fits Detectron2's model"


def main(arguments: list[str] | None = None) -> None:
    work(parse(arguments))


command = partial(run_command_line, parse, work)

if __name__ == "__main__":
    sys.exit(command())
