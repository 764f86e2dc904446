"""What a batch becomes, and the picture of it."""

import torch
from coigan.batch import blend, collate, cut_defects
from coigan.visualization.grid import comparison_grid


def test_defects_are_cut_out_by_class():
    images = torch.arange(12.0).view(1, 3, 2, 2)
    masks = torch.tensor([[[[1.0, 0], [0, 0]], [[0, 0], [0, 1.0]]]])
    canvases = cut_defects(images, masks)
    assert canvases[0, :3, 0, 0].tolist() == [0, 4, 8] and canvases[0, 3:, 1, 1].tolist() == [3, 7, 11]
    assert canvases[0, :3, 1, 1].abs().sum() == 0 and canvases[0, 3:, 0, 0].abs().sum() == 0


def test_the_blend_keeps_the_background():
    base, images = torch.zeros(1, 3, 7, 7), torch.ones(1, 3, 7, 7)
    masks = torch.zeros(1, 2, 7, 7)
    masks[0, 1, 3, 3] = 1
    assert blend(images, base, masks, -1) is images
    mixed = blend(images, base, masks, 1)[0, 0]
    assert mixed.sum() == 9 and mixed[2:5, 2:5].min() == 1
    assert blend(images, base, masks, 0).sum() == 3


def test_a_batch_of_the_loaders_samples():
    item = {
        "base": torch.rand(3, 4, 4),
        "gen_input": torch.rand(5, 4, 4),
        "orig_gen_input_masks": torch.ones(2, 4, 4),
        "disc_input": torch.rand(6, 4, 4),
    }
    batch = collate([item, item], torch.device("cpu"))
    assert len(batch) == 2 and batch.reference is None and batch.inputs.shape == (2, 5, 4, 4)


def test_the_picture_has_a_row_for_each_sample():
    grid = comparison_grid(torch.zeros(2, 3, 4, 5), torch.zeros(2, 1, 4, 5), torch.ones(2, 3, 4, 5))
    assert grid.shape == (3, 10, 19)
    assert grid[:, :4, :5].max() == 0 and grid[:, :4, 14:].min() == 1 and grid[:, 4:6].min() == 1
