"""What an object without a mask has to learn from: its box, its colours, the model's own average, masks of others.

The losses of boxes and colours are BoxInst's (Tian, Shen, Wang and Chen 2021, arXiv 2012.02310, sections 3.2 and 3.3).
There a mask is as large as the image; here it is what a mask head draws in a proposal, so both losses are computed on
the grid of the head.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.utils.events import get_event_storage
from torch import nn

from gan_plugin.errors import UserError

from .masks_of_some import teacher_loss
from .presenters import crop_pictures
from .samples import MaskSamples, RealFakePair

_EPSILON = 1e-5
# theta of the colour similarity exp(-|c1 - c2| / theta), in units of LAB
_THETA = 2.0
# from linear sRGB to XYZ under D65 (IEC 61966-2-1), each row divided by the white point
_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
_WHITE = (0.9505, 1.0, 1.089)
_NOBODY = -1


@dataclass(frozen=True)
class UnpairedLosses:
    """The losses of objects without a mask.

    Attributes:
        projection_weight: of `projection_loss`, 0 for none.
        pairwise_weight: of `pairwise_loss`, 0 for none.
        threshold, dilation: see `pairwise_loss`.
        warmup: iterations over which the pairwise loss rises to full weight.
        teacher_weight: of `teacher_loss`, 0 for none.
        confidence: see there.
        teacher_warmup: iterations over which it rises to full weight.
        trust: how real a discriminator must take the teacher's mask to be where it is believed, in [0, 1]; 0 to believe
            it everywhere.
    """

    projection_weight: float = 0.0
    pairwise_weight: float = 0.0
    threshold: float = 0.3
    dilation: int = 2
    warmup: int = 0
    teacher_weight: float = 0.0
    confidence: float = 0.8
    teacher_warmup: int = 0
    trust: float = 0.0

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "UnpairedLosses | None":
        """What `cfg.MODEL.GAN.UNPAIRED` describes; None where every object has a mask, or nothing has a weight."""
        node = cfg.MODEL.GAN.UNPAIRED
        weights = node.PROJECTION_WEIGHT, node.PAIRWISE_WEIGHT, node.TEACHER_WEIGHT
        if not cfg.MODEL.GAN.MASK.BOX_ONLY or not any(weights):
            return None
        return cls(
            node.PROJECTION_WEIGHT,
            node.PAIRWISE_WEIGHT,
            node.PAIRWISE_THRESHOLD,
            node.PAIRWISE_DILATION,
            node.PAIRWISE_WARMUP,
            node.TEACHER_WEIGHT,
            node.TEACHER_CONFIDENCE,
            node.TEACHER_WARMUP,
            node.TEACHER_TRUST,
        )

    @property
    def wants_pictures(self) -> bool:
        """Whether samples must bring the images."""
        return self.pairwise_weight > 0

    @property
    def asks_discriminator(self) -> bool:
        """Whether a discriminator says where the teacher is believed."""
        return self.teacher_weight > 0 and self.trust > 0

    def __call__(
        self, samples: MaskSamples, realness: Callable[[MaskSamples], torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """The losses, scalars with their weights.

        Args:
            samples: of all objects, as the weights need them with `pictures` and `taught`.
            realness: what a discriminator says of such samples, (R, M, M) in [0, 1]; None without one.

        Returns:
            `loss_projection`, `loss_pairwise` and `loss_teacher`, where they have a weight; zeros that reach the logits
            if no object lacks a mask.
        """
        lacking = samples.at(~samples.known)
        losses = {}
        if self.projection_weight:
            losses["loss_projection"] = projection_loss(lacking.logits, lacking.truth) * self.projection_weight
        if self.pairwise_weight:
            loss = lacking.zero()
            if len(lacking):
                colours = rgb_to_lab(crop_pictures(lacking, lacking.logits.shape[-1]))
                loss = pairwise_loss(lacking.logits, lacking.truth, colours, self.threshold, self.dilation)
            losses["loss_pairwise"] = loss * (self.pairwise_weight * _ramp(self.warmup))
        if self.teacher_weight:
            losses["loss_teacher"] = self._of_teacher(lacking, realness)
        return losses

    def _of_teacher(self, lacking: MaskSamples, realness: Callable[[MaskSamples], torch.Tensor] | None) -> torch.Tensor:
        taught, believed = lacking.taught, None
        assert taught is not None
        if self.trust and realness is not None and len(lacking):
            logits = taught.clamp(_EPSILON, 1 - _EPSILON).logit().to(lacking.logits.dtype)
            believed = realness(replace(lacking, logits=logits)) >= self.trust
            get_event_storage().put_scalar("gan/mask/believed", believed.float().mean().item())
        loss = teacher_loss(lacking.logits, taught, self.confidence, believed)
        return loss * (self.teacher_weight * _ramp(self.teacher_warmup))


def _ramp(warmup: int) -> float:
    return min(1.0, (get_event_storage().iter + 1) / warmup) if warmup else 1.0


def projection_loss(logits: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """How far the mask's projections onto both axes are from those of the box: BoxInst's eq 2, a mean over objects.

    A projection is the greatest value along each row or column; two of them are compared by Dice's loss.

    Args:
        logits: (R, M, M).
        boxes: (R, M, M) in [0, 1], what of the grid lies in the annotated box.

    Returns:
        A scalar in [0, 2]; without objects a zero that reaches the logits.
    """
    if not len(logits):
        return logits.sum() * 0
    masks, boxes = logits.float().sigmoid(), boxes.float()
    return torch.stack([_dice(masks.amax(axis), boxes.amax(axis)) for axis in (1, 2)]).sum(0).mean()


def _dice(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """1 - 2 <a, b> / (|a|^2 + |b|^2) of each row."""
    return 1 - 2 * (a * b).sum(1) / (a.square().sum(1) + b.square().sum(1)).clamp(min=_EPSILON)


def pairwise_loss(
    logits: torch.Tensor, boxes: torch.Tensor, colours: torch.Tensor, threshold: float = 0.3, dilation: int = 2
) -> torch.Tensor:
    """How unlikely neighbours of one colour get one label: BoxInst's eqs 5 to 7.

    Each pixel is compared with its eight neighbours at a distance of `dilation`. Of the E edges that have an end in the
    box those count whose colours c1, c2 have exp(-|c1 - c2| / 2) >= threshold, each with
    -log(m1 m2 + (1 - m1)(1 - m2)).

    Args:
        logits: (R, M, M) of the masks m.
        boxes: (R, M, M) in [0, 1], what of the grid lies in the annotated box.
        colours: (R, 3, M, M) in LAB.
        threshold: in [0, 1], tau.
        dilation: in pixels of the grid, below M.

    Returns:
        The sum over all objects divided by E, a scalar; without objects a zero that reaches the logits.

    Raises:
        UserError: the grid has no neighbours so far apart.
    """
    if dilation >= logits.shape[-1]:
        raise UserError(
            f"MODEL.GAN.UNPAIRED.PAIRWISE_DILATION is {dilation}, but the mask head draws {logits.shape[-1]} pixels a "
            "side; set it to fewer."
        )
    logits = logits.float()
    inside, outside, within = F.logsigmoid(logits), F.logsigmoid(-logits), boxes > 0.5
    total, edges = logits.sum() * 0, logits.new_zeros(())
    # the other four have the same edges
    for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
        one, other = _neighbours(logits.shape[-1], down * dilation, right * dilation)
        agree = torch.logaddexp(inside[one] + inside[other], outside[one] + outside[other])
        distance = (colours[one] - colours[other]).norm(dim=1)
        counts = within[one] | within[other]
        alike = torch.exp(-distance / _THETA) >= threshold
        total = total - (agree * (counts & alike)).sum()
        edges = edges + counts.sum()
    return total / edges.clamp(min=1)


def _neighbours(side: int, down: int, right: int) -> tuple[tuple, tuple]:
    """Indices of all pixels that have a neighbour so many pixels below and to the right, and of these."""
    rows, columns = slice(0, side - down), slice(max(0, -right), side - max(0, right))
    below, beside = slice(down, side), slice(max(0, right), side + min(0, right))
    return (..., rows, columns), (..., below, beside)


def rgb_to_lab(pictures: torch.Tensor) -> torch.Tensor:
    """(R, 3, H, W) sRGB in [0, 1] to CIE LAB under D65, L in [0, 100]."""
    linear = torch.where(pictures > 0.04045, ((pictures + 0.055) / 1.055).clamp(min=0) ** 2.4, pictures / 12.92)
    matrix = linear.new_tensor(_XYZ) / linear.new_tensor(_WHITE)[:, None]
    relative = torch.einsum("ij,rjhw->rihw", matrix, linear)
    cube = relative.clamp(min=_EPSILON) ** (1 / 3)
    x, y, z = torch.where(relative > (6 / 29) ** 3, cube, relative * (29 / 6) ** 2 / 3 + 4 / 29).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


class MaskMemory(nn.Module):
    """A ring of the latest real samples with their classes, of this process alone.

    All of it are buffers, so that a resumed run goes on with what it knew. Random numbers come from torch's global
    state.
    """

    inputs: torch.Tensor
    classes: torch.Tensor
    place: torch.Tensor

    def __init__(self, size: int, channels: int = 1, side: int = 128) -> None:
        """
        Args:
            size: of the ring, above 0.
            channels, side: of what the discriminator sees.
        """
        super().__init__()
        self.register_buffer("inputs", torch.zeros(size, channels, side, side))
        self.register_buffer("classes", torch.full((size,), _NOBODY))
        self.register_buffer("place", torch.tensor(0))

    def __call__(self, pair: RealFakePair, present: Callable[[Any], RealFakePair]) -> RealFakePair:
        """Remember the real samples of objects that have a mask, and set a real one beside each fake.

        Args:
            pair: R of either; the real side of an object without a mask is worth nothing.
            present: what has made it of its samples.

        Returns:
            A pair whose real side is drawn from the memory, each of the class of its fake; fakes of a class of which
            no real sample has been seen are left out.
        """
        known = pair.samples.known
        self.remember(pair.real[known], pair.samples.classes[known])
        storage = get_event_storage()
        storage.put_scalar("gan/mask/remembered", int((self.classes != _NOBODY).sum()))
        same = pair.samples.classes[:, None] == self.classes[None]
        rows = same.any(dim=1)
        if not bool(rows.any()):
            return RealFakePair(pair.real[:0], pair.fake[:0], pair.samples.at(rows))
        chosen = torch.multinomial(same[rows].float(), 1).flatten()
        real = self.inputs[chosen].to(pair.real.dtype)
        # of some of the samples anew, since a pull is looked for between a pair's own samples and its fakes
        return replace(pair if bool(rows.all()) else present(pair.samples.at(rows)), real=real)

    @torch.no_grad()
    def remember(self, inputs: torch.Tensor, classes: torch.Tensor) -> None:
        """Put real samples (n, C, S, S) of classes (n,) in the place of the oldest."""
        size = len(self.classes)
        if not len(inputs):
            return
        inputs, classes = inputs[-size:], classes[-size:]
        places = (self.place + torch.arange(len(inputs), device=self.place.device)) % size
        self.inputs[places] = inputs.to(self.inputs.dtype)
        self.classes[places] = classes
        self.place.copy_((places[-1] + 1) % size)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *arguments: Any) -> None:
        # a ring of another size, whose samples the checkpointer has taken out, is begun anew as a whole
        names = [f"{prefix}{name}" for name in ("inputs", "classes", "place")]
        if not all(name in state for name in names):
            for name in names:
                state.pop(name, None)
        super()._load_from_state_dict(state, prefix, *arguments)
