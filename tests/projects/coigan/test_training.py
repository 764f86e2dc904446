"""The trainer: exact resume, what it writes, average, mixed precision, several processes, the best FID."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from coigan.config import load_config
from coigan.data.images import write_png
from coigan.data.samples import TrainingData, open_data
from coigan.inference import read_trained, write_trained
from coigan_samples import CLASSES, SIZE, SMALL, draw, run, train_and_save
from PIL import Image
from support import assert_same, in_two_processes

from gan_plugin.errors import UserError

ADAPTIVE = [
    *("LOSS.DIFFAUG", "translation,flip", "LOSS.ADA.TARGET", "0.1", "LOSS.ADA.IMAGES", "40"),
    *("MODEL.DISCRIMINATOR.CONTRAST", "4.0"),
]


def last_metrics(folder):
    metrics = {}
    for line in (folder / "metrics.json").read_text().splitlines():
        metrics.update(json.loads(line))
    return metrics


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of ten iterations with checkpoints at 4 and 8: five turns of either player."""
    folder = tmp_path_factory.mktemp("coigan") / "run"
    run(folder, "SOLVER.MAX_ITER", "10", "SOLVER.CHECKPOINT_PERIOD", "4", "SOLVER.SAMPLE_PERIOD", "5", *ADAPTIVE)
    return folder


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(finished, tmp_path):
    """Networks, optimizers, averages, turns, random states, position in the data, probabilities of augmentation."""
    resumed = tmp_path / "resumed"
    resumed.mkdir()
    shutil.copy(finished / "model_0000003.pth", resumed)
    (resumed / "last_checkpoint").write_text("model_0000003.pth")
    loop = run(resumed, "SOLVER.MAX_ITER", "10", "SOLVER.CHECKPOINT_PERIOD", "4", *ADAPTIVE, resume=True)
    assert loop.start_iter == 4
    states = [torch.load(folder / "model_final.pth", weights_only=True) for folder in (finished, resumed)]
    assert states[0]["model"]["path_length.average"] > 0
    assert max(states[0]["model"][f"adaptive.{name}.probability"] for name in ("image", "reference")) > 0
    assert_same(*states)
    assert_same(*[torch.load(folder / "model_final_ema.pth", weights_only=True) for folder in (finished, resumed)])


def test_a_run_leaves_what_a_user_looks_for(finished):
    metrics = last_metrics(finished)
    for name in ("loss_disc_defect", "loss_disc_ref", "loss_adv_defect", "loss_adv_ref", "loss_l1_smooth"):
        assert math.isfinite(metrics[name]), name
    for name in ("loss_disc_r1", "loss_path_length", "gan/path_length", "gan/reference/d_fake", "lr", "lr_disc"):
        assert math.isfinite(metrics[name]), name
    grid = Image.open(finished / "samples" / "iter_0000009.png")
    assert grid.size == (3 * SIZE + 4, 4 * SIZE + 6)
    assert list(finished.glob("events.out.tfevents*"))


def test_the_average_is_no_initial_network(finished):
    """COIGAN's code never updates it."""
    state = torch.load(finished / "model_final.pth", weights_only=True)
    average = torch.load(finished / "model_final_ema.pth", weights_only=True)["model"]
    first = torch.load(finished / "model_0000003.pth", weights_only=True)["trainer"]["hooks"]["GeneratorEMA"]
    name = "layers.0.weight"
    last = state["model"][f"generator.{name}"]
    assert not torch.equal(average[name], last) and not torch.equal(average[name], first["average"][name])
    assert (average[name] - last).norm() < (first["average"][name] - last).norm()


def test_a_trained_generator_travels(finished, tmp_path):
    last, average = (
        read_trained(finished / "model_final.pth", average=False),
        read_trained(finished / "model_final.pth"),
    )
    assert average.digest == read_trained(finished / "model_final_ema.pth").digest != last.digest
    assert average.classes == CLASSES and "moving average" in average.source
    x = torch.rand(2, 5, SIZE, SIZE)
    expected = average.build()(x)
    for name in ("alone.pth", "alone.safetensors"):
        write_trained(average, tmp_path / name)
        alone = read_trained(tmp_path / name)
        assert alone.digest == average.digest and alone.cfg == average.cfg
        torch.testing.assert_close(alone.build()(x), expected, rtol=0, atol=0)
        # in evaluation mode a sample does not depend on its batch
        torch.testing.assert_close(alone.build()(x[:1]), expected[:1])
    assert (tmp_path / "alone.pth").stat().st_size < (finished / "model_final.pth").stat().st_size / 3
    with pytest.raises(UserError, match="neither .pth nor .safetensors"):
        write_trained(average, tmp_path / "alone.onnx")
    with pytest.raises(UserError, match="no weights"):
        torch.save({"a": 1}, tmp_path / "wrong.pth")
        read_trained(tmp_path / "wrong.pth")
    with pytest.raises(UserError, match="config.yaml cannot be read"):
        read_trained(shutil.copy(finished / "model_final.pth", tmp_path))


def test_fid_on_the_way_keeps_the_best(tmp_path):
    tiles = []
    for number in range(12):
        tiles.append(tmp_path / f"{number}.png")
        write_png(tiles[-1], np.random.default_rng(number).integers(80, 160, (SIZE, SIZE, 3), np.uint8))
    data = TrainingData(CLASSES, draw, tiles)
    options = ["SOLVER.MAX_ITER", "4", "TEST.EVAL_PERIOD", "2", "TEST.IMAGES", "12"]
    run(tmp_path / "run", *options, data=data)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.json").read_text().splitlines()]
    scores = {line["iteration"]: line["ema/lite0/FID"] for line in lines if "ema/lite0/FID" in line}
    best = json.loads((tmp_path / "run/model_best_fid.json").read_text())
    assert len(scores) == 2 and best["value"] == pytest.approx(min(scores.values()))
    assert read_trained(tmp_path / "run/model_best_fid.pth").classes == CLASSES
    # scoring must not change what is trained
    run(tmp_path / "blind", "SOLVER.MAX_ITER", "4")
    finals = [torch.load(tmp_path / name / "model_final.pth", weights_only=True) for name in ("run", "blind")]
    assert_same(finals[0]["model"], finals[1]["model"])


def test_crops_on_the_way_keep_a_best_of_their_own(tmp_path, steel):
    options = ["INPUT.SIZE", "64", "DATA.ROOT", str(steel), "SOLVER.MAX_ITER", "2"]
    options += ["TEST.EVAL_PERIOD", "1", "TEST.IMAGES", "8", "TEST.FEATURES", "random"]
    run(tmp_path / "run", *options, data=open_data(load_config("", [*SMALL, *options])))
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.json").read_text().splitlines()]
    scores = [line["ema/builtin-crops/FID"] for line in lines if "ema/builtin-crops/FID" in line]
    best = json.loads((tmp_path / "run/model_best_crop_fid.json").read_text())
    assert len(scores) == 2 and best["value"] == pytest.approx(min(scores)) and min(scores) > 0
    assert (tmp_path / "run/model_best_fid.json").is_file()


def test_mixed_precision_trains(tmp_path):
    run(tmp_path / "run", "SOLVER.MAX_ITER", "3", "SOLVER.AMP", "True")
    assert math.isfinite(last_metrics(tmp_path / "run")["loss_path_length"])


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    def broken(number):
        return {**draw(number), "ref": torch.full((3, SIZE, SIZE), math.nan)}

    with pytest.raises(UserError, match="iteration 0: loss_disc_ref is nan"):
        run(tmp_path / "run", data=TrainingData(CLASSES, broken))


def test_two_processes_share_weights_and_statistics(tmp_path):
    """Both end with the same weights under synchronised normalisation; neither waits for the other for ever."""
    folder = tmp_path / "run"
    folder.mkdir()
    in_two_processes(train_and_save, folder)
    first, second = (torch.load(folder / f"rank{rank}.pth", weights_only=True) for rank in range(2))
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-6, msg=name)
