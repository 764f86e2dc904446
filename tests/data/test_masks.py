"""A mask is the same in every form that it may be saved in; what is not clear is refused."""

import glob
import itertools

import cv2
import numpy as np
import pytest
from PIL import Image

from gan_plugin.data.masks import read_mask
from gan_plugin.errors import UserError


def drawn(kind):
    """(40, 56) bool: nothing, everything, or two marks without symmetry, one of them at the border."""
    mask = np.full((40, 56), kind == "full")
    if kind == "marks":
        mask[5:20, 8:30] = mask[30:, 50:] = True
    return mask


def grey(mask, inside=255, dtype=np.uint8):
    return Image.fromarray(mask.astype(dtype) * dtype(inside))


def palette(mask, *colours):
    picture = grey(mask, 1)
    picture.putpalette([value for colour in colours for value in colour])
    return picture


def with_alpha(colour, alpha):
    return Image.fromarray(np.dstack([np.broadcast_to(np.uint8(colour), (*alpha.shape, 3)), alpha]))


def canvas(mask, colour):
    """Strokes of a colour on a canvas that is transparent and black elsewhere."""
    return Image.fromarray(mask[..., None] * np.uint8([*colour, 255]))


FORMS = {
    "8 bits": grey,
    "0 and 1": lambda mask: grey(mask, 1),
    "dark grey": lambda mask: grey(mask, 38),
    "16 bits of 0 and 1": lambda mask: grey(mask, 1, np.uint16),
    "16 bits": lambda mask: grey(mask, 65535, np.uint16),
    "16 bits of 0 and 255": lambda mask: grey(mask, 255, np.uint16),
    "1 bit": lambda mask: grey(mask).convert("1"),
    "palette of Pascal VOC": lambda mask: palette(mask, (0, 0, 0), (128, 0, 0)),
    "palette the other way round": lambda mask: palette(~mask, (255, 255, 255), (0, 0, 0)),
    "palette of greys": lambda mask: grey(mask).convert("P"),
    "colours": lambda mask: grey(mask).convert("RGB"),
    "green": lambda mask: Image.fromarray(mask[..., None] * np.uint8([0, 200, 40])),
    "opaque": lambda mask: grey(mask).convert("RGBA"),
    "grey and opaque": lambda mask: grey(mask, 1).convert("LA"),
    "white and transparent": lambda mask: with_alpha((255, 255, 255), np.uint8(mask * 255)),
    "black and transparent": lambda mask: with_alpha((0, 0, 0), np.uint8(mask * 255)),
    "alpha of 0 and 1": lambda mask: with_alpha((255, 255, 255), np.uint8(mask)),
    "canvas": lambda mask: canvas(mask, (255, 255, 255)),
    "red canvas": lambda mask: canvas(mask, (220, 30, 30)),
    "grey with alpha": lambda mask: with_alpha((255, 255, 255), np.uint8(mask * 255)).convert("LA"),
}
# forms that PNG does not have
DEEP = {
    "32 bits": lambda mask: grey(mask, 1, np.int32),
    "floats": lambda mask: grey(mask, 1, np.float32),
}
# whether such a picture is all or nothing cannot be seen
NOT_FULL = ("dark grey", "palette of Pascal VOC", "green", "black and transparent", "red canvas")


@pytest.mark.parametrize(("form", "suffix"), [*itertools.product(FORMS, ["png"]), *itertools.product(DEEP, ["tif"])])
def test_every_form_gives_the_same_mask(tmp_path, form, suffix):
    path = tmp_path / f"mask.{suffix}"
    for kind in ("empty", "marks") if form in NOT_FULL else ("empty", "full", "marks"):
        (FORMS | DEEP)[form](drawn(kind)).save(path)
        found = read_mask(path)
        assert found.dtype == bool
        np.testing.assert_array_equal(found, drawn(kind))


def test_a_drawing_with_a_transparent_margin_is_read_by_its_colours(tmp_path):
    mask = drawn("marks")
    pixels = np.array(grey(mask).convert("RGBA"))
    pixels[:3] = pixels[:, :4] = 0
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), mask)


@pytest.mark.parametrize(
    ("suffix", "dtype"), [("jpg", np.uint8), ("png", np.uint8), ("png", np.uint16), ("tif", np.float32)]
)
def test_grey_edges_are_cut_at_the_half(tmp_path, suffix, dtype):
    soft = cv2.GaussianBlur(np.uint8(drawn("marks") * 255), (0, 0), 1.5)
    stored = {np.uint8: soft, np.uint16: soft * np.uint16(257), np.float32: soft / np.float32(255)}[dtype]
    Image.fromarray(stored).save(tmp_path / f"mask.{suffix}", **({"quality": 90} if suffix == "jpg" else {}))
    found = read_mask(tmp_path / f"mask.{suffix}")
    unsure = (soft > 118) & (soft < 138)
    np.testing.assert_array_equal(found[~unsure], (soft > 127)[~unsure])


def test_an_orientation_turns_the_mask_as_its_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    grey(drawn("marks")).save(tmp_path / "mask.png", exif=exif)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), np.rot90(drawn("marks"), -1))


def labels(*values, dtype=np.uint8):
    """A map of labels: areas of some values."""
    return Image.fromarray(np.repeat(np.repeat(np.resize(np.array(values, dtype), (5, 7)), 8, 0), 8, 1))


@pytest.mark.parametrize(
    ("picture", "complaint"),
    [
        (labels(0, 1, 2), "values 0, 1, 2"),
        (labels(0, 1, 255), "values 0, 1, 255"),
        (labels(0, 128, 255), "values 0, 128, 255"),
        (labels(*range(0, 256, 10)), "26 values from 0 to 250"),
        (labels(*range(5000, 5030), dtype=np.uint16), "30 values from 5000 to 5029"),
        (labels(100, 200), "values 100, 200"),
        (labels(7), "value"),
        (Image.fromarray(np.random.default_rng(0).integers(90, 160, (40, 56), dtype=np.uint8)), "values from"),
        (Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)), "several colours"),
        (palette(drawn("marks"), (255, 255, 255), (255, 0, 0)), "several colours"),
        (palette(drawn("marks"), (68, 1, 84), (253, 231, 37)), "values 84, 253"),
        (Image.fromarray(np.float32(drawn("marks") * np.nan)), "values"),
    ],
)
def test_what_is_not_clear_is_refused_with_the_values(tmp_path, picture, complaint):
    path = tmp_path / "mask.tif"
    picture.save(path)
    with pytest.raises(UserError, match=complaint) as caught:
        read_mask(path)
    assert str(path) in str(caught.value) and "0 outside and 255 inside" in str(caught.value)


def test_colours_of_16_bits_are_refused(tmp_path):
    assert cv2.imwrite(str(tmp_path / "mask.png"), np.repeat(drawn("marks")[..., None], 3, 2).astype(np.uint16))
    with pytest.raises(UserError, match="8 bits"):
        read_mask(tmp_path / "mask.png")


def test_real_masks_of_magnetic_tiles_are_what_their_half_grey_says(data_root):
    files = sorted(glob.glob(str(data_root / "magnetic_tiles/*/Imgs/*.png")))[::9]
    assert len(files) > 40
    for file in files:
        np.testing.assert_array_equal(read_mask(file), np.array(Image.open(file)) > 127)
