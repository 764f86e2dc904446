"""Tracing of a stock Mask R-CNN, by Detectron2's own adapter."""

import io
import warnings
from pathlib import Path
from typing import Any

import torch
from detectron2.export import TracingAdapter
from torch import nn

from gan_plugin.errors import UserError
from gan_plugin.files import write_whole

from .export import ADVICE


def trace_model(model: nn.Module, height: int, width: int) -> torch.jit.ScriptModule:
    """A TorchScript module that does what `model` does for one image of `height` x `width` pixels.

    Its input is the image as a float32 tensor (3, height, width) in the config's channel order and 0..255, already
    resized as for inference. It returns, for N detections in pixels of that image: boxes (N, 4) as x0, y0, x1, y1;
    classes (N,), int64; with a mask head, masks (N, 1, 28, 28), probabilities within each box; scores (N,).

    Above 1000 proposals an image, torchvision's NMS uses another formula in a trace than in eager mode on a CPU, so
    the results are then equal up to rounding.

    Args:
        model: a GeneralizedRCNN on the CPU, in evaluation mode, whose parameters require no gradient.

    Raises:
        UserError: the model cannot be traced, or the traced module does not agree with it on a second image.
    """
    example, other = (_noise(seed, height, width) for seed in (0, 1))
    adapter = TracingAdapter(model, [{"image": example}], _detect)
    try:
        with warnings.catch_warnings():
            # about asserts and constants that a trace leaves out; the second image below is the judge of that
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(adapter, (example,), check_trace=False)
            agree = all(_equal(a, b) for a, b in zip(traced(other), adapter(other), strict=True))
    except (RuntimeError, ValueError, AssertionError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"This model cannot be traced at {height}x{width} ({reason}); leave --torchscript away."
        ) from error
    if not agree:
        raise UserError(f"The model traced at {height}x{width} does not repeat its own results; try another size.")
    return traced


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-3)


def write_torchscript(module: torch.jit.ScriptModule, out: Path) -> None:
    """Write `module` as `out`, whole or not at all, for `torch.jit.load`; UserError if that is impossible."""
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    write_whole(out, lambda file: file.write(buffer.getbuffer()), ADVICE)


def _detect(model: Any, inputs: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
    # Pasting masks into the image depends on each box in a way that a trace cannot record.
    return model.inference(inputs, do_postprocess=False)[0].get_fields()


def _noise(seed: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed)) * 255
