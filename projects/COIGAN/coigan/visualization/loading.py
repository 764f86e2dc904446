"""How a training sample comes about and what is done with it, shown on samples of a prepared data set."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from coigan.batch import cut_defects
from coigan.data.placer import Placement, Placer
from coigan.data.samples import MaskNoise, SampleSource
from coigan.data.stages import Prepared
from coigan.losses.masked import smooth_mask, smooth_masked_l1, weight_map
from coigan.visualization import pictures
from coigan.visualization.charts import Section, drawing, photo
from gan_plugin.engine.distributed import preserved_rng
from gan_plugin.visualization.curves import COLOURS, INK, Curve, svg_of

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


# of figure 4.16
_KERNEL, _INSIDE, _OUTSIDE = 5, 0.0, 1.0
_NOISE = 0.25


def pasted(base: torch.Tensor, placement: Placement) -> torch.Tensor:
    """(3, S, S): the placed objects' own pixels on `base`."""
    result = base.clone()
    for mask, canvas in zip(placement.masks, placement.canvases, strict=True):
        pixels = torch.from_numpy(canvas).permute(2, 0, 1).float() / 255
        result = torch.where(torch.from_numpy(mask), pixels, result)
    return result


def extraction_steps(sample: dict[str, torch.Tensor], placement: Placement) -> np.ndarray:
    """An image and its cuts by the mask of each class, in a row (figure 4.18)."""
    image = pasted(sample["base"], placement)
    cuts = cut_defects(image[None], sample["orig_gen_input_masks"][None])[0]
    return pictures.side_by_side([pictures.coloured(part) for part in (image, *cuts.split(3))])


def l1_steps(base: torch.Tensor, union: torch.Tensor, seed: int) -> tuple[np.ndarray, str]:
    """The steps of the smooth masked L1 loss in a row, and a caption with its values (figure 4.16).

    Args:
        base: (3, S, S) in [0, 1].
        union: (1, S, S), 1 where a defect is asked for.
        seed: of the noise that stands for it.
    """
    draw = torch.Generator().manual_seed(seed)
    painted = (base + union * _NOISE * torch.randn(base.shape, generator=draw)).clamp(0, 1)
    masks = union[None]
    weights = weight_map(masks, _KERNEL, _INSIDE, _OUTSIDE)[0]
    raw = (painted - base).abs()
    steps = [pictures.coloured(base), pictures.coloured(painted)]
    greys = (_bright(raw), union, smooth_mask(masks, _KERNEL)[0], weights, _bright(weights * raw))
    steps += [pictures.grey(step.mean(0)) for step in greys]
    values = [
        float(smooth_masked_l1(painted[None], base[None], masks, kernel, _INSIDE, _OUTSIDE)) for kernel in (_KERNEL, 0)
    ]
    return pictures.side_by_side(steps), (
        "From left: base image, painted image, their absolute difference, mask, smoothed mask, weights, weighted "
        f"difference (differences brightened). The loss is {values[0]:.2g}; without smoothing {values[1]:.2g}."
    )


def _bright(values: torch.Tensor) -> torch.Tensor:
    return values / values.max().clamp(min=1e-6)


_WIDTH, _HEIGHT = 11.0, 5.6
_SIDE = 1.25
Point = tuple[float, float]
_ALT = (
    "Diagram. The base image and the noisy masks go into the generator, which gives the painted image. That goes into "
    "the smooth masked L1 and perceptual losses together with the base image and the masks; cut by the masks "
    "into the discriminator of defects, beside real defects; and whole into the reference discriminator, beside a "
    "training tile. The losses send their gradients back to the generator, the discriminators learn from their own."
)


def draw_pipeline(sample: dict[str, torch.Tensor], painted: torch.Tensor) -> Curve:
    """The diagram.

    Args:
        sample: of the loader.
        painted: (3, S, S) in [0, 1], what stands for the generator's result.
    """
    figure = Figure(figsize=(_WIDTH, _HEIGHT))
    FigureCanvasSVG(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    masks = sample["gen_input"][3:].amax(0)
    _picture(axes, 0.9, 4.2, pictures.coloured(sample["base"]), "base image")
    _picture(axes, 0.9, 2.0, pictures.grey(masks), "noisy masks")
    _box(axes, 3.0, 3.1, "generator", COLOURS[0])
    _picture(axes, 5.2, 3.1, pictures.coloured(painted), "painted image")
    _picture(axes, 7.2, 2.0, pictures.coloured(painted * sample["gen_input_union_mask"]), "painted defects")
    _picture(axes, 9.6, 3.4, _overlaid(sample["disc_input"]), "real defects")
    _box(axes, 9.6, 1.7, "discriminator\nof defects", COLOURS[1])
    _box(axes, 3.0, 5.1, "smooth masked\nL1, perceptual", COLOURS[2])
    if "ref" in sample:
        _picture(axes, 9.6, 5.2, pictures.coloured(sample["ref"]), "training tile")
        _box(axes, 7.2, 5.1, "reference\ndiscriminator", COLOURS[1])
    for start, end in _tensors("ref" in sample):
        _arrow(axes, start, end)
    for start, end, bend in _gradients("ref" in sample):
        _arrow(axes, start, end, bend, gradient=True)
    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(0, _HEIGHT + 0.4)
    return Curve("Tensors and gradients of training", svg_of(figure), _ALT)


def _tensors(reference: bool) -> list[tuple[Point, Point]]:
    """Start and end of what goes forward."""
    found = [
        ((1.6, 4.1), (2.3, 3.3)),
        ((1.6, 2.1), (2.3, 2.9)),
        ((3.7, 3.1), (4.5, 3.1)),
        ((5.9, 2.8), (6.5, 2.2)),
        ((7.9, 1.95), (8.8, 1.75)),
        ((9.6, 2.5), (9.6, 2.15)),
        ((1.6, 4.5), (2.2, 5.0)),
        ((4.9, 3.8), (3.75, 4.8)),
    ]
    return [*found, ((8.9, 5.1), (8.0, 5.1)), ((5.7, 3.8), (6.8, 4.7))] if reference else found


def _gradients(reference: bool) -> list[tuple[Point, Point, float]]:
    """Start, end and bend of what goes back to the generator."""
    found = [((3.0, 4.65), (3.0, 3.5), 0.0), ((9.2, 1.25), (3.0, 2.7), -0.3)]
    return [*found, ((6.35, 5.05), (3.5, 3.45), 0.1)] if reference else found


def _overlaid(canvases: torch.Tensor) -> np.ndarray:
    return pictures.coloured(canvases.unflatten(0, (-1, 3)).amax(0))


def _picture(axes: Axes, x: float, y: float, pixels: np.ndarray, title: str) -> None:
    half = _SIDE / 2
    axes.imshow(pixels, extent=(x - half, x + half, y - half, y + half), aspect="auto", interpolation="nearest")
    axes.text(x, y - half - 0.05, title, ha="center", va="top", fontsize=9, color=INK)


def _box(axes: Axes, x: float, y: float, title: str, colour: str) -> None:
    look = {"boxstyle": "round,pad=0.5", "facecolor": "none", "edgecolor": colour, "linewidth": 2}
    axes.text(x, y, title, ha="center", va="center", fontsize=10, color=INK, bbox=look)


def _arrow(axes: Axes, start: Point, end: Point, bend: float = 0.0, gradient: bool = False) -> None:
    look = {
        "arrowstyle": "->",
        "color": COLOURS[3] if gradient else INK,
        "linestyle": "--" if gradient else "-",
        "linewidth": 1.4,
        "connectionstyle": f"arc3,rad={bend}",
    }
    axes.annotate("", end, start, arrowprops=look)
