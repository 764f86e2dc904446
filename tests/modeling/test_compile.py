"""MODEL.GAN.COMPILE: the same names, the same losses, the same gradients."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from gan_plugin.errors import UserError


def test_compiled_discriminator_gives_the_same_gradients(tiny_cfg, make_inputs, monkeypatch):
    compile_module = torch.nn.Module.compile
    # the code generator takes most of a minute, and the tracing before it is what could go wrong
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **options: compile_module(self, backend="aot_eager", **options)
    )
    # each convolution is traced; it needs no more than one in the middle
    tiny_cfg.MODEL.GAN.MASK.CHANNELS, tiny_cfg.MODEL.GAN.MASK.INPUT_SIZE = (8, 8), 8
    models = []
    for switch in (False, True):
        tiny_cfg.MODEL.GAN.COMPILE = switch
        torch.manual_seed(0)
        models.append(build_model(tiny_cfg).train())
    plain, compiled = models
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    # batches with different numbers of masks
    for instances in (2, 4):
        results = []
        for model in models:
            torch.manual_seed(1)
            with EventStorage(0):
                losses = model(make_inputs(instances=instances))
            sum(losses.values()).backward()
            results.append(losses)
        assert results[0].keys() == results[1].keys()
        for name, value in results[0].items():
            torch.testing.assert_close(results[1][name], value, msg=name)
    for (name, a), b in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("key, value", [("REG.R1_GAMMA", 1.0), ("REG.GP_WEIGHT", 1.0)])
def test_what_needs_a_second_derivative_is_refused(tiny_cfg, key, value):
    tiny_cfg.merge_from_list(["MODEL.GAN.COMPILE", True, f"MODEL.GAN.{key}", value])
    with pytest.raises(UserError, match="MODEL.GAN.COMPILE makes a discriminator that is differentiated once"):
        build_model(tiny_cfg)
