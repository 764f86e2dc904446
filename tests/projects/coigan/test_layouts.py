"""Data as users have it: layouts of folders, forms of masks, sizes, and what must stay in one part."""

import itertools
import json
import os
import re
import shutil
from pathlib import Path

import cv2
import inpaint
import numpy as np
import pytest
from coigan.data.images import safe_path, whole_folder
from coigan.data.line_sets import LineSet
from coigan.data.prepare import PrepareOptions, prepare
from coigan.data.sources import open_source
from coigan.data.split import fingerprint, groups_of, near_duplicates, part_sizes, split
from coigan_steel import class_masks
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError

OPTIONS = PrepareOptions(tile=16, workers=1)
SIDE = 40
TILES = Path(__file__).parents[3] / "../shared/data/magnetic_tiles"


def picture(seed, side=SIDE):
    """Smooth noise, which no other seed's looks like."""
    rough = np.random.default_rng(seed).integers(40, 220, (7, 7, 3), np.uint8)
    return cv2.resize(rough, (side, side), interpolation=cv2.INTER_CUBIC)


def square(at, side=SIDE):
    mask = np.zeros((side, side), np.uint8)
    mask[at : at + 6, at + 2 : at + 9] = 255
    return mask


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


# how a layout calls the picture and the mask of class c with stem n, the mask a function of both
LAYOUTS = {
    "beside, another ending": ("set_{c}/Imgs/{n}.jpg", "set_{c}/Imgs/{n}.png", "set_free/Imgs/{n}.jpg"),
    "beside, another name": ("{c}/{n}.png", "{c}/{n}_mask.png", "good/{n}.png"),
    "a folder of masks in each class": ("{c}/images/{n}.png", "{c}/masks/{n}.png", "OK/{n}.png"),
    "masks below the pictures": ("{c}/{n}.png", "{c}/ground_truth/{n}.png", "no_defect/{n}.png"),
    "MVTec": ("test/{c}/{n}.png", "ground_truth/{c}/{n}_mask.png", "train/good/{n}.png"),
    "masks by class": ("images/{n}.png", "masks/{c}/{n}.png", "images/{n}.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_say_the_same(tmp_path, layout):
    """Two classes, a picture that has both, one in a class's folder without a mask, and defect-free ones."""
    shown, masked, free = LAYOUTS[layout]
    raw = tmp_path / "raw"
    truth = {}
    for n, c in enumerate(["crack", "crack", "dent", "dent"]):
        save(raw / shown.format(c=c, n=n), picture(n), quality=97)
        save(raw / masked.format(c=c, n=n), square(3 * n + 1))
        truth[n] = {c: square(3 * n + 1) > 0}
    # the same picture in the folders of two classes
    save(raw / shown.format(c="crack", n=4), picture(4), quality=97)
    save(raw / masked.format(c="crack", n=4), square(1))
    save(raw / shown.format(c="dent", n=4), picture(4), quality=97)
    save(raw / masked.format(c="dent", n=4), square(20))
    truth[4] = {"crack": square(1) > 0, "dent": square(20) > 0}
    save(raw / shown.format(c="dent", n=5), picture(5), quality=97)
    for n in (6, 7):
        save(raw / free.format(n=n), picture(n), quality=97)
    prepare(raw, tmp_path / "out", OPTIONS)
    lines = LineSet(tmp_path / "out/converted")
    assert lines.classes == ("crack", "dent") and len(lines) == 8
    for record in lines.store:
        number = int(Path(record["img"]).stem[-1])
        masks = class_masks(lines.regions(record), 2, SIDE, SIDE)
        for channel, name in enumerate(lines.classes):
            assert (masks[channel] == truth.get(number, {}).get(name, False)).all(), (record, name)
        assert np.abs(lines.image(record).astype(int) - picture(number)).mean() < 8
    # exactly the tiles without a pixel of a defect
    names = {path.name for kind in ("train", "test") for path in (tmp_path / "out" / kind).glob("*.png")}
    assert len({name.rsplit("_", 2)[0] for name in names}) == 8
    for path in (tmp_path / "out/base").glob("*.png"):
        stem, y, x = path.stem.rsplit("_", 2)
        union = np.any(list(truth.get(int(stem[-1]), {0: np.zeros((SIDE, SIDE))}).values()), axis=0)
        assert not union[int(y) : int(y) + 16, int(x) : int(x) + 16].any()


def raw_of(tmp_path, classes=("crack", "dent"), each=3):
    raw = tmp_path / "raw"
    for number, (name, _) in enumerate(itertools.product(classes, range(each))):
        save(raw / f"{name}/{number}.png", picture(number))
        save(raw / f"{name}/{number}_mask.png", square(2 * number + 1))
    return raw


def test_what_is_not_clear_is_refused_and_leaves_no_folder(tmp_path):
    raw, out = raw_of(tmp_path), tmp_path / "out"

    def refused(words):
        with pytest.raises(UserError, match=words):
            prepare(raw, out, OPTIONS)
        assert not out.exists() and not list(tmp_path.glob("*.part"))

    save(raw / "scratch/9.png", picture(9))
    refused("The class scratch has no object in .*leave it out with --classes, or add its masks")
    (raw / "scratch").rename(raw / "free")
    save(raw / "free/9_mask.png", square(1))
    refused("9_mask.png has a defect, but lies in a folder of defect-free pictures")
    (raw / "free/9_mask.png").rename(raw / "free/8_mask.png")
    refused("8_mask.png: the file of objects has no picture")
    (raw / "free/8_mask.png").unlink()
    save(raw / "crack/0_mask.png", (np.arange(SIDE * SIDE).reshape(SIDE, SIDE) // 400 * 60).astype(np.uint8))
    refused("0_mask.png has the values 0, 60, 120, 180, so that it is not clear what is inside")
    with pytest.raises(UserError, match="There is no .*nowhere"):
        prepare(tmp_path / "nowhere", out, OPTIONS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is no data set that can be told"):
        prepare(tmp_path / "empty", out, OPTIONS)
    out.mkdir()
    with pytest.raises(UserError, match="not clear what is inside"):
        prepare(raw, out, OPTIONS)
    assert not any(out.iterdir())


def test_an_empty_mask_in_a_class_is_no_clean_picture(tmp_path):
    raw = raw_of(tmp_path)
    save(raw / "crack/8.png", picture(8))
    save(raw / "crack/8_mask.png", np.zeros((SIDE, SIDE), np.uint8))
    content = prepare(raw, tmp_path / "out", OPTIONS)
    assert content["masks"]["an empty mask in the folder of a class, so no base image"] == 1
    assert content["masks"]["0 outside and 255 inside"] == 6
    assert not list((tmp_path / "out/base").glob("*_8_*")) and content["objects"] == [3, 3]


FORMS = {
    "0 and 1": lambda mask: Image.fromarray((mask > 0).astype(np.uint8)),
    "0 and 255": Image.fromarray,
    "one bit": lambda mask: Image.fromarray(mask).convert("1"),
    "16 bits": lambda mask: Image.fromarray((mask > 0).astype(np.uint16) * 40000),
    "32 bits": lambda mask: Image.fromarray((mask > 0).astype(np.int32) * 9),
    "palette": lambda mask: _palette(mask),
    "red": lambda mask: Image.fromarray(np.stack([mask, mask * 0, mask * 0], -1)),
    "alpha": lambda mask: Image.fromarray(np.dstack([np.full((*mask.shape, 3), 255, np.uint8), mask])),
    "black behind alpha": lambda mask: Image.fromarray(np.dstack([np.zeros((*mask.shape, 3), np.uint8), mask])),
    "grey edges": lambda mask: (
        Image.fromarray(mask).resize((4 * SIDE,) * 2, 2).resize((SIDE,) * 2, Image.Resampling.BOX)
    ),
}


def _palette(mask):
    image = Image.fromarray((mask > 0).astype(np.uint8), mode="P")
    image.putpalette([0, 0, 0, 90, 200, 30])
    return image


@pytest.mark.parametrize("form", FORMS)
def test_masks_of_any_form_are_read_alike(tmp_path, form):
    raw = tmp_path / "raw"
    for number in range(4):
        save(raw / f"images/{number}.png", picture(number))
        (raw / "masks").mkdir(exist_ok=True)
        FORMS[form](square(4 * number)).save(raw / f"masks/{number}.{'tif' if form == '32 bits' else 'png'}")
    content = prepare(raw, tmp_path / "out", OPTIONS)
    lines = LineSet(tmp_path / "out/converted")
    for number, record in enumerate(lines.store):
        (region,) = lines.regions(record)
        assert (region.painted(SIDE, SIDE) == (square(4 * number) > 0)).all()
    assert sum(content["masks"].values()) == 4


def test_pictures_smaller_than_a_tile_are_filled_up_by_their_mirror_image(tmp_path):
    raw, tile = tmp_path / "raw", 64
    sizes = {"a": (40, 90), "b": (70, 20), "c": (64, 64), "d": (9, 7)}
    for seed, (name, (height, width)) in enumerate(sizes.items()):
        save(raw / f"images/{name}.png", picture(seed, 100)[:height, :width])
        mask = np.zeros((height, width), np.uint8)
        mask[height - 5 : height - 1, width - 4 : width - 1] = 255
        save(raw / f"masks/{name}.png", mask)
    prepare(raw, tmp_path / "out", PrepareOptions(tile=tile, workers=1, most_black=1.0))
    seen = set()
    for kind in ("train", "test"):
        lines = LineSet(tmp_path / "out" / kind)
        for record in lines.store:
            name, y, x = Path(record["img"]).stem.split("_")
            (height, width), y, x = sizes[name], int(y), int(x)
            whole, tiled = picture("abcd".index(name), 100)[:height, :width], lines.image(record)
            for row, column in itertools.product(range(tile), repeat=2):
                across = (y + row) % max(1, 2 * (height - 1)), (x + column) % max(1, 2 * (width - 1))
                at = [
                    min(place, 2 * (length - 1) - place) for place, length in zip(across, (height, width), strict=True)
                ]
                assert (tiled[row, column] == whole[at[0], at[1]]).all()
            mask = np.zeros((max(height, tile), max(width, tile)), bool)
            mask[height - 5 : height - 1, width - 4 : width - 1] = True
            found = class_masks(lines.regions(record), 1, tile, tile)[0]
            assert (found == mask[y : y + tile, x : x + tile]).all()
            seen.add(name)
    assert seen == set(sizes)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_groups_are_never_torn_apart_and_classes_stay_fair(data):
    count = data.draw(st.integers(8, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    groups = rng.integers(0, data.draw(st.integers(4, count)), count)
    counts = rng.poisson(0.8, (count, 2))
    ratios = {"train": data.draw(st.sampled_from([0.5, 0.7])), "test": 0.3}
    mode = data.draw(st.sampled_from(["exact", "greedy", "random"]))
    try:
        parts = split(counts, ratios, mode, 1, groups=groups)
    except UserError as error:
        assert "empty" in str(error)
        return
    assert set(parts) == {0, 1}
    for group in set(groups):
        assert len(set(parts[groups == group])) == 1
    if mode == "exact" and len(set(groups)) < 9:
        # of all ways to share the groups none is fairer
        assert _unfair(parts, groups, counts, ratios) <= 2e-3 + min(
            _unfair(np.array(way)[np.unique(groups, return_inverse=True)[1]], groups, counts, ratios)
            for way in itertools.product((0, 1), repeat=len(set(groups)))
            if len(set(way)) == 2
        )


def _unfair(parts, groups, counts, ratios):
    """By how much each class, clean images and images miss the share of a part, beyond what the solver forgives."""
    columns = np.column_stack([counts, counts.sum(1) == 0, np.ones(len(counts))]).astype(float)
    train = part_sizes(len(counts), ratios)[0]
    total = 0.0
    for column in columns.T:
        if column.sum():
            forgiven = max(0.001, 0.5 / column.sum())
            gap = abs(column[parts == 0].sum() / column.sum() - train / len(counts))
            total += 2 * max(0.0, gap - forgiven)
    return total


def test_rules_of_groups(tmp_path):
    names = ["a/p1_x1.png", "a/p1_x2.png", "b/p2_x1.png", "b/q.png", "b/r.png"]
    assert groups_of(names, r"p(\d)_")[0].tolist()[:3] == [0, 0, 1]
    assert (
        len(set(groups_of(names, r"p(\d)_")[0])) == 4
        and "of 2 images --group says nothing" in groups_of(names, r"p(\d)")[1]
    )
    assert len(set(groups_of(names, r"^\w/")[0])) == 2
    assert "each has one image alone" in groups_of(names, r"[^/]+$")[1]
    numbered = [f"n_{number}.png" for number in (10, 300, 45, 90, 1000, 340)]
    assert groups_of(numbered, r"n_(\d+)", within=45)[0].tolist() == [0, 1, 0, 0, 2, 1]
    table = tmp_path / "groups.csv"
    for text in (
        "image,group\na/p1_x1.png,7\np1_x2.png,7\nb/p2_x1.png,8\n",
        "\ufeffBild;Teil\np1_x1.png;7\np1_x2.png;7\nzzz.png;7\np2_x1.png;8\n",
    ):
        table.write_text(text, encoding="utf-8")
        assert groups_of(names, str(table))[0].tolist()[:3] == [0, 0, 1]
    for rule, words in (
        ("(", "no regular expression"),
        ("zzz", "in the name of no image"),
        (str(tmp_path / "no.csv"), "no.csv"),
    ):
        with pytest.raises(UserError, match=words):
            groups_of(names, rule)
    with pytest.raises(UserError, match="whole numbers"):
        groups_of(names, r"^\w/", within=3)
    for text, words in (
        ("q.png,1\nq.png,2\n", "line 2: q.png is in the groups 1 and 2"),
        ("q.png\n", "line 1: there is no group"),
        ("image,group\nz.png,1\n", "names none"),
    ):
        table.write_text(text)
        with pytest.raises(UserError, match=words):
            groups_of(names, str(table))
    table.write_text("x.png,1\n")
    with pytest.raises(UserError, match=r"x.png may be c/x.png or d/x.png"):
        groups_of(["c/x.png", "d/x.png"], str(table))


def test_near_duplicates_are_found_whatever_the_exposure_size_and_compression(tmp_path):
    originals = [picture(seed, 120) for seed in range(12)]
    changed = []
    for seed, pixels in enumerate(originals):
        brighter = (pixels * (0.5 + 0.06 * seed)).clip(0, 255).astype(np.uint8)
        noisy = brighter + np.random.default_rng(seed).integers(0, 4, brighter.shape, np.uint8) * (brighter < 250)
        small = cv2.resize(noisy, (90, 100), interpolation=cv2.INTER_AREA)
        changed.append(cv2.imdecode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], 1))
    prints = [fingerprint(pixels) for pixels in originals + changed]
    assert near_duplicates(prints) == [(number, number + 12) for number in range(12)]
    black = [fingerprint(np.zeros((20, 20, 3), np.uint8))] * 2
    assert near_duplicates(black) == [] == near_duplicates([])


def test_near_duplicates_are_named_and_their_table_holds_them_together(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    for number in range(6):
        for exposure in (1, 2):
            pixels = (picture(number).astype(float) * (0.7 if exposure == 1 else 1.0)).astype(np.uint8)
            save(raw / f"images/part{number}_{exposure}.png", pixels)
            save(raw / f"masks/part{number}_{exposure}.png", square(number + 1))
    torn = prepare(raw, out, OPTIONS)["near_duplicates_in_two_parts"]
    assert torn and all(a.split("_")[0] == b.split("_")[0] for a, b in torn)
    content = prepare(raw, out, PrepareOptions(tile=16, workers=1, group=str(out / "converted/near_duplicates.csv")))
    assert content["stages"]["convert"] == "kept" and content["near_duplicates_in_two_parts"] == []
    assert content["groups"] == "6 groups of 12 images" and content["images"] == {"train": 6, "test": 6}
    parts = {kind: {r["img"].split("_")[0] for r in LineSet(out / "split" / kind).store} for kind in ("train", "test")}
    assert not parts["train"] & parts["test"]


NAMES = st.text(st.sampled_from("ab./\\"), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None)
@given(NAMES)
def test_no_name_leaves_the_folder(name):
    try:
        path = safe_path(name)
    except UserError:
        assert not re.search("[ab]", name)
        return
    assert not path.is_absolute() and ".." not in path.parts and path.parts
    assert os.path.normpath(f"/root/{path}").startswith("/root/")


def test_a_folder_is_whole_or_absent(tmp_path):
    for error in (ValueError, KeyboardInterrupt, UserError):
        with pytest.raises(error), whole_folder(tmp_path / "deep/out") as part:
            (part / "half").write_text("x")
            raise error
        assert not list((tmp_path / "deep").iterdir())
    with whole_folder(tmp_path / "out") as part:
        (part / "all").write_text("x")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["all"]
    with pytest.raises(UserError, match="holds files; name another folder"), whole_folder(tmp_path / "out"):
        pass


@pytest.mark.skipif(not TILES.is_dir(), reason="the magnetic tiles are not there")
def test_magnetic_tiles_are_read_from_the_raw_folder():
    source = open_source(TILES)
    assert source.classes == ("Blowhole", "Break", "Crack", "Fray", "Uneven") and len(source.images) == 423
    groups, _ = groups_of([source.name(number) for number in range(423)], r"_num_(\d+)", 200)
    exposures = {}
    for group, image in zip(groups, source.images, strict=True):
        exposures.setdefault(group, []).append(image.name[:4])
    assert len(exposures) == 84
    crack = next(number for number, image in enumerate(source.images) if image.name == "exp1_num_3191.jpg")
    height, width = read_rgb(source.images[crack]).shape[:2]
    grey = cv2.imread(str(source.images[crack].with_suffix(".png")), 0)
    found = class_masks(source.regions(crack, height, width), 5, height, width)
    assert (found[2] == (grey >= 128)).all() and not found[[0, 1, 3, 4]].any()


def test_derive_keeps_sub_folders_and_never_leaves_its_folder(tmp_path):
    """Two pictures of one name in different folders, and names in a COCO JSON that lead elsewhere."""
    raw = tmp_path / "raw"
    for name in ("raw/crack", "raw/dent", "other", "away"):
        save(tmp_path / f"{name}/0.png", picture(len(name)))
    entries = ["crack/0.png", "dent/0.png", "../other/0.png", str(tmp_path / "away/0.png")]
    entries = [{"id": n, "file_name": name, "width": SIDE, "height": SIDE} for n, name in enumerate(entries, 1)]
    ring = [1, 1, 9, 1, 9, 9, 1, 9]
    truth = [{"id": n, "image_id": n, "category_id": 1, "segmentation": [ring]} for n in range(1, 5)]
    content = {"images": entries, "annotations": truth, "categories": [{"id": 1, "name": "a"}]}
    (raw / "all.json").write_text(json.dumps(content))
    before = set(tmp_path.rglob("*"))
    for words in (["derive", "OUT"], ["derive", "OUT", "--scale", "0.5"], ["prepare", "OUT", "--tile", "16"]):
        out = tmp_path / "made"
        line = [words[0], str(raw / "all.json"), str(out), "--images", str(raw), "--workers", "1", *words[2:]]
        inpaint.main(line)
        made = set(tmp_path.rglob("*")) - before
        assert made and all(path.is_relative_to(out) for path in made)
        if words[0] == "derive":
            found = {path.relative_to(out).as_posix() for path in out.rglob("*.png")}
            assert {"crack/0.png", "dent/0.png", "other/0.png"} < found and len(found) == 4
            assert all(name.endswith("/0.png") for name in found)
            listed = {entry["file_name"] for entry in json.loads((out / "annotations.json").read_text())["images"]}
            assert listed == found
        shutil.rmtree(out)
