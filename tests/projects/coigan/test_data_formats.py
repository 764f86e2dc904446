"""Run lengths, regions, tiles and the line store, against pycocotools, naive loops and numbers from the thesis."""

import json
import multiprocessing
import struct

import numpy as np
import pytest
from coigan.data.images import write_png
from coigan.data.line_sets import LineStore, LineWriter
from coigan.data.objects import ObjectStore, write_objects
from coigan.data.prepare import tile_offsets
from coigan.data.regions import Region, components, decode_runs, encode_runs, from_record, tight, to_record
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as coco_mask

from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14))


def _ring():
    """A square ring around a pixel of its own."""
    mask = np.zeros((11, 13), bool)
    mask[1:10, 2:11] = True
    mask[3:8, 4:9] = False
    mask[5, 6] = True
    return mask


@settings(max_examples=60, deadline=None)
@given(MASKS)
def test_run_lengths_agree_with_pycocotools(mask):
    text = encode_runs(mask)
    # COCO's uncompressed counts of the same column-major image alternate background and object
    counts, place = [], 0
    numbers = list(map(int, text.split()))
    for start, length in zip(numbers[0::2], numbers[1::2], strict=True):
        counts += [start - 1 - place, length]
        place = start - 1 + length
    counts.append(mask.size - place)
    theirs = coco_mask.frPyObjects({"size": list(mask.shape), "counts": counts}, *mask.shape)
    assert (coco_mask.decode(theirs).astype(bool) == mask).all()
    assert (decode_runs(text, *mask.shape) == mask).all()


def test_run_lengths_of_the_thesis_table_go_down_columns():
    # the first row of table 4.1: 29102 is row 173 of column 113 in 256 rows (both from 0)
    mask = decode_runs("29102 12 29346 24", 256, 1600)
    assert mask.sum() == 36 and mask[173:185, 113].all() and mask[161:185, 114].all()


@pytest.mark.parametrize("text", ["1", "0 3", "5 0", "60 9", "1 x"])
def test_run_lengths_that_cannot_be_are_refused(text):
    with pytest.raises(ValueError):
        decode_runs(text, 8, 8)


@settings(max_examples=60, deadline=None)
@given(MASKS, st.sampled_from(["rle", "polygons"]))
def test_a_record_keeps_every_pixel_holes_and_islands_included(mask, encoding):
    region = tight(mask, 3, 2, 1)
    if region is None:
        return
    height, width = mask.shape[0] + 4, mask.shape[1] + 5
    record = json.loads(json.dumps(to_record(region, height, width, encoding)))
    back = from_record(record, height, width)
    assert back.label == 3 and (back.painted(height, width) == region.painted(height, width)).all()
    assert not back.painted(height, width)[:1].any() and back.area == mask.sum()


def test_a_hole_survives_and_no_small_object_vanishes():
    record = to_record(tight(_ring(), 0), 11, 13, "polygons")
    assert record["holes"] == [1] and len(record["points"]) == 3
    dust = np.zeros((9, 9), bool)
    dust[1, 1] = dust[4, 4] = dust[5, 5] = dust[8, 0] = True
    found = components(dust, 2)
    assert sorted(region.area for region in found) == [1, 1, 2]
    assert all(from_record(to_record(r, 9, 9, "polygons"), 9, 9).area == r.area for r in found)


def test_thinned_polygons_are_close_but_not_exact():
    rows, columns = np.mgrid[:60, :60]
    disc = (rows - 30) ** 2 + (columns - 30) ** 2 < 25**2
    back = from_record(to_record(tight(disc, 0), 60, 60, "polygons", keep_every=4), 60, 60).painted(60, 60)
    assert 0 < (back ^ disc).sum() < 0.05 * disc.sum()


def test_tiles_of_a_severstal_sheet():
    assert tile_offsets(1600, 256) == [0, 224, 448, 672, 896, 1120, 1344]
    assert tile_offsets(256, 256) == [0]


@given(st.integers(1, 400), st.integers(1, 90))
def test_tiles_leave_no_pixel_out_either_way(length, tile):
    offsets = tile_offsets(length, tile)
    # on a shorter side there is one, which reaches beyond it
    covered = {pixel for offset in offsets for pixel in range(offset, min(offset + tile, length))}
    # ceil of this side by the tile, which the source forgot for the vertical one
    assert covered == set(range(length)) and len(offsets) == -(-length // tile)


def _records(folder, count=25):
    records = [{"img": f"{n}.png", "text": "ä" * n} for n in range(count)]
    with LineWriter(folder, dump_every=7) as writer:
        for record in records:
            writer.add(record)
    return records


def test_line_store_reads_at_random_and_its_index_is_as_documented(tmp_path):
    records = _records(tmp_path)
    store = LineStore(tmp_path)
    assert [store[n] for n in (24, 0, 13, -1)] == [records[n] for n in (24, 0, 13, 24)]
    lines = (tmp_path / "dataset.jsonl").read_bytes().split(b"\n")
    content = (tmp_path / "index").read_bytes()
    assert content[:8] == b"COIGANIX" and struct.unpack_from("<Q", content, 16)[0] == len(records)
    starts = struct.unpack_from("<26Q", content, 24)
    assert starts[9] == sum(len(line) + 1 for line in lines[:9])
    with pytest.raises(IndexError):
        store[25]


def test_offsets_pass_four_gibibytes(tmp_path):
    _records(tmp_path, 1)
    size = 5 << 30
    with open(tmp_path / "dataset.jsonl", "r+b") as file:  # a sparse file
        line = file.read()
        file.seek(size - len(line))
        file.write(line)
    header = (tmp_path / "index").read_bytes()[:16]
    offsets = struct.pack("<4Q", 2, 0, size - len(line), size)
    (tmp_path / "index").write_bytes(header + offsets)
    assert LineStore(tmp_path)[1]["img"] == "0.png"


def _read(store, number, results):
    results.put(store[number]["img"])


def test_each_process_reads_with_a_handle_of_its_own(tmp_path):
    _records(tmp_path)
    store = LineStore(tmp_path)
    store[0]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_read, args=(store, n, results)) for n in (3, 17)]
    for worker in workers:
        worker.start()
    found = {results.get(timeout=30) for _ in workers}
    for worker in workers:
        worker.join()
    assert found == {"3.png", "17.png"} and store[5]["img"] == "5.png"


@pytest.mark.parametrize("damage", ["cut", "changed", "index"])
def test_damage_is_found(tmp_path, damage):
    _records(tmp_path)
    path = tmp_path / ("index" if damage == "index" else "dataset.jsonl")
    content = bytearray(path.read_bytes())
    if damage == "changed":
        content[20] ^= 1
    path.write_bytes(content if damage == "changed" else content[:-3])
    with pytest.raises(UserError, match="prepare this data set again"):
        LineStore(tmp_path).verify()


def test_a_store_that_fails_half_way_leaves_the_old_one(tmp_path):
    records = _records(tmp_path)
    with pytest.raises(RuntimeError), LineWriter(tmp_path) as writer:
        writer.add({"img": "new"})
        raise RuntimeError
    assert LineStore(tmp_path)[24] == records[24] and not list(tmp_path.glob("*.part"))


def test_cut_outs_keep_their_last_row_and_column_and_every_colour(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    one, line = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    one[19, 29] = line[4, 3:9] = True
    regions = [tight(one, 0), tight(line, 0)]
    write_objects(tmp_path, [(str(n), pixels, region) for n, region in enumerate(regions)])
    point, stroke = ObjectStore(tmp_path)
    assert point.mask.shape == (1, 1) and (point.pixels[0, 0] == pixels[19, 29]).all()
    assert stroke.mask.shape == (1, 6) and (stroke.pixels == pixels[4:5, 3:9]).all()


@pytest.mark.parametrize("grey", [True, False])
def test_grey_pictures_are_stored_once_and_read_as_they_were(tmp_path, grey):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 1 if grey else 3), np.uint8)
    pixels = np.broadcast_to(pixels, (20, 30, 3))
    write_png(tmp_path / "a.png", pixels, compact=True)
    assert (read_rgb(tmp_path / "a.png") == pixels).all()
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == ("L" if grey else "RGB") and (np.asarray(image.convert("RGB")) == pixels).all()


def test_a_region_cut_by_a_window_is_that_part_of_the_picture():
    mask = _ring()
    region = Region(0, 5, 7, mask)
    whole = region.painted(40, 40)
    for x, y in [(0, 0), (6, 9), (12, 12), (30, 30)]:
        part = region.cut(x, y, 8, 8)
        expected = whole[y : y + 8, x : x + 8]
        assert (part is None and not expected.any()) or (part.painted(8, 8) == expected).all()
