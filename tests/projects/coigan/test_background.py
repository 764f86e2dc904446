"""What painting changes outside of the masks, against a count pixel by pixel."""

import math

import pytest
import torch
from coigan.batch import Batch
from coigan.evaluation.protocol import BackgroundChange


def make_batch(seed):
    draw = torch.Generator().manual_seed(seed)
    base = torch.rand(2, 3, 5, 4, generator=draw)
    masks = (torch.rand(2, 2, 5, 4, generator=draw) > 0.8).float()
    return Batch(base, torch.cat([base, masks], 1), masks, torch.zeros(2, 6, 5, 4), None)


def test_changes_are_counted_in_and_outside_of_the_masks():
    change, inside, outside = BackgroundChange(), [], []
    for seed in (0, 1):
        batch = make_batch(seed)
        images = (batch.base + 0.1 * torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(9))).clamp(0, 1)
        assert change.watching(lambda batch, images=images: images)(batch) is images
        for n in range(2):
            for y in range(5):
                for x in range(4):
                    into = inside if batch.masks[n, :, y, x].any() else outside
                    for c in range(3):
                        new, old = (round(float(i[n, c, y, x]) * 255) for i in (images, batch.base))
                        into.append(new - old)
    results = change.results()
    assert results["L1_inside"] == pytest.approx(sum(map(abs, inside)) / len(inside))
    assert results["L1_outside"] == pytest.approx(sum(map(abs, outside)) / len(outside))
    square = sum(value**2 for value in outside) / len(outside)
    assert results["PSNR_outside"] == pytest.approx(20 * math.log10(255) - 10 * math.log10(square))


def test_an_untouched_background_has_no_finite_psnr():
    change, batch = BackgroundChange(), make_batch(0)
    asked = batch.masks.amax(1, keepdim=True) > 0
    change.add(torch.where(asked, 1 - batch.base, batch.base), batch)
    assert change.results()["L1_outside"] == 0 and change.results()["PSNR_outside"] is None
    assert change.results()["L1_inside"] > 0
    assert BackgroundChange().results() == {"L1_outside": None, "PSNR_outside": None, "L1_inside": None}
