"""Training one segmenter."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, RandomSampler

from gan_plugin.engine.rng import preserved_rng
from gan_plugin.errors import UserError

from .coco import CocoMasks
from .losses import segmentation_loss
from .networks import build_segmenter
from .scores import THRESHOLD, ByClass, Confusion

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
    if options.optimizer == "adamw":
        optimizer = torch.optim.AdamW(network.parameters(), 5e-4, (0.0, 0.9))
    elif options.optimizer == "sgd":
        optimizer = torch.optim.SGD(network.parameters(), 3e-2, 0.95, weight_decay=1e-8)
    else:
        raise UserError(f"--optimizer is {options.optimizer!r}; use adamw or sgd.")
    if options.plateau == "max":
        return optimizer, ReduceLROnPlateau(optimizer, "max", factor=0.95, patience=10)
    if options.plateau == "min":
        return optimizer, ReduceLROnPlateau(optimizer, "min", factor=0.5, patience=10, cooldown=3, min_lr=1e-8)
    raise UserError(f"--plateau is {options.plateau!r}; use min or max.")
