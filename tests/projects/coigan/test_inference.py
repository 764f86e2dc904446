"""Painting images of any size: seams, seeds, strength, the background."""

import numpy as np
import pytest
import torch
from coigan.config import load_config
from coigan.inference import Inpainter, TrainedGenerator, digest_of, paint_large, starts
from coigan.modeling.build import build_generator
from coigan_samples import CLASSES, SMALL
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_plugin.errors import UserError


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(2, 40), st.data())
def test_tiles_cover_all_and_overlap_enough(length, tile, data):
    overlap = data.draw(st.integers(0, tile - 1))
    places = starts(length, tile, overlap)
    assert places[0] == 0 and (length <= tile or places[-1] + tile == length)
    assert all(after - before <= tile - overlap for before, after in zip(places, places[1:], strict=False))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_a_painter_that_changes_nothing_changes_nothing(height, width):
    image, masks = torch.rand(3, height, width), torch.ones(1, height, width)
    result = paint_large(lambda tiles, parts: tiles, image, masks, tile=16, overlap=4, batch=3)
    torch.testing.assert_close(result, image)


def test_seams_fade():
    """Tiles painted in different greys: next to each other pixels differ by no more than a step of the ramp."""
    count = 0

    def paint(tiles, parts):
        nonlocal count
        values = torch.arange(count, count + len(tiles)).float() % 2
        count += len(tiles)
        return values.view(-1, 1, 1, 1).expand_as(tiles)

    result = paint_large(paint, torch.zeros(3, 16, 64), torch.ones(1, 16, 64), tile=16, overlap=4)
    assert result.min() == 0 and result.max() == 1
    assert (result[..., 1:] - result[..., :-1]).abs().max() < 0.3


def test_tiles_without_a_mask_are_left_alone():
    seen = []

    def paint(tiles, parts):
        seen.append(len(tiles))
        return torch.ones_like(tiles)

    masks = torch.zeros(1, 16, 160)
    masks[0, 8, 80] = 1
    image = torch.rand(3, 16, 160)
    result = paint_large(paint, image, masks, tile=16, overlap=4)
    assert sum(seen) <= 2 and torch.allclose(result[..., :60], image[..., :60])
    with pytest.raises(UserError, match="cannot overlap"):
        starts(100, 16, 16)


@pytest.fixture(params=["LamaFourier", "StyleFFCUNet"])
def inpainter(request):
    small = ["MODEL.GENERATOR.STYLE_SIZE", "8", "MODEL.GENERATOR.MAPPING_LAYERS", "1"]
    cfg = load_config("", [*SMALL, *small, "MODEL.GENERATOR.NAME", request.param, "INPUT.CLASSES", str(CLASSES)])
    torch.manual_seed(0)
    # a fresh network answers everything by the same grey
    state = build_generator(cfg, len(CLASSES)).state_dict()
    weights = {name: value * 4 if value.dim() == 4 else value for name, value in state.items()}

    def noise(masks, draw):
        return masks * torch.randn(masks.shape, generator=draw)

    return Inpainter(TrainedGenerator(weights, cfg, digest_of(weights), "here"), noise, "cpu")


def test_an_image_of_any_size_is_painted_by_seed_and_strength(inpainter):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (21, 45, 3), np.uint8)
    masks = np.zeros((2, 21, 45), bool)
    masks[1, 8:14, 20:30] = True
    painted = inpainter.paint(image, masks, seed=3)
    assert painted.shape == image.shape and painted.dtype == np.uint8
    assert (painted == inpainter.paint(image, masks, seed=3)).all()
    assert (painted != inpainter.paint(image, masks, seed=4)).any()
    assert (inpainter.paint(image, masks, seed=3, strength=0) == image).all()
    assert (inpainter.paint(image, masks * False, seed=3) == image).all()
    half = inpainter.paint(image, masks, seed=3, strength=0.5).astype(float)
    assert np.abs(half - (image.astype(float) + painted) / 2).max() <= 1
    other = inpainter.paint(image, masks[::-1], seed=3)
    assert (painted[8:14, 20:30] != other[8:14, 20:30]).any()
    with pytest.raises(UserError, match="do not fit"):
        inpainter.paint(image, masks[:1])


def test_the_background_stays_where_it_is_asked_to(inpainter):
    image = np.random.default_rng(1).integers(0, 256, (16, 32, 3), np.uint8)
    masks = np.zeros((2, 16, 32), bool)
    masks[0, 5:9, 5:9] = True
    free, kept = inpainter.paint(image, masks, margin=-1), inpainter.paint(image, masks, margin=2)
    far = np.ones((16, 32), bool)
    far[3:11, 3:11] = False
    assert (free[far] != image[far]).any() and (kept[far] == image[far]).all()
    assert (kept[5:9, 5:9] != image[5:9, 5:9]).any()
    assert (kept[3:11, 3:11] == free[3:11, 3:11]).all()


def test_only_a_grey_image_gets_grey_defects(inpainter):
    grey = np.random.default_rng(2).integers(0, 256, (16, 16, 1), np.uint8).repeat(3, axis=2)
    masks = np.ones((2, 16, 16), bool)
    painted = inpainter.paint(grey, masks).astype(int)
    assert (painted == painted[..., :1]).all() and (painted != grey).any()
    # one pixel of another colour makes it a colour image, whose channels the generator paints one by one
    coloured = grey.copy()
    coloured[0, 0, 0] ^= 1
    free = inpainter.paint(coloured, masks).astype(int)
    assert (free != free[..., :1]).any()
    assert np.abs(free[8:, 8:].mean(2) - painted[8:, 8:, 0]).max() <= 3
