"""What a config's DATA and INPUT say, opened."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from yacs.config import CfgNode

from coigan.data.augmentor import Augmentor, augmentor_of
from coigan.data.objects import ObjectStore
from coigan.data.placer import Placer
from coigan.data.samples import MaskNoise, SampleSource
from coigan.data.stages import Prepared, open_prepared
from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError

from .training import TrainingData


def noise_of(cfg: CfgNode) -> MaskNoise:
    """The noise in masks of INPUT.NOISE.

    Raises:
        UserError: a value is out of range.
    """
    node = cfg.INPUT.NOISE
    return MaskNoise(node.MEAN, node.STD, node.STRATEGY, tuple(node.SCALES), node.SMOOTH)


def open_root(cfg: CfgNode, root: str = "") -> Prepared:
    """The prepared data set `root`, or DATA.ROOT if that is "", whose tiles fit INPUT.SIZE.

    Raises:
        UserError: there is none, or its tiles have another size.
    """
    if not (root or cfg.DATA.ROOT):
        raise UserError("There is no data to train on; name a prepared data set with --data (DATA.ROOT).")
    prepared = open_prepared(root or cfg.DATA.ROOT)
    if prepared.tile != cfg.INPUT.SIZE:
        raise UserError(
            f"The tiles in {prepared.root} have {prepared.tile} pixels, but INPUT.SIZE is {cfg.INPUT.SIZE}; prepare "
            "them again with --tile, or change INPUT.SIZE."
        )
    return prepared


def defect_placer(cfg: CfgNode, prepared: Prepared, masks_only: bool = False) -> Placer:
    """Places the real defects of the training images, or their masks alone, as the keys of DATA say.

    Raises:
        UserError: one of the keys has a value that cannot be.
    """
    stores = [ObjectStore(prepared.objects(number), masks_only) for number in range(len(prepared.classes))]
    return _placer(cfg, stores, augmentation_of(cfg))


def _placer(cfg: CfgNode, stores: Sequence[ObjectStore], augment: bool | Augmentor) -> Placer:
    data = cfg.DATA
    return Placer(stores, cfg.INPUT.SIZE, tuple(data.COUNTS), augment, data.OVERLAP, data.FORCE_NON_EMPTY)


def augmentation_of(cfg: CfgNode) -> bool | Augmentor:
    """What `Placer` does to objects: DATA.PRESET, or DATA.AUGMENT where that is "".

    Raises:
        UserError: there is no such preset.
    """
    return augmentor_of(cfg.DATA.PRESET) if cfg.DATA.PRESET else cfg.DATA.AUGMENT


def shape_placer(cfg: CfgNode, prepared: Prepared) -> Placer | None:
    """Places the masks that the generator is asked for; None where they are those of the real defects.

    Raises:
        UserError: DATA.SHAPE_SOURCE is unknown, or there is no bank of masks for each class.
    """
    source = cfg.DATA.SHAPE_SOURCE
    if source not in ("dataset", "generated"):
        raise UserError(f"DATA.SHAPE_SOURCE is {source!r}; set it to dataset or generated.")
    if source == "dataset":
        return defect_placer(cfg, prepared, masks_only=True) if cfg.DATA.DIFFERENT_SHAPES else None
    banks = tuple(cfg.DATA.SHAPE_BANKS)
    if len(banks) != len(prepared.classes):
        raise UserError(
            f"DATA.SHAPE_BANKS names {len(banks)} folders, but there are {len(prepared.classes)} classes; make one of "
            "each with inpaint.py shapes-train --bank N."
        )
    stores = [ObjectStore(Path(bank)) for bank in banks]
    return _placer(cfg, stores, augment=False)


def open_data(cfg: CfgNode, root: str = "") -> TrainingData:
    """Samples, classes and tiles of the prepared data set `root`, or of DATA.ROOT.

    Raises:
        UserError: see `open_root` and `shape_placer`.
    """
    prepared = open_root(cfg, root)
    train = prepared.tiles("train")
    source = SampleSource(
        prepared.tiles("base"),
        train if cfg.MODEL.REF_DISCRIMINATOR.ENABLED else [],
        defect_placer(cfg, prepared),
        noise_of(cfg),
        shape_placer(cfg, prepared),
        cfg.DATA.MASK_BASE,
        cfg.DATA.FLIP,
    )
    return TrainingData(prepared.classes, source.draw, prepared.tiles("test"), train)


def open_shapes(cfg: CfgNode) -> Callable[[int], dict[str, torch.Tensor]]:
    """Draws what the second game learns: {"image"}, a mask of one class (1, S, S) or a base tile (3, S, S), in [0, 1].

    Raises:
        UserError: SHAPES.SOURCE or SHAPES.CLASS is unknown, or there is nothing of that kind.
    """
    node, prepared = cfg.SHAPES, open_root(cfg)
    if node.SOURCE == "base":
        paths = prepared.tiles("base")
        if not paths:
            raise UserError(f"{prepared.root} holds no base tile; prepare the data set again.")

        def tile(number: int) -> dict[str, torch.Tensor]:
            pixels = read_rgb(paths[int(torch.randint(0, len(paths), (1,)).item())])
            return {"image": torch.from_numpy(pixels).permute(2, 0, 1).float() / 255}

        return tile
    if node.SOURCE != "masks" or not 0 <= node.CLASS < len(prepared.classes):
        raise UserError(
            f"SHAPES.SOURCE is {node.SOURCE!r} and SHAPES.CLASS {node.CLASS}; set them to masks or base, and to the "
            f"index of one of the {len(prepared.classes)} classes."
        )
    most = max(node.COUNTS)
    counts = [float(count in node.COUNTS) for count in range(most + 1)]
    store = ObjectStore(prepared.objects(node.CLASS), masks_only=True)
    if not len(store):
        raise UserError(f"Class {node.CLASS} has no object in {prepared.root}; choose another SHAPES.CLASS.")
    placer = Placer([store], cfg.INPUT.SIZE, counts, augmentation_of(cfg), cfg.DATA.OVERLAP)
    source = SampleSource(prepared.tiles("base"), [], placer, noise_of(cfg))

    def masks(number: int) -> dict[str, torch.Tensor]:
        return {"image": source.draw(number)["orig_gen_input_masks"]}

    return masks
