"""What a discriminator of masks sees: predicted masks and their truth, from tensors the mask head computes anyway."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode

from gan_plugin.config import check_choice
from gan_plugin.layers.straight_through import straight_through_binarize

# The mask head hands its samples to the model under this key of its loss dictionary; the model takes them out.
SAMPLES_KEY = "gan/mask_samples"


@dataclass(frozen=True)
class MaskSamples:
    """The foreground RoIs of one forward pass, R of them over all images.

    Attributes:
        logits: (R, M, M), the predicted mask of the ground-truth class; carries the generator's gradient.
        truth: (R, M, M), the annotated mask in the same box on the same grid, values in [0, 1].
        matched: (R,) bool, the predictions that count as matched with their truth.
    """

    logits: torch.Tensor
    truth: torch.Tensor
    matched: torch.Tensor

    def __len__(self) -> int:
        return len(self.logits)

    def detach(self) -> "MaskSamples":
        """The same samples without gradient, as the discriminator's own loss wants them."""
        return MaskSamples(self.logits.detach(), self.truth, self.matched)


@dataclass(frozen=True)
class MaskPresenter:
    """Turns masks on the head's grid into a discriminator's input (thesis 5.4.1, 5.6.1, 5.7).

    Attributes:
        size: side S of the input in pixels.
        fake: "soft" or "straight_through" (binarised forward, the probabilities' gradient backward).
        noise: standard deviation of Gaussian noise on real and fake alike, in units of the input's [-1, 1].
    """

    size: int
    fake: str = "soft"
    noise: float = 0.0

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "MaskPresenter":
        mask = cfg.MODEL.GAN.MASK
        fake = check_choice("MODEL.GAN.MASK.FAKE", mask.FAKE)
        return cls(size=mask.INPUT_SIZE, fake=fake, noise=mask.INSTANCE_NOISE)

    def real(self, samples: MaskSamples) -> torch.Tensor:
        """(R, 1, S, S) annotated masks in [-1, 1]."""
        return self._present(samples.truth)

    def predicted(self, samples: MaskSamples) -> torch.Tensor:
        """(R, 1, S, S) predicted masks in [-1, 1], with the gradient of `samples.logits`."""
        probabilities = samples.logits.sigmoid()
        if self.fake == "straight_through":
            probabilities = straight_through_binarize(probabilities)
        return self._present(probabilities)

    def _present(self, masks: torch.Tensor) -> torch.Tensor:
        # Real and fake take the same path, or the discriminator would learn to see the resampling.
        resized = F.interpolate(masks[:, None], size=(self.size, self.size), mode="bilinear", align_corners=False)
        scaled = resized * 2 - 1
        return scaled + self.noise * torch.randn_like(scaled) if self.noise > 0 else scaled


def reconstruction_loss(samples: MaskSamples) -> torch.Tensor:
    """Mean absolute error between predicted probabilities and truth over the matched pairs (thesis 4.3.3, eq 4.4).

    A zero that still reaches every logit where nothing matched.
    """
    matched = samples.matched
    if not bool(matched.any()):
        return samples.logits.sum() * 0
    return (samples.logits[matched].sigmoid() - samples.truth[matched]).abs().mean()
