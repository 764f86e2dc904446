"""The discriminator's real side where most objects have no mask: those that have been seen before."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from detectron2.utils.events import get_event_storage
from torch import nn

from .samples import RealFakePair

_NOBODY = -1


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
