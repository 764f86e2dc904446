"""An exported generator against the trained model, in a process that knows nothing of the plugin."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import export_generator
import numpy as np
import pytest
import torch
import yaml
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from support import SMALLEST_MODEL, exit_code

from gan_plugin import AdversarialTrainer

# what a user of Detectron2 alone would write; it ends by saving what the model predicts
STOCK_SCRIPT = """
import sys
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from safetensors.torch import load_file

def predict(config, weights, inputs):
    cfg = get_cfg()
    cfg.merge_from_file(config)
    torch.manual_seed(99)
    model = build_model(cfg).eval()
    if weights.endswith(".safetensors"):
        missing, unexpected = model.load_state_dict(load_file(weights), strict=False)
        wrong_shapes = []
    else:
        checkpointer = DetectionCheckpointer(model)
        checkpointer._log_incompatible_keys = lambda keys: reports.append(keys)
        reports = []
        assert set(checkpointer.load(weights)) == {"thing_classes"}, "the file holds more than weights and names"
        missing, unexpected = reports[0].missing_keys, reports[0].unexpected_keys
        wrong_shapes = reports[0].incorrect_shapes
    assert not (missing or unexpected or wrong_shapes), (missing, unexpected, wrong_shapes)
    assert type(model).__module__ == "detectron2.modeling.meta_arch.rcnn"
    assert type(model.roi_heads.mask_head).__module__ == "detectron2.modeling.roi_heads.mask_head"
    with torch.no_grad():
        results = [result["instances"].get_fields() for result in model(torch.load(inputs))]
    return [{k: getattr(v, "tensor", v) for k, v in result.items()} for result in results]

config, inputs, predictions, *files = sys.argv[1:]
torch.save([predict(config, weights, inputs) for weights in files], predictions)
assert "gan_plugin" not in sys.modules
"""


@pytest.fixture
def run_folder(run_cfg):
    """The output of three alternating iterations with a moving average."""
    run_cfg.merge_from_list([part for key in SMALLEST_MODEL.items() for part in key])
    run_cfg.MODEL.GAN.MODE, run_cfg.MODEL.GAN.EMA.DECAY = "alternating", 0.9
    # after three iterations nothing is certain, and something must be detected to be compared
    run_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    torch.manual_seed(0)
    AdversarialTrainer(run_cfg).train()
    folder = Path(run_cfg.OUTPUT_DIR)
    (folder / "config.yaml").write_text(run_cfg.dump())
    return folder


@pytest.fixture
def images(make_inputs):
    return [{k: x[k] for k in ("image", "height", "width")} for x in make_inputs(2, seed=3)]


def export(*arguments) -> int:
    return exit_code(export_generator.main, *arguments)


def predict(model, images):
    with torch.no_grad():
        results = [result["instances"].get_fields() for result in model.eval()(images)]
    return [{name: getattr(value, "tensor", value) for name, value in result.items()} for result in results]


def predict_by_stock(config, images, folder, *weights):
    """What each of the files predicts."""
    torch.save(images, folder / "images.pt")
    command = [sys.executable, "-c", STOCK_SCRIPT, config, folder / "images.pt", folder / "predictions.pt", *weights]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(folder / "predictions.pt")


def assert_same_predictions(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys() and len(a["scores"]) > 0
        for name in a:
            assert torch.equal(a[name], b[name]), name


def test_stock_detectron2_predicts_what_the_trained_model_does(run_folder, run_cfg, images, tmp_path):
    """Weights as .pth, the average as .safetensors; each bit for bit, and the two differ."""
    checkpoint, config = run_folder / "model_final.pth", tmp_path / "stock.yaml"
    assert export(checkpoint, tmp_path / "last.pth", "--config-out", config) == 0
    assert export(checkpoint, tmp_path / "mean.safetensors", "--ema") == 0
    model = build_model(run_cfg)
    state = torch.load(checkpoint, weights_only=True)
    model.load_state_dict(state["model"])
    last = predict(model, images)
    model.load_state_dict(torch.load(run_folder / "model_final_ema.pth", weights_only=True)["model"], strict=False)
    mean = predict(model, images)
    assert not torch.equal(last[0]["pred_boxes"], mean[0]["pred_boxes"])
    files = tmp_path / "last.pth", tmp_path / "mean.safetensors"
    for ours, theirs in zip((last, mean), predict_by_stock(config, images, tmp_path, *files), strict=True):
        assert_same_predictions(ours, theirs)
    written = yaml.safe_load(config.read_text())
    known = get_cfg()
    assert "GAN" not in written["MODEL"] and "DISC" not in written["SOLVER"]
    assert written.keys() == known.keys() and written["MODEL"].keys() == known.MODEL.keys()
    assert written["MODEL"]["META_ARCHITECTURE"] == "GeneralizedRCNN"
    assert written["MODEL"]["ROI_MASK_HEAD"]["NAME"] == "MaskRCNNConvUpsampleHead"
    assert written["MODEL"]["FPN"]["OUT_CHANNELS"] == 16
    assert written["MODEL"]["WEIGHTS"] == str(tmp_path / "last.pth")


def test_a_trace_repeats_the_eager_model(run_folder, images, run_cfg, tmp_path):
    """At the traced size and at another one, from the file."""
    traced_file = tmp_path / "model.ts"
    arguments = ["--torchscript", traced_file, "--image-size", "96x96"]
    assert export(run_folder / "model_final.pth", tmp_path / "last.pth", *arguments) == 0
    traced = torch.jit.load(traced_file)
    model = build_model(run_cfg).eval()
    model.load_state_dict(torch.load(run_folder / "model_final.pth", weights_only=True)["model"])
    for image in (images[0]["image"], images[1]["image"][:, :80, :72]):
        with torch.no_grad():
            expected = model.inference([{"image": image}], do_postprocess=False)[0]
        boxes, classes, masks, scores = traced(image)
        assert len(scores) > 0
        assert torch.equal(boxes, expected.pred_boxes.tensor) and torch.equal(classes, expected.pred_classes)
        assert torch.equal(masks, expected.pred_masks) and torch.equal(scores, expected.scores)


class Bomb:
    """Pickled, it makes whoever unpickles it create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["bomb.pth", "bomb.pkl"])
def test_no_pickled_code_runs(name, tmp_path, capsys):
    proof = tmp_path / "it_ran"
    bomb = {"model": {"weight": torch.ones(1), "bomb": Bomb(proof)}}
    if name.endswith(".pth"):
        torch.save(bomb, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(bomb))
    assert export(tmp_path / name, tmp_path / "out.pth") == 2
    assert not proof.exists() and not (tmp_path / "out.pth").exists()
    assert "code" in capsys.readouterr().err


def test_a_zoo_pickle_only_on_request(tiny_cfg, tmp_path):
    """The format of Detectron2's zoo: numpy arrays, an author, and constants that models no longer hold."""
    tiny_cfg.MODEL.GAN.ENABLED = False
    weights = build_model(tiny_cfg).state_dict()
    arrays = {name: value.numpy() for name, value in weights.items()}
    constants = dict.fromkeys(("pixel_mean", "proposal_generator.anchor_generator.cell_anchors.0"), np.zeros(3))
    zoo = {"model": {**arrays, **constants}, "__author__": "zoo"}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps(zoo))
    (tmp_path / "config.yaml").write_text(tiny_cfg.dump())
    assert export(tmp_path / "zoo.pkl", tmp_path / "out.pth", "--allow-pickle") == 0
    written = torch.load(tmp_path / "out.pth", weights_only=True)["model"]
    assert written.keys() == weights.keys()
    assert all(torch.equal(written[name], weights[name]) for name in weights)


@pytest.fixture
def small_file(tmp_path):
    """A checkpoint of one weight and one of the adversary's, with no config and no average."""
    path = tmp_path / "run" / "model_final.pth"
    path.parent.mkdir()
    torch.save({"model": {"weight": torch.arange(3.0), "adversaries.mask.weight": torch.ones(2)}}, path)
    return path


def test_an_existing_file_is_replaced_only_by_force(small_file, tmp_path, capsys):
    out = tmp_path / "out.pth"
    out.write_text("precious")
    assert export(small_file, out) == 2 and out.read_text() == "precious"
    assert "--force" in capsys.readouterr().err
    assert export(small_file, out, "--force") == 0
    assert torch.load(out, weights_only=True)["model"].keys() == {"weight"}
    assert "not checked" in capsys.readouterr().out
    before = small_file.read_bytes()
    assert export(small_file, small_file, "--force") == 2 and small_file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.pth", "run"]


def test_what_cannot_be_exported_is_a_sentence(small_file, tiny_cfg, tmp_path, capsys):
    empty, text, numbers = tmp_path / "empty.pth", tmp_path / "text.pth", tmp_path / "numbers.pth"
    empty.touch()
    text.write_text("hello")
    torch.save({"model": [1, 2]}, numbers)
    cut = tmp_path / "cut.pth"
    cut.write_bytes(small_file.read_bytes()[:-200])
    config, code = tmp_path / "config_of_another.yaml", tmp_path / "code.yaml"
    config.write_text(tiny_cfg.dump())
    code.write_text(f"VERSION: 2\nMODEL: {{WEIGHTS: !!python/object/apply:os.mkdir ['{tmp_path}/it_ran']}}\n")
    out = tmp_path / "out.pth"
    for arguments, words in [
        ((tmp_path / "none.pth", out), "does not exist"),
        ((empty, out), "is not a checkpoint"),
        ((text, out), "is not a checkpoint"),
        ((cut, out), "is not a checkpoint"),
        ((numbers, out), "is not a checkpoint"),
        ((small_file, tmp_path / "out.onnx"), "must end in .pth or .safetensors"),
        ((small_file, tmp_path / "no" / "out.pth"), "folder that does not exist"),
        ((small_file, out, "--ema"), "holds no moving average"),
        ((small_file, out, "--config-out", tmp_path / "c.yaml"), "config.yaml does not exist"),
        ((small_file, out, "--config-out", out), "named twice"),
        ((small_file, out, "--config-file", config), "does not fit its config"),
        ((small_file, out, "--config-file", code), "has the tag !!python/object/apply:os.mkdir in line 2"),
        ((small_file, out, "--torchscript", tmp_path / "t.ts"), "go together"),
        ((small_file, out, "--torchscript", tmp_path / "t.ts", "--image-size", "0x9"), "write it as HEIGHTxWIDTH"),
    ]:
        assert export(*arguments) == 2, arguments
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1, error
    assert not out.exists() and not (tmp_path / "it_ran").exists()


def test_a_full_disk_leaves_the_old_file_and_no_litter(small_file, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out.safetensors"
    out.write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert export(small_file, out, "--force") == 2
    assert "No space left on device" in capsys.readouterr().err
    assert out.read_text() == "old" and sorted(path.name for path in tmp_path.iterdir()) == [out.name, "run"]
