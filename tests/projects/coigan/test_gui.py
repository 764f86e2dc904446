"""What the page of `gui` paints and saves, against the same picture by `infer`; and its endpoints, where Gradio is."""

import json
import sys
from pathlib import Path

import inpaint
import numpy as np
import pytest
import torch
from coigan.commands._arguments import open_inpainter
from coigan.config import load_config
from coigan.data.images import images_in, write_png
from coigan.gui import Studio, read_layers, served
from coigan.inference import TrainedGenerator, digest_of, write_trained
from coigan.modeling.build import build_generator
from coigan_samples import CLASSES, SMALL
from PIL import Image

from gan_plugin.data.masks import read_mask
from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError

SIZE = (21, 45)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small generator in a file."""
    cfg = load_config("", [*SMALL, "INPUT.CLASSES", str(CLASSES)])
    torch.manual_seed(0)
    # a fresh network answers everything by the same grey
    state = {n: v * 4 if v.dim() == 4 else v for n, v in build_generator(cfg, len(CLASSES)).state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    write_trained(TrainedGenerator(state, cfg, digest_of(state), "here"), path)
    return path


@pytest.fixture
def studio(weights, tmp_path):
    """Two pictures, one in a folder of its own."""
    (tmp_path / "bases" / "day 1").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "day 1/b.png"):
        write_png(tmp_path / "bases" / name, rng.integers(0, 256, (*SIZE, 3), np.uint8))
    args = inpaint.parse(["gui", str(weights), "--images", "unused", "--device", "cpu"])
    folder = tmp_path / "bases"
    return Studio(open_inpainter(args), folder, images_in(folder), tmp_path / "saved")


def layers(*boxes):
    """What the editor gives: a transparent layer for each class, red in a box (y0, y1, x0, x1) or nowhere."""
    drawn = np.zeros((len(boxes), *SIZE, 4), np.uint8)
    for layer, box in zip(drawn, boxes, strict=True):
        if box:
            layer[box[0] : box[1], box[2] : box[3]] = (200, 30, 0, 255)
    return list(drawn)


def infer(weights, base, out, masks, *options):
    """The picture that the verb `infer` paints of the same."""
    asked = [word for name, file in masks.items() for word in ("--mask", f"{name}={file}")]
    inpaint.main(["infer", str(weights), str(base), str(out), "--device", "cpu", *asked, *options])
    return read_rgb(out)


def test_what_is_drawn_is_painted_as_infer_does(studio, weights, tmp_path):
    mask = np.zeros(SIZE, np.uint8)
    mask[8:14, 20:30] = 255
    write_png(tmp_path / "mask.png", mask)
    base = studio.bases["a.png"]
    image, masks, painted = studio.paint(base, layers(None, (8, 14, 20, 30)), 3, 0.5, 2)
    assert (image == read_rgb(base)).all() and (masks == np.stack([mask * 0, mask]) / 255).all()
    options = ("--seed", "3", "--strength", "0.5", "--margin", "2")
    expected = infer(weights, base, tmp_path / "out.png", {"hole": tmp_path / "mask.png"}, *options)
    assert (painted == expected).all() and (painted != image).any()


def test_a_sample_is_saved_under_its_picture_s_name_and_can_be_made_again(studio, weights, tmp_path):
    base = studio.bases["day 1/b.png"]
    folder, files = studio.save(base, layers((2, 6, 3, 9), None), 7, 1.0, 1)
    stem = "day_1_b_001"
    assert files == sorted(path.name for path in folder.iterdir())
    assert set(files) == {
        f"{stem}{end}" for end in (".json", "_base.png", "_mask_0_scratch.png", "_mask_1_hole.png", "_painted.png")
    }
    facts = json.loads((folder / f"{stem}.json").read_text())
    assert facts["base"] == "day 1/b.png" and facts["synthetic"] is True
    saved = {name: folder / file for name, file in facts["masks"].items()}
    assert read_mask(saved["scratch"]).sum() == 4 * 6 and not read_mask(saved["hole"]).any()
    options = [word for key in ("seed", "strength", "margin") for word in (f"--{key}", str(facts[key]))]
    again = infer(weights, folder / f"{stem}_base.png", tmp_path / "again.png", saved, *options)
    assert (again == read_rgb(folder / f"{stem}_painted.png")).all()
    assert json.loads((tmp_path / "again.png.json").read_text())["weights_sha256"] == facts["weights_sha256"]
    assert "day_1_b_002.json" in studio.save(base, layers((2, 6, 3, 9), None), 7, 1.0, 1)[1]


@pytest.mark.parametrize("name", ["../../up.png", "/abs/olute.png", "..", "a\\b:c?.png"])
def test_no_name_leaves_the_folder(studio, tmp_path, monkeypatch, name):
    monkeypatch.setattr(studio, "name_of", lambda base: name)
    folder, files = studio.save(studio.bases["a.png"], layers(None, (0, 4, 0, 4)), 0, 1.0, 1)
    assert folder == tmp_path / "saved" and len(files) == 5
    assert {path.name for path in folder.iterdir()} == set(files)
    assert not any(set(file) & set('/\\:?*"<>|') or file.startswith(".") for file in files)


@pytest.mark.parametrize(
    "drawn, how, said",
    [
        (layers(None, None), (0, 1.0, 1), "Nothing is drawn"),
        (layers((0, 4, 0, 4)), (0, 1.0, 1), "1 layers, but the model has 2 classes: scratch, hole"),
        ([np.zeros((3, 5, 4), np.uint8)] * 2, (0, 1.0, 1), "scratch has 5x3 pixels, the picture 45x21"),
        (layers(None, (0, 4, 0, 4)), (-1, 1.0, 1), "seed is a whole number"),
        (layers(None, (0, 4, 0, 4)), (None, 1.0, 1), "seed is a whole number"),
        (layers(None, (0, 4, 0, 4)), (0, 1.0, -2), "margin"),
        (layers(None, (0, 4, 0, 4)), (0, 2.5, 1), "between 0 and 2"),
    ],
)
def test_what_makes_no_sense_gets_a_sentence(studio, tmp_path, drawn, how, said):
    with pytest.raises(UserError, match=said):
        studio.save(studio.bases["a.png"], drawn, *how)
    assert not (tmp_path / "saved").exists()


def test_a_layer_is_read_as_other_masks_are():
    soft, half = layers(None, (4, 12, 10, 30)), layers(None, (4, 12, 10, 30))
    soft[1][3, 10:30, 3], soft[1][12, 10:30, 3] = 100, 160
    masks = read_layers(soft, CLASSES, *SIZE)
    assert not masks[0].any() and masks[1].sum() == 9 * 20 and masks[1][12, 15] and not masks[1][3, 15]
    half[1][4:8, 10:30, 3] = 110
    with pytest.raises(UserError, match="How opaque the layer hole is has the values 0, 110, 255; draw with an opaque"):
        read_layers(half, CLASSES, *SIZE)


def test_without_gradio_a_sentence_says_how_to_get_it(studio, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"needs Gradio .*pip install 'gan_plugin\[gui\]'"), served(studio, 0):
        pass


def test_the_page_answers_on_this_machine_only(studio, tmp_path):
    """Opened, drawn on, saved and refused through its endpoints; no address of another machine in what it sends."""
    pytest.importorskip("gradio", reason="needs Gradio, the extra [gui]")
    import requests
    from gradio_client import Client, handle_file

    drawn = []
    for number, layer in enumerate(layers((2, 6, 3, 9), None)):
        Image.fromarray(layer).save(tmp_path / f"layer{number}.png")
        drawn.append(handle_file(tmp_path / f"layer{number}.png"))
    with served(studio, 0) as address:
        assert address.startswith("http://127.0.0.1:")
        with (
            pytest.raises(UserError, match="choose another with --port"),
            served(studio, int(address.split(":")[2][:-1])),
        ):
            pass
        page = requests.get(address, timeout=20)
        assert page.ok and "fonts.googleapis" not in page.text + requests.get(f"{address}theme.css", timeout=20).text
        secret = requests.get(f"{address}gradio_api/file={Path(__file__).resolve()}", timeout=20)
        assert secret.status_code == 403
        client = Client(address, verbose=False, download_files=str(tmp_path / "got"), analytics_enabled=False)
        name, view, _ = client.predict("a.png", api_name="/next")
        assert name == "day 1/b.png" and view["label"] == name
        background = view["value"]["background"]
        shown = background if isinstance(background, str) else background["path"]
        assert (read_rgb(shown) == read_rgb(studio.bases[name])).all()
        value = {"background": None, "layers": drawn, "composite": None}
        painted = client.predict(value, 3, 0.5, 2, api_name="/paint")
        assert Path(painted).name == "day_1_b_seed3_painted.png"
        expected = studio.paint(studio.bases[name], layers((2, 6, 3, 9), None), 3, 0.5, 2)[2]
        assert (read_rgb(painted) == expected).all()
        assert "day_1_b_001_painted.png" in client.predict(value, 3, 0.5, 2, api_name="/save")
        with pytest.raises(Exception, match="Nothing is drawn"):
            client.predict({**value, "layers": [drawn[1], drawn[1]]}, 3, 0.5, 2, api_name="/paint")
        client.predict(handle_file(studio.bases["a.png"]), api_name="/upload")
        assert "a_001.json" in client.predict(value, 3, 0.5, 2, api_name="/save")
