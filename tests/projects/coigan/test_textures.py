"""What decides the texture of painted defects: up steps without a checkerboard, and contrast that a judge can see."""

import pytest
import torch
from coigan.modeling import LamaFourier, PatchDiscriminator, WaveletDiscriminator
from coigan.modeling.layers import stretch_contrast

from gan_plugin.errors import UserError


def spread_of_a_flat_image(upsample):
    """How much the middle of the result varies when all pixels of the image are alike; borders know where they are."""
    torch.manual_seed(0)
    generator = LamaFourier(4, width=8, downs=2, blocks=1, upsample=upsample).eval()
    with torch.no_grad():
        middle = generator(torch.full((1, 4, 64, 64), 0.5))[..., 24:40, 24:40]
    return (middle.amax((2, 3)) - middle.amin((2, 3))).max().item()


def test_resized_up_steps_leave_no_checkerboard():
    assert spread_of_a_flat_image("resize") < 1e-6 < 1e-3 < spread_of_a_flat_image("transposed")
    with pytest.raises(UserError, match="UPSAMPLE is 'nearest', which is unknown; .* ones are 'transposed', 'resize'"):
        LamaFourier(4, 8, upsample="nearest")


def test_contrast_is_stretched_canvas_by_canvas():
    canvases = torch.zeros(2, 6, 2, 3)
    canvases[0, 3:, 0, 0] = torch.tensor([0.1, 0.2, 0.3])
    canvases[0, 3:, 1, 2] = torch.tensor([0.4, 0.0, 0.2])
    stretched = stretch_contrast(canvases, 5)
    mean = (0.1 + 0.2 + 0.3 + 0.4 + 0.0 + 0.2) / 6
    expected = torch.zeros_like(canvases)
    for pixel in ((0, 0), (1, 2)):
        for colour in range(3, 6):
            expected[(0, colour, *pixel)] = mean + 5 * (canvases[(0, colour, *pixel)] - mean)
    torch.testing.assert_close(stretched, expected)
    assert stretch_contrast(canvases, 1) is canvases


@pytest.mark.parametrize(
    "make", [lambda c: WaveletDiscriminator(6, 32, 8, 1, contrast=c), lambda c: PatchDiscriminator(6, 8, 1, contrast=c)]
)
def test_judges_look_at_the_stretched_canvases(make):
    canvases = torch.rand(4, 6, 32, 32, generator=torch.Generator().manual_seed(0)) + 0.01
    plain, stretching = make(1.0), make(3.0)
    stretching.load_state_dict(plain.state_dict())
    torch.testing.assert_close(stretching(canvases), plain(stretch_contrast(canvases, 3.0)))
    assert not torch.allclose(stretching(canvases), plain(canvases))
