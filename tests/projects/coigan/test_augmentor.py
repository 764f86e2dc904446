"""Augmentation of images with their masks, against images worked by hand and torchvision itself."""

import pytest
import torch
from coigan.data.placer import PRESETS, Augmentor, BackgroundChannel, SomeOf, augmentor_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.transforms import v2


def _coded(height=20, width=30):
    """An image whose red and green say where a pixel came from, and masks with the same code."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([rows + 1, columns + 1, torch.full_like(rows, 255)]).to(torch.uint8)
    return image, torch.stack([rows + 1, columns + 1]).to(torch.uint8)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_image_and_masks_move_together(seed):
    image, codes = _coded()
    moved, masks = Augmentor([v2.RandomHorizontalFlip(0.5), v2.RandomVerticalFlip(0.5)])(image, codes, seed)
    assert moved.shape[1:] == masks.shape[1:] == (20, 30)
    assert torch.equal(moved[:2], masks) and (masks > 0).all()


def test_colour_changes_leave_the_masks_alone_and_seeds_decide():
    image, codes = _coded()
    jitter = Augmentor(image_only=[v2.ColorJitter(0.5, 0.5, 0.5, 0.5)])
    state = torch.get_rng_state()
    first, masks = jitter(image, codes, 5)
    assert torch.equal(masks, codes) and not torch.equal(first, image)
    assert torch.equal(jitter(image, codes, 5)[0], first) and not torch.equal(jitter(image, codes, 6)[0], first)
    assert torch.equal(torch.get_rng_state(), state)


class _Add(nn.Module):
    def __init__(self, amount):
        super().__init__()
        self.amount = amount

    def forward(self, tensor):
        return tensor + self.amount


def test_the_upper_count_is_reached():
    chooser = SomeOf([_Add(1), _Add(10)], 0, 2)
    torch.manual_seed(0)
    found = {int(chooser(torch.zeros(1))) for _ in range(200)}
    assert found == {0, 1, 10, 11}


def test_base_images_are_flipped_either_way():
    image, codes = _coded()
    flip = augmentor_of("base")
    corners = {tuple(flip(image, codes, seed)[1][:, 0, 0].tolist()) for seed in range(40)}
    assert corners == {(1, 1), (20, 1), (1, 30), (20, 30)}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_runs_on_images_and_on_bare_masks(name):
    image, _ = _coded(40, 60)
    masks = torch.zeros((3, 40, 60), dtype=torch.bool)
    masks[0, 10:30, 20:40] = True
    masks[2] = ~masks[0]
    changed, moved = augmentor_of(name)(image, masks, 3)
    _, bare = augmentor_of(name)(None, masks, 3)
    assert changed.dtype == torch.uint8 and moved.dtype == torch.bool and changed.shape[1:] == moved.shape[1:]
    assert bare.shape == moved.shape and bare.any()
    if name == "defects_background":
        assert (moved.sum(0) == 1).all()


def test_uncovered_corners_are_background():
    masks = torch.ones((2, 21, 21), dtype=torch.bool)
    masks[1] = False
    both = [v2.RandomRotation((35, 35)), BackgroundChannel()]
    _, turned = Augmentor(both)(None, masks, 0)
    assert turned[1, 0, 0] and not turned[0, 0, 0] and not turned[1, 10, 10]
