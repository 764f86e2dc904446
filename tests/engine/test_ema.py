"""The moving average against its recurrence."""

import pytest
import torch
from detectron2.modeling import build_model

from gan_plugin.engine.hooks import GeneratorEMA


def test_average_follows_the_recurrence_and_swaps_in_and_out(tiny_cfg):
    model = build_model(tiny_cfg)
    ema = GeneratorEMA(model, decay=0.2)
    name = "roi_heads.mask_head.predictor.bias"
    weight = model.get_parameter(name)
    with torch.no_grad():
        weight.fill_(1.0)
        ema.before_train()
        expected = 1.0
        for step, value in enumerate([2.0, 3.0, 5.0], start=1):
            weight.fill_(value)
            ema.after_step()
            decay = min(0.2, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * value
    assert ema.generator_state()[name].tolist() == pytest.approx([expected] * len(weight))
    with ema.in_place():
        assert weight.tolist() == pytest.approx([expected] * len(weight))
    assert weight.tolist() == [5.0] * len(weight)
    assert set(ema.generator_state()) == {k for k in model.state_dict() if not k.startswith("adversaries.")}

    other = GeneratorEMA(build_model(tiny_cfg), decay=0.2)
    other.load_state_dict(ema.state_dict())
    other.before_train()
    assert torch.equal(other.generator_state()[name], ema.generator_state()[name])
