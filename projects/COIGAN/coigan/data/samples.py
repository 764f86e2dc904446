"""Training samples from base tiles, reference tiles and objects (thesis 4.3.5, 4.3.6), as a config asks for them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from yacs.config import CfgNode

from coigan.config import check_value
from coigan.data.objects import ObjectStore
from coigan.data.placer import Augmentor, Placer, augmentor_of
from coigan.data.stages import Prepared, open_prepared
from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError


@dataclass(frozen=True)
class MaskNoise:
    """Noise of mean `mean` and deviation `std`, in masks whose borders are softened first.

    Attributes:
        mean, std: of the normal noise z.
        strategy: "additive" (m + z) where the mask is, "multiplicative" m z, "replace" z where the mask is.
        scales: z is the sum of noises drawn at 1/s of the size and enlarged bilinearly; () for one at full size.
        smooth: side of the Gaussian kernel that softens the mask, 0 or 1 for none; an even one counts one more.

    Raises:
        UserError: an unknown strategy, or a number out of range.
    """

    mean: float = 0.5
    std: float = 0.08
    strategy: str = "replace"
    scales: Sequence[int] = ()
    smooth: int = 41

    def __post_init__(self) -> None:
        for field in fields(self):
            check_value(f"INPUT.NOISE.{field.name.upper()}", getattr(self, field.name))

    def __call__(self, masks: torch.Tensor, draw: torch.Generator | None = None) -> torch.Tensor:
        """(n, H, W) masks of 0 and 1 on the CPU -> (n, H, W); an empty channel stays empty.

        Args:
            draw: where the noise comes from; the global generator by default.
        """
        noise = self._draw(masks.shape, draw)
        present = masks.flatten(1).any(1)
        result = torch.zeros_like(masks)
        result[present] = self._within(masks[present], noise[present])
        return result

    def _within(self, masks: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        soft = soften(masks, self.smooth)
        if self.strategy == "additive":
            noisy = (soft + noise) * (soft > 0)
        elif self.strategy == "multiplicative" or self.smooth > 1:
            noisy = soft * noise
        else:
            noisy = noise * (soft > 0)
        if self.smooth <= 1 or not len(masks):
            return noisy
        low = noisy.amin((1, 2), keepdim=True).clamp(max=0)
        high = noisy.amax((1, 2), keepdim=True).clamp(min=1)
        return (noisy - low) / (high - low) * soft

    def _draw(self, shape: torch.Size, draw: torch.Generator | None) -> torch.Tensor:
        classes, height, width = shape
        total: torch.Tensor | None = None
        for scale in self.scales or (1,):
            size = (classes, max(1, height // scale), max(1, width // scale))
            part = torch.randn(size, generator=draw).mul_(self.std).add_(self.mean)
            if scale > 1:
                part = F.interpolate(part[None], (height, width), mode="bilinear", align_corners=True)[0]
            total = part if total is None else total.add_(part)
        assert total is not None
        return total


def soften(masks: torch.Tensor, kernel: int) -> torch.Tensor:
    """(n, H, W) blurred by a Gaussian of side `kernel` (made odd) and deviation 0.15 k + 0.35; 0 and 1 leave it."""
    side = kernel + 1 - kernel % 2
    if side == 1:
        return masks
    # beyond the image the mask goes on as in a mirror, as in torchvision's blur; small images repeat their border
    border = cv2.BORDER_REFLECT_101 if side // 2 < min(masks.shape[-2:]) else cv2.BORDER_REPLICATE
    soft = [cv2.GaussianBlur(mask, (side, side), 0.15 * side + 0.35, borderType=border) for mask in masks.numpy()]
    return torch.from_numpy(np.stack(soft)) if soft else masks


# axes of (H, W, 3)
FLIPS = {"both": (0, 1), "horizontal": (1,), "vertical": (0,), "": ()}


class SampleSource:
    """Draws samples from the global random state, which the training loader seeds for each position in the stream."""

    def __init__(
        self,
        base: Sequence[Path],
        reference: Sequence[Path],
        defects: Placer,
        noise: MaskNoise,
        shapes: Placer | None = None,
        mask_base: bool = False,
        flip: str = "both",
    ) -> None:
        """
        Args:
            base: defect-free tiles.
            reference: tiles of any kind.
            defects: places real defects.
            noise: in the generator's masks.
            shapes: places the masks that the generator is asked for; None asks for those of the real defects
                (different_shapes False).
            mask_base: black the base image out under the masks.
            flip: axes along which tiles are mirrored half of the time: "both", "horizontal", "vertical", or "".

        Raises:
            UserError: there is no base tile, or an unknown axis.
        """
        check_value("DATA.FLIP", flip)
        if not base:
            raise UserError("There is no base tile without defects; prepare the data set again.")
        self._base, self._reference = list(base), list(reference)
        self._defects, self._shapes, self._noise, self._mask_base = defects, shapes, noise, mask_base
        self._axes = FLIPS[flip]

    def draw(self, number: int = 0) -> dict[str, torch.Tensor]:
        """A sample, all values in [0, 1]:

        base (3, S, S); ref (3, S, S), if there are any; disc_input (3n, S, S), real defects on black;
        orig_gen_input_masks (n, S, S), clean; gen_input (3 + n, S, S), base and noisy masks;
        gen_input_union_mask (1, S, S).

        Args:
            number: of the sample; it does not decide what is drawn.
        """
        rng = np.random.default_rng(int(torch.randint(0, 2**62, (1,)).item()))
        base = self._tile(self._base, rng)
        defects = self._defects.place(rng)
        asked = defects if self._shapes is None else self._shapes.place(rng, own_overlap=True)
        masks = torch.from_numpy(asked.masks).float()
        union = masks.amax(0, keepdim=True)
        if self._mask_base:
            base = base * (1 - union)
        canvases = _floats(torch.from_numpy(defects.canvases).permute(0, 3, 1, 2)).flatten(0, 1)
        sample = {
            "base": base,
            "gen_input": torch.cat([base, self._noise(masks)]),
            "disc_input": canvases,
            "orig_gen_input_masks": masks,
            "gen_input_union_mask": union,
        }
        if self._reference:
            sample["ref"] = self._tile(self._reference, rng)
        return sample

    def _tile(self, paths: Sequence[Path], rng: np.random.Generator) -> torch.Tensor:
        pixels = read_rgb(paths[int(rng.integers(len(paths)))])
        for axis in self._axes:
            if rng.random() < 0.5:
                pixels = np.flip(pixels, axis)
        return _floats(torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1))


def _floats(pixels: torch.Tensor) -> torch.Tensor:
    """uint8, of any strides -> contiguous float in [0, 1]."""
    return pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on and is scored against.

    Attributes:
        classes: names of the mask channels.
        draw: number -> a sample (thesis figure 4.15), drawn from the global random state.
        test_tiles: real images that training does not see, for FID; may be empty.
        train_tiles: those that it sees.
        prepared: the whole data set, for scores of crops; None leaves these out.
    """

    classes: tuple[str, ...]
    draw: Callable[[int], Mapping[str, torch.Tensor]]
    test_tiles: Sequence[Path] = ()
    train_tiles: Sequence[Path] = ()
    prepared: Prepared | None = None


class SampleMapper:
    """Draws a sample whatever the record is; a class of its own because workers may have to pickle it."""

    def __init__(self, draw: Callable[[int], Mapping[str, torch.Tensor]]) -> None:
        self._draw = draw

    def __call__(self, record: Mapping[str, int]) -> Mapping[str, torch.Tensor]:
        return self._draw(int(torch.randint(0, 2**31, ()).item()))


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
    if check_value("DATA.SHAPE_SOURCE", cfg.DATA.SHAPE_SOURCE) == "dataset":
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
    return TrainingData(prepared.classes, source.draw, prepared.tiles("test"), train, prepared)


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
