"""Training one segmenter, its scores, and the file that it is kept in."""

import copy
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, RandomSampler

from coigan.segmentation.coco import CocoMasks
from coigan.segmentation.networks import build_segmenter, segmentation_loss
from gan_plugin.engine.distributed import preserved_rng
from gan_plugin.engine.export import is_state_dict
from gan_plugin.errors import UserError, as_user_error
from gan_plugin.files import check_exists, read_safely, write_whole
from gan_plugin.rules import check_name

THRESHOLD = 0.6
# a segmenter that calls more of all pixels a defect, where fewer are, has learnt nothing
_EVERYTHING, _FEW = 0.9, 0.5


@dataclass
class Confusion:
    """Pixels that are rightly and wrongly called defect and background."""

    hit: int = 0
    invented: int = 0
    missed: int = 0
    clean: int = 0

    def add(self, logits: torch.Tensor, masks: torch.Tensor, threshold: float = THRESHOLD) -> None:
        """Count the pixels of (N, H, W) logits against masks of 0 and 1; above `threshold` is called defect."""
        found, true = logits.sigmoid() > threshold, masks > 0
        self.hit += int((found & true).sum())
        self.invented += int((found & ~true).sum())
        self.missed += int((~found & true).sum())
        self.clean += int((~found & ~true).sum())

    def scores(self) -> dict[str, float]:
        """IoU, F1, precision, recall and accuracy in [0, 1]; what has no pixel to judge by is 0."""

        def share(part: int, whole: int) -> float:
            return part / whole if whole else 0.0

        return {
            "IoU": share(self.hit, self.hit + self.invented + self.missed),
            "F1": share(2 * self.hit, 2 * self.hit + self.invented + self.missed),
            "precision": share(self.hit, self.hit + self.invented),
            "recall": share(self.hit, self.hit + self.missed),
            "accuracy": share(self.hit + self.clean, self.hit + self.invented + self.missed + self.clean),
        }

    @property
    def collapsed(self) -> str:
        """What is the matter with a segmenter that says the same of every pixel; "" if nothing is."""
        found, true = self.hit + self.invented, self.hit + self.missed
        pixels = found + self.missed + self.clean
        if true and not found:
            return "finds nothing"
        return "calls all a defect" if found > _EVERYTHING * pixels and true < _FEW * pixels else ""


@dataclass
class ByClass:
    """How well the defects of each class are found, by a segmenter that knows one kind.

    Attributes:
        hit, pixels: of the class that are found, and all of it.
        union: the class and what is found beside it under no other class, in the images that hold the class.
    """

    names: tuple[str, ...]
    hit: np.ndarray = field(init=False)
    pixels: np.ndarray = field(init=False)
    union: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.hit, self.pixels, self.union = np.zeros((3, len(self.names)), int)

    def add(self, found: np.ndarray, masks: np.ndarray) -> None:
        """Count an image's (H, W) bool against (n, H, W) bool."""
        every = masks.any(0)
        for label in np.flatnonzero(masks.any((1, 2))):
            own = masks[label]
            self.hit[label] += (found & own).sum()
            self.pixels[label] += own.sum()
            self.union[label] += (own | found & ~every).sum()

    def scores(self) -> dict[str, dict[str, float | None]]:
        """IoU and recall of each class in [0, 1]; None of one that no image holds."""
        return {
            name: {
                "IoU": self.hit[label] / self.union[label] if self.pixels[label] else None,
                "recall": self.hit[label] / self.pixels[label] if self.pixels[label] else None,
            }
            for label, name in enumerate(self.names)
        }


_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SegmentOptions:
    """How a segmenter is trained; the defaults are COIGAN's for Severstal, its CCCD preset is `cccd()`.

    Attributes:
        model: one of `networks.NETWORKS`.
        loss: one of `losses.LOSSES`.
        steps: of the optimizer.
        batch: images of a step.
        val_every: steps between two validations, which the learning rate follows and the best weights are taken by.
        optimizer: "adamw" (5e-4, betas 0 and 0.9) or "sgd" (3e-2, momentum 0.95, weight decay 1e-8).
        plateau: "min" of the validation loss, patience 10, cooldown 3, factor 0.5; or "max" of the IoU, patience 10,
            factor 0.95.
        threshold: above it a pixel is called defect.
        average: decay of a moving average of the weights, which then is scored and kept; 0 for the last weights.
        amp: mixed precision.
        device: where to compute.
    """

    model: str = "unet"
    loss: str = "log_cosh_dice"
    steps: int = 50_000
    batch: int = 12
    val_every: int = 1000
    optimizer: str = "adamw"
    plateau: str = "min"
    threshold: float = THRESHOLD
    average: float = 0.0
    amp: bool = False
    device: str = "cpu"

    def describe(self) -> dict[str, object]:
        """For reports."""
        return asdict(self)


def cccd(**changes: object) -> SegmentOptions:
    """COIGAN's preset for cracks in concrete, with `changes`."""
    preset = {"val_every": 350, "optimizer": "sgd", "plateau": "max", "amp": True}
    return SegmentOptions(**{**preset, **changes})  # type: ignore[arg-type]


def train_segmenter(
    train: Sequence[Dataset],
    val: Dataset,
    test: Dataset,
    options: SegmentOptions,
    seed: int,
    keep: Callable[[nn.Module], None] | None = None,
) -> dict[str, Any]:
    """The scores on `test` of a segmenter trained on all of `train`, with the weights that were best on `val`.

    `test` decides nothing: it is looked at once, in the end. The same seed gives the same initial weights whatever the
    training set.

    Args:
        train: sets of (image, mask) pairs of one size.
        val: what the learning rate and the choice of weights go by: the greatest IoU, then the least loss.
        test: judged image by image.
        options: of the training.
        seed: of weights and order.
        keep: gets the chosen network, or its average.

    Returns:
        As `evaluate_segmenter`, with val_IoU and step of the chosen weights.

    Raises:
        UserError: an option is unknown, or images of a batch differ in size.
    """
    device = torch.device(options.device)
    with preserved_rng(seed=seed):
        network = build_segmenter(options.model).to(device)
        optimizer, scheduler = build_optimizer(network, options)
        smooth = get_ema_multi_avg_fn(options.average)
        # with the running statistics of batch normalisation
        averaged = AveragedModel(network, multi_avg_fn=smooth, use_buffers=True) if options.average else None
        judged = averaged.module if averaged else network
        batches = _batches(ConcatDataset(train), options.batch, options.steps, seed)
        best: tuple[float, float] = (-1.0, 0.0)
        chosen, at = judged.state_dict(), 0
        for step, (images, masks) in enumerate(batches, start=1):
            network.train()
            with torch.autocast(device.type, torch.bfloat16, enabled=options.amp):
                logits = network(images.to(device))
            loss = segmentation_loss(options.loss, logits.float(), masks.to(device))
            if not bool(torch.isfinite(loss)):
                raise UserError(
                    f"The segmenter's loss is {loss.item()} at step {step}; choose another --loss or model."
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if averaged:
                averaged.update_parameters(network)
            if step % options.val_every == 0 or step == options.steps:
                found = evaluate_segmenter(judged, val, options)
                scheduler.step(found["IoU"] if options.plateau == "max" else found["loss"])
                _logger.info(f"step {step}: loss {loss.item():.4f}, validation IoU {found['IoU']:.4f}")
                if (found["IoU"], -found["loss"]) > best:
                    best, chosen, at = (found["IoU"], -found["loss"]), copy.deepcopy(judged.state_dict()), step
    judged.load_state_dict(chosen)
    if keep is not None:
        keep(judged)
    return {**evaluate_segmenter(judged, test, options), "val_IoU": best[0], "step": at}


@torch.no_grad()
def evaluate_segmenter(network: nn.Module, test: Dataset, options: SegmentOptions) -> dict[str, Any]:
    """Scores over all pixels of `test`, its mean loss, and `Confusion.collapsed`.

    Of images with classes (`CocoMasks`) there are also the scores of each class, under "classes".
    """
    network.eval()
    confusion, losses = Confusion(), []
    classes = ByClass(test.classes) if isinstance(test, CocoMasks) else None
    for number, (images, masks) in enumerate(DataLoader(test, batch_size=1)):
        logits = network(images.to(options.device)).float().cpu()
        confusion.add(logits, masks, options.threshold)
        losses.append(segmentation_loss(options.loss, logits, masks).item())
        if classes is not None and isinstance(test, CocoMasks):
            classes.add((logits[0].sigmoid() > options.threshold).numpy(), test.by_class(number))
    scores = {**confusion.scores(), "loss": sum(losses) / len(losses), "collapsed": confusion.collapsed}
    return scores | ({} if classes is None else {"classes": classes.scores()})


def _batches(data: Dataset, batch: int, steps: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    sampler = RandomSampler(data, replacement=True, num_samples=batch * steps, generator=draw)  # type: ignore[arg-type]
    for images, masks in DataLoader(data, batch_size=batch, sampler=sampler):
        # what an unbiased camera could have seen as well
        for axis in (-1, -2):
            mirrored = torch.rand(len(images), generator=draw) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(axis), images)
            masks = torch.where(mirrored[:, None, None], masks.flip(axis), masks)
        yield images, masks


def build_optimizer(network: nn.Module, options: SegmentOptions) -> tuple[torch.optim.Optimizer, ReduceLROnPlateau]:
    """The optimizer that `options` name, and what lowers its rate when validation gets no better.

    Raises:
        UserError: one of them is unknown.
    """
    optimizer: torch.optim.Optimizer
    if check_name("--optimizer", options.optimizer, ("adamw", "sgd")) == "adamw":
        optimizer = torch.optim.AdamW(network.parameters(), 5e-4, (0.0, 0.9))
    else:
        optimizer = torch.optim.SGD(network.parameters(), 3e-2, 0.95, weight_decay=1e-8)
    if check_name("--plateau", options.plateau, ("min", "max")) == "max":
        return optimizer, ReduceLROnPlateau(optimizer, "max", factor=0.95, patience=10)
    return optimizer, ReduceLROnPlateau(optimizer, "min", factor=0.5, patience=10, cooldown=3, min_lr=1e-8)


_KIND = "coigan-segmenter-1"


@dataclass(frozen=True)
class TrainedSegmenter:
    """What calls pixels defect or background.

    Attributes:
        network: frozen, in evaluation mode, on the device of `options`.
        options: of its training; `threshold` divides defect from background.
        digest: SHA-256 of the file.
    """

    network: nn.Module
    options: SegmentOptions
    digest: str

    @torch.no_grad()
    def find(self, image: torch.Tensor) -> torch.Tensor:
        """(3, H, W) in [0, 1] -> (H, W) bool on the CPU, where it sees a defect."""
        logits = self.network(image[None].to(self.options.device)).float()
        return (logits.sigmoid() > self.options.threshold)[0].cpu()


def write_segmenter(path: str | Path, network: nn.Module, options: SegmentOptions) -> None:
    """Write weights and options.

    Raises:
        UserError: the file cannot be written.
    """
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    content = {"kind": _KIND, "model": state, "options": asdict(options)}
    write_whole(path, lambda file: torch.save(content, file))


def read_segmenter(path: str | Path, device: str) -> TrainedSegmenter:
    """What `write_segmenter` has written, without running any code that is in the file.

    Raises:
        UserError: the file is missing or no segmenter.
    """
    path = Path(path)
    check_exists(path, "The segmenter", "inpaint.py segment leaves one for each seed")
    with as_user_error(f"{path} cannot be read", "check its permissions", OSError):
        packed = path.read_bytes()
    content = read_safely(path, packed)
    if not isinstance(content, dict) or content.get("kind") != _KIND or not is_state_dict(content.get("model")):
        raise UserError(f"{path} is no segmenter; name a segmenter_seed*.pth that inpaint.py segment has written.")
    with as_user_error(
        f"{path} does not fit this version of the segmenters", "train it again", TypeError, KeyError, RuntimeError
    ):
        options = replace(SegmentOptions(**content["options"]), device=device)
        network = build_segmenter(options.model)
        network.load_state_dict(content["model"], strict=True)
    digest = hashlib.sha256(packed).hexdigest()
    return TrainedSegmenter(network.to(device).requires_grad_(False).eval(), options, digest)
