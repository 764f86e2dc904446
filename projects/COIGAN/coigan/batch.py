"""What the loader yields, as a batch on a device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Batch:
    """N samples; all values in [0, 1].

    Attributes:
        base: defect-free images (N, 3, H, W).
        inputs: what the generator sees: `base` and the noisy masks (N, 3 + n, H, W).
        masks: the clean masks that are asked for (N, n, H, W).
        defects: real defects on black, three channels for each class (N, 3n, H, W).
        reference: real images of any kind (N, 3, H, W); None where there are none.
    """

    base: torch.Tensor
    inputs: torch.Tensor
    masks: torch.Tensor
    defects: torch.Tensor
    reference: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.base)


def collate(items: Sequence[Mapping[str, torch.Tensor]], device: torch.device) -> Batch:
    """The loader's samples (thesis figure 4.15) as a batch."""

    def stack(key: str) -> torch.Tensor:
        return torch.stack([item[key] for item in items]).to(device, torch.float32, non_blocking=True)

    return Batch(
        base=stack("base"),
        inputs=stack("gen_input"),
        masks=stack("orig_gen_input_masks"),
        defects=stack("disc_input"),
        reference=stack("ref") if items and items[0].get("ref") is not None else None,
    )


def cut_defects(images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """What the defect discriminator sees of generated images: one canvas a class, black outside (thesis figure 4.18).

    Args:
        images: (N, 3, H, W).
        masks: (N, n, H, W).

    Returns:
        (N, 3n, H, W).
    """
    return (images[:, None] * masks[:, :, None]).flatten(1, 2)


def blend(images: torch.Tensor, base: torch.Tensor, masks: torch.Tensor, margin: int) -> torch.Tensor:
    """`images` under the masks dilated by a square of `margin` pixels, `base` elsewhere; margin -1: `images`.

    The reference discriminator lets the generator change the background too (thesis 4.4.4); this undoes it.
    """
    if margin < 0:
        return images
    union = masks.amax(1, keepdim=True)
    near = F.max_pool2d(union, 2 * margin + 1, stride=1, padding=margin) > 0
    return torch.where(near, images, base)
