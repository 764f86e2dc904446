"""How a training sample comes about and what is done with it, shown on samples of a prepared data set."""

import numpy as np
import torch

from coigan.data.noise import MaskNoise
from coigan.data.placer import Placement, Placer
from coigan.data.prepared import Prepared
from coigan.data.samples import SampleSource
from gan_plugin.engine.rng import preserved_rng

from . import pictures
from .page import Section, drawing, photo
from .pipeline import draw_pipeline
from .training_steps import extraction_steps, l1_steps, pasted

_DRAWS = 12
_TENSORS = {
    "base": "base: a defect-free tile",
    "gen_input": "gen_input, what the generator sees: the base image, then a noisy mask for each class",
    "disc_input": "disc_input, what is real to the discriminator of defects: a canvas for each class",
    "orig_gen_input_masks": "orig_gen_input_masks: the clean mask of each class, the label of what is painted",
    "gen_input_union_mask": "gen_input_union_mask: all masks in one",
    "ref": "ref, what is real to the reference discriminator: any training tile",
}


def loading_sections(prepared: Prepared, placer: Placer, seed: int) -> list[Section]:
    """Placing, noise, a sample, and what training does with it (figures 4.1, 4.2, 4.11 to 4.16 and 4.18)."""
    # the fullest of a few, because most hold one object
    drawn = [placer.place(np.random.default_rng([seed, number])) for number in range(_DRAWS)]
    placement = max(drawn, key=lambda one: len(one.objects))
    plain = MaskNoise(smooth=0)
    noise = MaskNoise(scales=(1, 8, 16), smooth=min(41, prepared.tile // 6))
    source = SampleSource(prepared.tiles("base"), prepared.tiles("train"), _Always(placement), noise)
    with preserved_rng(seed=seed):
        sample = source.draw()
    mask = placement.masks[placement.objects[0][0]]
    classes = ", ".join(prepared.classes)
    return [
        Section(
            "Objects placed",
            "Above: a canvas a class, black where there is no object. Below: the masks.",
            [photo(pictures.placed(placement), f"classes {classes}")],
        ),
        Section(
            "Noise in a mask",
            "From left: the mask, its softened form, the noise (stretched to be seen), and the noisy mask that the "
            "generator gets.",
            [
                photo(pictures.noise_steps(mask, plain, seed), "one scale, not softened; mean 0.5 and deviation 0.08"),
                photo(
                    pictures.noise_steps(mask, noise, seed), f"scales 1, 8 and 16 summed, softened by {noise.smooth}"
                ),
            ],
        ),
        Section(
            "The scales of the noise",
            "Noise drawn at 1, 1/8 and 1/16 of the size and enlarged, and the sum of these, each stretched to be seen.",
            [photo(pictures.noise_scales(mask.shape, noise, seed), "from left: scale 1, 8, 16, and their sum")],
        ),
        Section(
            "A training sample",
            "The channels of each tensor from left to right.",
            [
                photo(row, f"{_TENSORS[name]} ({len(sample[name])} channel{'s'[: len(sample[name]) > 1]})")
                for name, row in pictures.sample_layout(sample).items()
            ],
        ),
        *_training(sample, placement, classes, seed),
    ]


def _training(sample: dict[str, torch.Tensor], placement: Placement, classes: str, seed: int) -> list[Section]:
    stand_in = "Real objects on the base image stand for the painted picture here, since a data set has no generator."
    steps, caption = l1_steps(sample["base"], sample["gen_input_union_mask"], seed)
    return [
        Section(
            "What the discriminator of defects sees",
            f"A painted picture is cut by the mask of each class, black elsewhere. {stand_in}",
            [
                photo(
                    extraction_steps(sample, placement), f"The picture, then one cut for each of the classes {classes}."
                )
            ],
        ),
        Section(
            "The smooth masked L1 loss",
            "Weights outside of the mask 1, inside 0, smoothed by a square of 5 pixels. Noise under the mask stands "
            "for a painted defect, so that without smoothing the loss would be 0: what is left keeps the border close "
            "to the base image.",
            [photo(steps, caption)],
        ),
        Section(
            "How it is trained",
            f"Tensors in the colour of text, gradients of the losses dashed. {stand_in}",
            [drawing(draw_pipeline(sample, pasted(sample["base"], placement)))],
        ),
    ]


class _Always(Placer):
    """Places what it is given."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement

    def place(self, rng: np.random.Generator, own_overlap: bool = False) -> Placement:
        """The placement, whatever `rng` draws."""
        return self._placement
