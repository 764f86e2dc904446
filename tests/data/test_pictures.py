"""Pictures are read as Detectron2's own `read_image` does, and what that would turn into something else is refused."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from PIL import Image

from gan_plugin.data import pictures
from gan_plugin.data.pictures import decode_problem, header_problem, read_header, read_rgb, read_rgba
from gan_plugin.errors import UserError

FORMATS = {
    "jpg": ("L", "RGB", "CMYK"),
    "png": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "webp": ("RGB", "RGBA"),
    "avif": ("RGB", "RGBA"),
    "bmp": ("1", "L", "P", "RGB"),
    "tif": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"),
}
CASES = [(suffix, mode) for suffix, modes in FORMATS.items() for mode in modes]


def picture(mode="RGB"):
    """12x8 pixels without any symmetry."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 4), dtype=np.uint8)
    return Image.fromarray(pixels[..., :3] if mode not in ("LA", "RGBA") else pixels).convert(mode)


def exif(orientation):
    content = Image.Exif()
    content[0x0112] = orientation
    return content.tobytes()


def with_late_chunk(path, kind, content):
    """Put a chunk between a PNG's pixels and its end."""
    data = path.read_bytes()
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    path.write_bytes(data[:-12] + chunk + data[-12:])


@pytest.mark.parametrize(("suffix", "mode"), CASES)
def test_every_mode_and_orientation_is_read_as_detectron2_reads_it(tmp_path, suffix, mode):
    path = tmp_path / f"a.{suffix}"
    for orientation in range(1, 9) if suffix in ("jpg", "png", "webp", "avif") else (1,):
        picture(mode).save(path, **({"exif": exif(orientation)} if orientation > 1 else {}))
        truth = read_image(str(path), "RGB")
        np.testing.assert_array_equal(read_rgb(path), truth)
        header = read_header(path)
        assert (header.height, header.width) == truth.shape[:2] and header.orientation == orientation
        assert decode_problem(path, *truth.shape[1::-1]) is None
        opaque = read_rgba(path)
        assert opaque.shape[:2] == truth.shape[:2]
        assert (opaque[..., 3] < 255).any() == header.transparent == (mode in ("LA", "RGBA"))
        problem = header_problem(path, truth.shape[1] + 1, truth.shape[0])
        assert problem.kind is (pictures.OTHER_SIZE if orientation == 1 else pictures.TURNED)
        assert str(path) in problem.sentence and (f"orientation {orientation}:" in problem.sentence) == (
            orientation > 1
        )


def test_a_turned_picture_that_is_annotated_as_stored_is_told_both_sizes_and_the_way_out(tmp_path):
    path = tmp_path / "a.jpg"
    picture().save(path, exif=exif(6))
    sentence = header_problem(path, 12, 8).sentence
    for part in (str(path), "EXIF orientation", "orientation 6: 8x12 pixels, stored as 12x8, not 12x8", "as a viewer"):
        assert part in sentence
    with pytest.raises(UserError, match="orientation 6"):
        read_rgb(path, (12, 8))


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"eXIf", exif(6).removeprefix(b"Exif\0\0")),
        (b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
        (b"tEXt", b"Raw profile type exif\0\nexif\n      %d\n%s\n" % (len(exif(6)), exif(6).hex().encode())),
    ],
)
def test_an_orientation_behind_the_pixels_of_a_png_is_seen_without_decoding(tmp_path, kind, content):
    path = tmp_path / "a.png"
    picture().save(path)
    with_late_chunk(path, kind, content)
    np.testing.assert_array_equal(read_rgb(path), read_image(str(path), "RGB"))
    assert read_header(path)[:3] == (8, 12, 6)


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_a_tiff_that_detectron2_turns_twice_is_refused(tmp_path, orientation):
    content = Image.Exif()
    content[0x0112] = orientation
    picture().save(tmp_path / "a.tif", exif=content)
    assert header_problem(tmp_path / "a.tif").kind is pictures.TURNED_TWICE


@pytest.mark.parametrize(
    ("suffix", "dtype", "channels"),
    [
        *[(suffix, np.uint16, channels) for suffix in ("png", "tif") for channels in (1, 3, 4)],
        *[("pgm", np.uint16, 1), ("tif", np.int32, 1), ("tif", np.float32, 1)],
    ],
)
def test_more_than_8_bits_are_refused_by_the_header(tmp_path, suffix, dtype, channels):
    path = tmp_path / f"a.{suffix}"
    values = np.random.default_rng(0).integers(0, 4096, (8, 12, channels)).astype(dtype)
    if channels == 1:
        Image.fromarray(values[..., 0]).save(path, **({"format": "PPM"} if suffix == "pgm" else {}))
    else:
        assert cv2.imwrite(str(path), values)
    problem = header_problem(path, 12, 8)
    assert problem.kind is pictures.DEEP and str(path) in problem.sentence and "8 bits" in problem.sentence
    with pytest.raises(UserError, match="8 bits"):
        read_rgb(path)


def test_what_is_missing_no_picture_or_cut_off_is_told_apart(tmp_path):
    path = tmp_path / "a.png"
    assert header_problem(path).kind is pictures.MISSING and header_problem(tmp_path).kind is pictures.MISSING
    path.write_text("no picture")
    assert header_problem(path).kind is pictures.UNDECODABLE
    path.touch()
    picture().save(path)
    path.write_bytes(path.read_bytes()[:150])
    assert header_problem(path, 12, 8) is None and decode_problem(path, 12, 8).kind is pictures.UNDECODABLE
    with pytest.raises(UserError, match=f"{path}: the image cannot be decoded"):
        read_rgb(path)
