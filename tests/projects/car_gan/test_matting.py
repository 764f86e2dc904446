"""Keying against composites whose alpha and colours are known."""

import numpy as np
import pytest
from car_gan.compose.place import scale_sprite
from car_gan.compose.samples import Sprite
from car_gan.matting import key_out, largest_blob, leak_map, unmix
from car_gan.pictures import GREEN
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gan_plugin.errors import UserError

SIDE = 48
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE].astype(float)


def soft_disc(softness):
    """Alpha of a disc whose border takes `softness` pixels from 1 to 0."""
    distance = np.hypot(ROWS - 23.3, COLUMNS - 24.1)
    return np.clip((16 - distance) / softness + 0.5, 0, 1)


def over(colours, alpha, key):
    return alpha[..., None] * colours + (1 - alpha[..., None]) * np.array(key, float)


colours = st.tuples(*[st.integers(0, 255)] * 3).filter(lambda c: c[1] - max(c[0], c[2]) <= 30)


@settings(max_examples=40, deadline=None)
@example((0, 0, 158), 2.0)
@given(colours, st.sampled_from([0.5, 1.0, 2.0]))
def test_a_car_of_one_colour_is_recovered_exactly(colour, softness):
    """Any colour that is not greener than a lawn in shade; the alpha is exact up to a pixel's width of border."""
    alpha = soft_disc(softness)
    car = np.broadcast_to(np.array(colour, float), (SIDE, SIDE, 3))
    found_colours, found = key_out(over(car, alpha, GREEN), GREEN)
    assert np.abs(found - alpha).max() < 1e-3
    solid = alpha > 0.2
    assert np.abs(found_colours[solid] - car[solid]).max() < 0.5


def test_textures_shades_and_rounding_cost_little():
    """Stripes from near black to near white and a red cast: brightness says nothing of alpha."""
    alpha = soft_disc(1.5)
    shade = 20 + 215 * (np.sin(COLUMNS / 2) * 0.5 + 0.5) * (0.5 + 0.5 * ROWS / SIDE)
    car = np.stack([shade, shade * 0.8, shade * 0.7], axis=-1)
    found_colours, found = key_out(np.rint(over(car, alpha, GREEN)), GREEN)
    assert np.abs(found - alpha).max() < 0.12 and np.abs(found - alpha).mean() < 0.004
    assert found[alpha == 0].max() == 0 and found[alpha == 1].min() > 0.95
    # no spill: nowhere is the car greener than it is red
    visible = found > 0.05
    assert (found_colours[visible][:, 1] <= found_colours[visible][:, 0] + 1).all()
    # laid over another ground it looks as it should
    ground = np.array((90.0, 90, 100))
    shown, right = over(found_colours, found, ground), over(car, alpha, ground)
    assert np.abs(shown - right).mean() < 1


def test_any_strong_key_works_and_a_grey_one_is_refused():
    alpha = soft_disc(1.0)
    car = np.broadcast_to(np.array((200.0, 120, 60)), (SIDE, SIDE, 3))
    blue = (20, 20, 240)
    assert np.abs(key_out(over(car, alpha, blue), blue)[1] - alpha).max() < 1e-3
    with pytest.raises(UserError, match="too grey to be keyed"):
        key_out(car, (120, 130, 120))


def test_nothing_but_green_has_no_car():
    _, alpha = key_out(np.broadcast_to(np.array(GREEN), (8, 8, 3)), GREEN)
    assert alpha.max() == 0 and largest_blob(alpha).max() == 0


def test_low_and_high_stretch_alpha():
    alpha = soft_disc(4.0)
    car = np.broadcast_to(np.array((100.0, 100, 100)), (SIDE, SIDE, 3))
    _, stretched = key_out(over(car, alpha, GREEN), GREEN, low=0.1, high=0.9)
    assert np.abs(stretched - np.clip((alpha - 0.1) / 0.8, 0, 1)).max() < 2e-3


def test_specks_are_left_out():
    alpha = soft_disc(1.0)
    alpha[2:5, 2:5] = 1.0
    alpha[44, 44] = 0.3
    assert np.allclose(largest_blob(alpha), soft_disc(1.0) * (alpha != 0.3))


def test_known_alpha_is_unmixed():
    alpha = soft_disc(2.0)
    car = np.broadcast_to(np.array((180.0, 40, 90)), (SIDE, SIDE, 3))
    found = unmix(over(car, alpha, GREEN).astype(np.float32), alpha.astype(np.float32), GREEN)
    assert np.abs(found - car)[alpha > 0].max() < 0.5


def test_the_leak_map_is_where_it_is_neither():
    half = np.full((6, 6, 3), 100.0)
    half[:, :2] = GREEN
    # a column of half grey and half green beside solid grey: alpha 1/2
    half[:, 2] = (np.array(GREEN) + 100.0) / 2
    leak, mean = leak_map([half, half], GREEN)
    expected = np.zeros((6, 6))
    expected[:, 2] = 1
    assert np.abs(leak - expected).max() < 0.02 and mean == pytest.approx(1 / 6, abs=0.01)


@pytest.mark.parametrize("size", [(9, 7), (61, 75)])
def test_scaling_brings_no_rim_of_the_key(size):
    """Under the transparent pixels the sprite is bright green; nothing of it shows after scaling."""
    alpha = soft_disc(1.0).astype(np.float32)
    colours = np.where(alpha[..., None] > 0, 100.0, np.array(GREEN, float)).astype(np.float32)
    scaled = scale_sprite(Sprite("x", colours, alpha), size)
    assert scaled.alpha.shape == size[::-1]
    assert np.abs(scaled.colours[scaled.alpha > 0.02] - 100).max() < 1
    assert scaled.alpha.mean() == pytest.approx(alpha.mean(), abs=0.03)
