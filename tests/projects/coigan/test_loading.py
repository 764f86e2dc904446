"""Placing objects, and the page on a data set, against cases worked by hand."""

import numpy as np
import pytest
from coigan.config import load_config
from coigan.data.images import write_png
from coigan.data.objects import ObjectStore, write_objects
from coigan.data.placer import Placer, augmentor_of
from coigan.data.prepare import PrepareOptions, prepare
from coigan.data.regions import Region
from coigan.data.samples import MaskNoise, SampleSource
from coigan.visualization.data_report import write_data_report

from gan_plugin.errors import UserError


def _store(folder, masks, colour=200):
    objects = [
        (f"o{number}", np.full((*mask.shape, 3), colour, np.uint8), Region(0, 0, 0, mask))
        for number, mask in enumerate(masks)
    ]
    write_objects(folder, objects)
    return ObjectStore(folder)


@pytest.fixture
def stores(tmp_path):
    return [
        _store(tmp_path / "0", [np.ones((4, 6), bool), np.ones((9, 3), bool)]),
        _store(tmp_path / "1", [np.ones((50, 5), bool)], colour=90),
        _store(tmp_path / "2", []),
    ]


@pytest.mark.parametrize("augment", [False, True, augmentor_of("inpainting"), augmentor_of("defects")])
def test_objects_never_overlap_and_what_is_outside_of_them_is_black(stores, augment):
    placer = Placer(stores, 32, augment=augment)
    for seed in range(40):
        placement = placer.place(np.random.default_rng(seed))
        assert placement.objects, "never empty, whatever the draws"
        total = sum(mask.astype(int) for _, mask, _ in placement.objects)
        assert total.max() == 1
        for label in range(3):
            own = [mask for number, mask, _ in placement.objects if number == label]
            assert (placement.masks[label] == (np.any(own, axis=0) if own else False)).all()
            assert (placement.canvases[label][~placement.masks[label]] == 0).all()
        if augment is False:
            assert set(np.unique(placement.canvases[0])) <= {0, 200} and set(np.unique(placement.canvases[1])) <= {
                0,
                90,
            }


def test_an_object_larger_than_the_canvas_gives_a_part_of_itself(tmp_path):
    placer = Placer([_store(tmp_path / "0", [np.ones((50, 5), bool)])], 32, (0, 1), augment=False)
    mask = placer.place(np.random.default_rng(0)).masks[0]
    assert mask.sum() == 32 * 5


def test_shapes_may_overlap_their_own_class_only(tmp_path):
    one = _store(tmp_path / "0", [np.ones((20, 20), bool)] * 3)
    two = _store(tmp_path / "1", [np.ones((20, 20), bool)] * 3)
    placer = Placer([one, two], 32, (0, 0, 0, 1), augment=False)
    placements = [placer.place(np.random.default_rng(seed), own_overlap=True) for seed in range(20)]
    assert all(not (p.masks[0] & p.masks[1]).any() for p in placements)
    assert all(len(p.objects) == 3 for p in placements)
    assert all(len(placer.place(np.random.default_rng(seed)).objects) == 1 for seed in range(5))


@pytest.fixture(scope="module")
def steel(tmp_path_factory):
    out = tmp_path_factory.mktemp("loading") / "steel"
    prepare("toy", out, PrepareOptions(tile=64, workers=1, toy_count=12, toy_size=(64, 200)))
    return out


def test_the_page_on_a_data_set_says_what_is_there(steel, tmp_path):
    page = write_data_report(steel, tmp_path / "page.html").read_text()
    assert "12 images" in page and page.count("data:image/svg") >= 5 and "Noise in a mask" in page
    assert "<script" not in page and "http" not in page.replace("http://www.w3.org", "")
    shown = ["The split", "From an image to the sets of objects", "Tiles", "Objects placed", "The scales of the noise"]
    shown += ["gen_input, what the generator sees", "(7 channels)", "(12 channels)", "How it is trained"]
    shown += ["What the discriminator of defects sees", "The smooth masked L1 loss", "Cut-outs of class 3: areas"]
    assert all(words in page for words in shown)
    alone = write_data_report(steel / "train", tmp_path / "tiles.html").read_text()
    assert "Annotated images" in alone and "Noise in a mask" not in alone
    with pytest.raises(UserError, match="holds no data set"):
        write_data_report(tmp_path, tmp_path / "none.html")


def _squares(folder, count=3, side=6):
    """A store of squares, each with a grey value of its own."""
    pixels = [np.full((side, side, 3), 30 * (number + 1), np.uint8) for number in range(count)]
    region = Region(0, 0, 0, np.ones((side, side), bool))
    write_objects(folder, [(f"square{number}", each, region) for number, each in enumerate(pixels)])
    return ObjectStore(folder)


def test_no_cut_out_is_placed_twice(tmp_path):
    placer = Placer([_squares(tmp_path / "a")], 200, [0, 0, 0, 0, 0, 1], augment=False)
    for seed in range(30):
        keys = [key for _, _, key in placer.place(np.random.default_rng(seed)).objects]
        # five are asked for, three are there
        assert len(keys) == len(set(keys)) and set(keys) <= {"square0", "square1", "square2"}


def test_objects_overlap_only_if_they_may(tmp_path):
    stores = [_squares(tmp_path / name, side=7) for name in "ab"]
    shared, labels = {}, {}
    for overlap in (False, True):
        placer = Placer(stores, 10, [0, 0, 1], augment=False, overlap=overlap)
        drawn = [placer.place(np.random.default_rng(seed)) for seed in range(20)]
        shared[overlap] = [int((sum(mask.astype(int) for _, mask, _ in each.objects) > 1).sum()) for each in drawn]
        labels[overlap] = [sorted(label for label, _, _ in each.objects) for each in drawn]
        for each in drawn:
            for number, canvas in enumerate(each.canvases):
                assert ((canvas > 0).all(2) == each.masks[number]).all()
    # two 7x7 squares cannot lie in 10x10 without sharing pixels
    assert shared[False] == [0] * 20 and all(len(each) == 1 for each in labels[False])
    assert min(shared[True]) > 0 and labels[True] == [[0, 0, 1, 1]] * 20


def test_each_class_comes_as_often_as_its_row_says(tmp_path):
    # one object of the first class, eight of the second: how many there are does not matter
    stores = [_squares(tmp_path / str(count), count, side=1) for count in (1, 8, 8)]
    rows = [(0.3, 0.7), (0.8, 0.15, 0.05), (0, 1)]
    placer = Placer(stores, 64, rows, augment=False, overlap=True)
    draws = 2000
    found = np.zeros((3, 3), int)
    for seed in range(draws):
        labels = [label for label, _, _ in placer.place(np.random.default_rng(seed)).objects]
        for label in range(3):
            found[label, labels.count(label)] += 1
    for row, counts in zip(rows, found, strict=True):
        for probability, count in zip((*row, 0)[:3], counts, strict=True):
            # four and a half deviations of a binomial count
            assert abs(count - draws * probability) <= 4.5 * (draws * probability * (1 - probability)) ** 0.5
    flat = Placer(stores, 64, rows[1], augment=False, overlap=True, non_empty="")
    empty = sum(not flat.place(np.random.default_rng(seed)).objects for seed in range(draws))
    assert abs(empty - draws * 0.8**3) <= 4.5 * (draws * 0.8**3 * (1 - 0.8**3)) ** 0.5


def test_counts_survive_a_config_file_and_wrong_ones_are_named(stores, tmp_path):
    rows = ((0.5, 0.5), (0.0, 1.0), (1.0,))
    cfg = load_config("", ["DATA.COUNTS", str(rows)])
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again = load_config(str(tmp_path / "config.yaml"))
    assert tuple(map(tuple, again.DATA.COUNTS)) == rows
    Placer(stores, 32, again.DATA.COUNTS)
    for wrong in ((), (0.0, 0.0), (0.5, -0.1), ((1.0,), (1.0,)), ((1.0,), (1.0,), 1.0), ("a",)):
        with pytest.raises(UserError, match="DATA.COUNTS"):
            Placer(stores, 32, wrong)
    with pytest.raises(UserError, match="DATA.FORCE_NON_EMPTY"):
        Placer(stores, 32, non_empty="always")


def test_what_is_done_against_empty_samples(tmp_path):
    never = [_squares(tmp_path / name, side=3) for name in "ab"]

    def objects(non_empty, stores=never, counts=(1.0,)):
        placer = Placer(stores, 16, counts, augment=False, non_empty=non_empty)
        return [[label for label, _, _ in placer.place(np.random.default_rng(seed)).objects] for seed in range(40)]

    assert all(each == [] for each in objects(""))
    # one object a sample, of the class that comes last, which is either
    assert sorted(set(map(tuple, objects("last_class")))) == sorted(set(map(tuple, objects("retry")))) == [(0,), (1,)]
    # where something is placed already, the last class keeps its own draw
    assert all(each.count(0) <= 1 for each in objects("last_class", counts=((0.0, 1.0), (1.0,))))
    assert all(0 in each and 1 not in each for each in objects("retry", counts=((0.0, 1.0), (1.0,))))


def test_shapes_alone_need_no_pictures(tmp_path):
    pictured = _squares(tmp_path / "a")
    for path in (tmp_path / "a/data").iterdir():
        path.unlink()
    bare = ObjectStore(tmp_path / "a", masks_only=True)
    assert bare[1].pixels is None and bare[1].mask.all() and bare[1].key == "square1"
    placement = Placer([bare], 32, (0, 1)).place(np.random.default_rng(0))
    assert placement.masks.any() and not placement.canvases.any()
    with pytest.raises(UserError, match="square1.png: the image does not exist"):
        pictured[1]


@pytest.mark.parametrize(("flip", "seen"), [("both", 4), ("horizontal", 2), ("vertical", 2), ("", 1)])
def test_tiles_are_mirrored_along_the_named_axes_only(tmp_path, flip, seen):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    write_png(tmp_path / "tile.png", pixels)
    placer = Placer([_squares(tmp_path / "a", side=2)], 8, augment=False)
    source = SampleSource([tmp_path / "tile.png"], [], placer, MaskNoise(smooth=0), flip=flip)
    drawn = {(source.draw()["base"] * 255).round().byte().permute(1, 2, 0).numpy().tobytes() for _ in range(60)}
    ways = {"horizontal": [pixels, pixels[:, ::-1]], "vertical": [pixels, pixels[::-1]], "": [pixels]}
    ways["both"] = [*ways["horizontal"], pixels[::-1], pixels[::-1, ::-1]]
    assert drawn == {way.tobytes() for way in ways[flip]} and len(drawn) == seen
    with pytest.raises(UserError, match="DATA.FLIP"):
        SampleSource([tmp_path / "tile.png"], [], placer, MaskNoise(), flip="diagonal")
