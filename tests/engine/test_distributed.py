"""Several processes, and several batches, against one process with one batch of all images."""

import math

import pytest
import torch
from _command_line import flags_first
from detectron2.modeling import build_model
from equal_shares import equal_shares_cfg, save_steps, take_steps
from small_models import make_inputs
from support import in_two_processes

from gan_plugin.engine.check_config import refuse_unsupported
from gan_plugin.errors import UserError


@pytest.fixture(autouse=True)
def unpatched():
    original = torch.randperm
    yield
    torch.randperm = original


def two_processes(folder, mode, norm, objects):
    """(weights, losses) of either process after the steps."""
    in_two_processes(save_steps, folder, mode, norm, objects)
    return [torch.load(folder / f"{rank}.pth") for rank in range(2)]


def assert_close(ours, expected, tolerance):
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        # Detectron2's synchronised normalisation keeps the biased variance, which only evaluation mode would use.
        if value.is_floating_point() and not name.endswith("running_var"):
            # a mean of features grows to 50 and more, where float32 has no such digit
            relative = 1e-5 if name.endswith("running_mean") else 0
            torch.testing.assert_close(
                ours[name], value, rtol=relative, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
            )


@pytest.mark.parametrize("mode, norm", [("joint", "GN"), ("alternating", "GN"), ("alternating", "SyncBN")])
def test_two_processes_are_one_with_the_doubled_batch(tmp_path, mode, norm):
    first, second = two_processes(tmp_path, mode, norm, (3, 3))
    images = [make_inputs(1, instances=3, seed=number)[0] for number in range(2)]
    start = take_steps(equal_shares_cfg(mode, norm), [[images[1]]])[0]
    expected, losses = take_steps(equal_shares_cfg(mode, norm), [images])
    # the synchronised variance is a difference of two means, which costs a digit
    tolerance = 1e-4 if norm == "SyncBN" else 1e-5
    assert_close(first[0], expected, tolerance)
    assert_close(second[0], expected, tolerance)
    # the other image alone leads elsewhere
    moved = "roi_heads.mask_head.predictor.weight"
    assert (start[moved] - expected[moved]).abs().max() > 1e-4
    assert first[1]["loss_mask"] == pytest.approx(losses["loss_mask"], abs=1e-5)


@pytest.mark.parametrize("mode, norm", [("joint", "BN"), ("joint", "SyncBN"), ("alternating", "SyncBN")])
def test_a_process_without_objects_keeps_up(tmp_path, mode, norm):
    (weights, losses), (others, _) = two_processes(tmp_path, mode, norm, (3, 0))
    learnt = [name for name in weights if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert all(torch.equal(weights[name], others[name]) for name in learnt)
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert losses["loss_disc_mask"] > 0 and math.isfinite(losses["loss_disc_box"])


@pytest.mark.parametrize("mode, norm", [("joint", "GN"), ("alternating", "SyncBN")])
def test_a_process_whose_objects_have_no_masks_keeps_up(tmp_path, mode, norm):
    in_two_processes(save_steps, tmp_path, mode, norm, (3, 3), (True, False))
    (weights, losses), (others, _) = (torch.load(tmp_path / f"{rank}.pth") for rank in range(2))
    own = ("running_mean", "running_var", "num_batches_tracked", "inputs", "classes", "place")
    assert all(torch.equal(weights[name], others[name]) for name in weights if not name.endswith(own))
    assert all(torch.isfinite(value).all() for value in weights.values() if value.is_floating_point())
    assert losses["loss_disc_mask"] > 0 and losses["loss_mask"] > 0
    remembered = [(state["adversaries.mask.memory.classes"] >= 0).sum() for state in (weights, others)]
    assert remembered[0] > 0 and remembered[1] == 0


@pytest.mark.parametrize("mode", ["joint", "alternating"])
def test_accumulated_batches_are_one_batch(mode):
    """With absolute weights: a share is one of each batch's own gradient."""
    images = make_inputs(2)
    cfg = equal_shares_cfg(mode)
    cfg.MODEL.GAN.BALANCE.SHARE = 0.0
    whole, whole_losses = take_steps(cfg, [images])
    parts, part_losses = take_steps(cfg, [[image] for image in images], accumulate=2)
    assert_close(parts, whole, 1e-5)
    assert part_losses["loss_mask"] == pytest.approx(whole_losses["loss_mask"], abs=1e-5)


def test_flags_may_follow_config_options():
    line = ["--config-file", "x.yaml", "SOLVER.BASE_LR", "-1", "--num-gpus", "2", "MODEL.DEVICE", "cpu", "--resume"]
    assert flags_first(line) == [*line[:2], "--num-gpus", "2", "--resume", *line[2:4], "MODEL.DEVICE", "cpu"]
    assert flags_first(["A", "b", "--dist-url=auto", "C", "d"]) == ["--dist-url=auto", "A", "b", "C", "d"]


def test_accumulation_in_the_thesis_order_is_refused(tiny_cfg):
    tiny_cfg.MODEL.GAN.MODE, tiny_cfg.SOLVER.ACCUMULATE = "alternating", 2
    with pytest.raises(UserError, match="SOLVER.ACCUMULATE 2 needs MODEL.GAN.ORDER paper"):
        refuse_unsupported(tiny_cfg, build_model(tiny_cfg))


@pytest.mark.parametrize("mode", ["joint", "alternating"])
def test_mixed_precision_stays_near_single(mode):
    images, cfg = make_inputs(2), equal_shares_cfg(mode)
    # a share divides by the norm of a gradient, which half precision moves further than a loss
    cfg.MODEL.GAN.BALANCE.SHARE = 0.0
    single, mixed = (take_steps(cfg, [images], amp=amp, steps=1)[1] for amp in (False, True))
    for name, value in single.items():
        assert mixed[name] == pytest.approx(value, rel=0.1, abs=0.02), name
    assert any(mixed[name] != value for name, value in single.items())
