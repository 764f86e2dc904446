"""Crops, lists and scenes that are not as in the books: read rightly, or one sentence."""

import json

import numpy as np
import pytest
from car_gan.crops.dataset import CropDataset, read_records
from car_gan.crops.detections import RecordedScores
from car_gan.crops.review import apply_rejections
from car_gan.scenes.sources import Coco, CropFolder
from car_runs import car
from PIL import Image

from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError

KEY = (51, 255, 51)


def turned(picture, path, orientation=6):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(path, exif=exif)


def test_crops_of_every_mode_are_those_of_their_colours(tmp_path):
    """Each is laid over the key colour where it is transparent, and turned as a viewer turns it."""
    pixels = car(40, (200, 30, 30))
    alpha = np.where((pixels == KEY).all(axis=-1), 0, 255).astype(np.uint8)
    colours, clear = Image.fromarray(pixels), Image.fromarray(np.dstack([pixels, alpha]))
    grey = Image.fromarray(np.dstack([np.asarray(colours.convert("L")), alpha]), "LA")
    pictures = {
        "0": (colours, pixels),
        "1": (clear, pixels),
        "2": (colours.convert("P"), np.asarray(colours.convert("P").convert("RGB"))),
        "3": (colours.convert("L"), np.asarray(colours.convert("L").convert("RGB"))),
        "4": (grey, np.where(alpha[..., None] > 0, np.asarray(colours.convert("L"))[..., None], np.uint8(KEY))),
        "5": (colours.convert("1"), np.asarray(colours.convert("1").convert("RGB"))),
    }
    for name, (picture, _) in pictures.items():
        picture.save(tmp_path / f"{name}.png")
    turned(colours, tmp_path / "6.png")
    pictures["6"] = (colours, np.rot90(pixels, -1))
    crops = CropDataset(tmp_path, 64, split="all")
    for index, (_, expected) in enumerate(pictures.values()):
        found = crops.pixels(index).permute(1, 2, 0).numpy()
        top, left = (64 - expected.shape[0]) // 2, (64 - expected.shape[1]) // 2
        np.testing.assert_array_equal(found[top : 64 - top, left : 64 - left], expected)


@pytest.mark.parametrize("orientation", [1, 6, 8, 3])
def test_a_folder_of_crops_has_masks_as_the_pictures_are_read(tmp_path, orientation):
    pixels = car(40, (200, 30, 30))
    turned(Image.fromarray(pixels), tmp_path / "a.png", orientation)
    source = CropFolder(tmp_path, "car", KEY)
    (file,) = source.files()
    scene = source.load(file)
    expected = (read_rgb(file.image) != KEY).any(axis=-1)
    assert scene.shape == expected.shape and scene.objects[0].full_mask(scene.shape).tolist() == expected.tolist()


def coco(folder, orientation, size):
    (folder / "images").mkdir()
    pixels = np.full((20, 30, 3), 100, np.uint8)
    pixels[2:8, 3:15] = (220, 40, 40)
    turned(Image.fromarray(pixels), folder / "images/a.png", orientation)
    # where the red part is when a viewer has turned it by 90 degrees
    mask = [[12, 3, 18, 3, 18, 15, 12, 15]] if orientation == 6 else [[3, 2, 15, 2, 15, 8, 3, 8]]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": size[0], "height": size[1]}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": "1", "segmentation": mask}],
        "categories": [{"id": "1", "name": "car"}],
    }
    (folder / "a.json").write_text(json.dumps(content), encoding="utf-8-sig")
    return Coco(folder / "a.json", folder / "images")


@pytest.mark.parametrize(("orientation", "size"), [(1, (30, 20)), (6, (20, 30))])
def test_a_coco_scene_is_read_as_detectron2_trains_it(tmp_path, orientation, size):
    """With a byte order mark, category ids of text and pictures that are to be turned."""
    source = coco(tmp_path, orientation, size)
    (file,) = source.files()
    scene = source.load(file)
    pixels = read_rgb(file.image, scene.shape[::-1])
    assert ((pixels == (220, 40, 40)).all(axis=-1) == scene.objects[0].full_mask(scene.shape)).all()
    assert source.categories == {1: "car"} and scene.objects[0].area == 72


def test_a_scene_annotated_as_it_is_stored_is_refused(tmp_path):
    with pytest.raises(UserError, match="a.png: .*orientation 6: 20x30 pixels, stored as 30x20, not 30x20"):
        coco(tmp_path, 6, (30, 20))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_of_rejections_from_any_editor(tmp_path, encoding):
    lines = [json.dumps({"file": f"crops/{number}.png", "source_image": str(number)}) for number in range(4)]
    (tmp_path / "manifest.jsonl").write_text("\r\n".join([*lines, ""]), encoding=encoding, newline="")
    listed = tmp_path / "rejected.txt"
    listed.write_text("\r\ncrops/1.png\r\n  crops/2.png \r\n\r\n", encoding=encoding, newline="")
    assert apply_rejections(tmp_path, listed) == 2
    assert [record["file"] for record in read_records(tmp_path)] == ["crops/0.png", "crops/3.png"]
    listed.write_bytes("crops/Prüfung.png".encode("latin-1"))
    with pytest.raises(UserError, match="rejected.txt is no text in UTF-8"):
        apply_rejections(tmp_path, listed)


@pytest.mark.parametrize(("box", "score"), [([0, 0, 9], 1), ([0, 0, 9, "nan"], 1), ([0, 0, 9, 9], 90)])
def test_recorded_scores_that_are_none_are_named(tmp_path, box, score):
    path = tmp_path / "scores.json"
    sound = {"box": [0, 0, 9, 9], "score": 0.5}
    path.write_text(json.dumps({"scores": {"a#0": sound, "a#1": None}}), encoding="utf-8-sig")
    assert RecordedScores(path)("a", np.zeros(0), [], ["a#0", "a#1"])[1] is None
    path.write_text(json.dumps({"scores": {"a#0": sound, "a#1": {"box": box, "score": score}}}))
    with pytest.raises(UserError, match="scores.json holds no recorded scores"):
        RecordedScores(path)
