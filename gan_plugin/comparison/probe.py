"""Can a discriminator tell? It learns from a model that stands still, and judges images that it has not seen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from detectron2.utils.events import EventStorage

from gan_plugin.errors import UserError
from gan_plugin.modeling.adversary import Adversary
from gan_plugin.modeling.samples import RealFakePair

# what a discriminator has learnt is looked at after so many steps, and their multiples by 10
_MARKS = (1, 2, 5)
_FIRST_MARK = 10


@dataclass(frozen=True)
class Shown:
    """What a discriminator would have seen while the model stood still.

    Attributes:
        pair: real and fake of all batches, on the CPU.
        image: (R,) number of the image that each is of, the same for every draw of that image.
        batch: how many a batch has on average.
    """

    pair: RealFakePair
    image: torch.Tensor
    batch: int


@dataclass(frozen=True)
class Telling:
    """The share of right verdicts after so many steps: on images that the discriminator has learnt from, and others."""

    steps: int
    seen: float
    unseen: float


@torch.no_grad()
def collect(model: Any, name: str, batches: Iterable[Sequence[dict[str, Any]]]) -> Shown:
    """Let the model draw, in training mode and without learning.

    Args:
        model: with adversaries; its iteration is the event storage's.
        name: of the adversary, "mask" or "box".
        batches: as the training loader gives them.

    Raises:
        UserError: no batch has a sample.
    """
    numbers: dict[Any, int] = {}
    pairs, images = [], []
    for batch in batches:
        pair = model.generator_forward(batch)[1][name]
        own = [numbers.setdefault(each.get("image_id", each.get("file_name")), len(numbers)) for each in batch]
        places = pair.samples.rois[:, 0] if name == "mask" else pair.samples.images
        images.append(torch.tensor(own)[places.long().cpu()])
        pairs.append((pair.real.cpu(), pair.fake.cpu(), pair.samples.classes.cpu()))
    if not pairs or not sum(map(len, images)):
        raise UserError("The model draws nothing on these images: no proposal meets an object; train it first.")
    real, fake, classes = (torch.cat(part) for part in zip(*pairs, strict=True))
    size = max(1, round(len(real) / len(pairs)))
    return Shown(RealFakePair(real, fake, _Classes(classes)), torch.cat(images), size)


def probe(
    adversary: Adversary, optimizer: torch.optim.Optimizer, shown: Shown, steps: int, held_out: float = 0.25
) -> list[Telling]:
    """Train the discriminator as a run does, but against a model that stands still.

    Args:
        adversary: with its objective, labels, augmentation and penalties.
        optimizer: of its discriminator.
        shown: see `collect`.
        steps: of the optimizer, each on as many samples as a batch has.
        held_out: share of the images that the discriminator learns nothing from, in (0, 1).

    Returns:
        After 10, 20, 50, 100, ... steps and the last.

    Raises:
        UserError: its objective says of no sample whether it is real, or there are too few images.
    """
    images = int(shown.image.max()) + 1
    unseen = shown.image >= images - max(1, round(images * held_out))
    if not bool(unseen.any()) or bool(unseen.all()):
        raise UserError(f"{images} images with objects are too few to hold some out; take more --batches.")
    learning, others = (torch.nonzero(part).flatten() for part in (~unseen, unseen))
    device = next(adversary.parameters()).device
    marks = {_FIRST_MARK * mark * 10**power for mark in _MARKS for power in range(9)} | {steps}
    found = []
    with EventStorage(0) as storage:
        for step in range(1, steps + 1):
            storage.iter = step
            drawn = learning[torch.randint(len(learning), (shown.batch,))]
            losses = adversary.discriminator_losses(_at(shown.pair, drawn, device))
            optimizer.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
            if step in marks and step <= steps:
                right = [_right(adversary, shown, index, device) for index in (learning, others)]
                found.append(Telling(step, *right))
    return found


@torch.no_grad()
def _right(adversary: Adversary, shown: Shown, index: torch.Tensor, device: torch.device) -> float:
    count = 0.0
    for part in index.split(max(64, shown.batch)):
        pair = _at(shown.pair, part, device)
        verdicts = [adversary.judge(each, pair) for each in (pair.real, pair.fake)]
        probabilities = adversary.objective.probabilities(*verdicts)
        if probabilities is None:
            raise UserError(
                f"The objective {type(adversary.objective).__name__} says of no sample whether it is real; probe "
                "another, such as MODEL.GAN.MASK.OBJECTIVE LeastSquares."
            )
        on_real, on_fake = (each.flatten(1).mean(1) if each.dim() > 1 else each for each in probabilities)
        count += float((on_real > 0.5).sum() + (on_fake <= 0.5).sum())
    return count / (2 * len(index))


@dataclass(frozen=True)
class _Classes:
    """All that a discriminator wants of samples."""

    classes: torch.Tensor

    def __len__(self) -> int:
        return len(self.classes)


def _at(pair: RealFakePair, index: torch.Tensor, device: torch.device) -> RealFakePair:
    real, fake, classes = (each[index].to(device) for each in (pair.real, pair.fake, pair.samples.classes))
    return replace(pair, real=real, fake=fake, samples=_Classes(classes))
