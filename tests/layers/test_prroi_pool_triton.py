"""The Triton kernels against the plain PyTorch path, on a GPU and in Triton's interpreter.

Triton reads TRITON_INTERPRET when it is imported, so that a process of its own runs this file with it.
"""

import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import gan_plugin.layers
from gan_plugin.layers import prroi_pool as module
from gan_plugin.layers.prroi_pool import prroi_pool

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
ROOT = Path(__file__).resolve().parents[2]

runs_kernels = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="no GPU; test_in_the_interpreter runs it without"
)
once = pytest.mark.skipif(INTERPRETED, reason="runs in the other process")

BAD_BOXES = [
    [0, 8, 8, 8, 20],
    [0, 20, 20, 8, 8],
    [1, -90, 0, -50, 9],
    [0, 8, 8, math.nan, 20],
    [0, 2, 2, math.inf, 8],
    [1, -math.inf, 2, math.inf, 9],
    [0, 0, 0, 1e-38, 1e-38],
]
GOOD_BOXES = [[0, 4.3, 8.2, 37, 29], [1, -13, -18, 90, 120], [1, 20, 21, 20.04, 22.3], [0, 33, -5, 47.7, 13.3]]


@once
def test_in_the_interpreter():
    pytest.importorskip("triton", minversion="3.0", reason="no interpreter without a GPU in older ones")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


@pytest.fixture
def pool_both_ways(monkeypatch):
    """Pool with the kernels and without; returns the two results of `task`, which calls `prroi_pool`."""
    from gan_plugin.layers import prroi_pool_triton

    used = []

    def both(task):
        def kernels(features):
            used.append(features)
            return prroi_pool_triton

        monkeypatch.setattr(module, "_kernels", kernels)
        ours = task()
        assert used
        monkeypatch.setattr(module, "_kernels", lambda features: None)
        return ours, task()

    return both


def _features(channels, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, channels, 9, 13, generator=generator).to(DEVICE, dtype).requires_grad_()


def _boxes(boxes):
    return torch.tensor(boxes, dtype=torch.float32, device=DEVICE).reshape(-1, 5).requires_grad_()


def _results(features, boxes, bins):
    """Pooled values, gradients of features and boxes, for a fixed random gradient of the values."""
    pooled = prroi_pool(features, boxes, bins, 0.25)
    grad = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1)).to(pooled)
    return pooled, *torch.autograd.grad(pooled, (features, boxes), grad)


def _assert_close(ours, theirs, ulp=3e-6):
    assert ours[0].is_contiguous()  # as RoIAlign's, whatever the device
    for actual, expected in zip(ours, theirs, strict=True):
        assert actual.dtype == expected.dtype
        largest = float(expected.detach().abs().max())
        torch.testing.assert_close(actual, expected, rtol=ulp, atol=ulp * max(1.0, largest))


# 130 channels need a second block; a bin of the whole map and the 1 x 1 grid need several tiles of cells.
@runs_kernels
@pytest.mark.parametrize(("channels", "bins"), [(1, (2, 3)), (3, (3, 2)), (32, (1, 1)), (130, (1, 2))])
def test_same_values_and_gradients(pool_both_ways, channels, bins):
    features, boxes = _features(channels), _boxes(GOOD_BOXES + BAD_BOXES[:4])
    _assert_close(*pool_both_ways(lambda: _results(features, boxes, bins)))


@runs_kernels
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_accumulates_in_float32(pool_both_ways, dtype):
    features, boxes = _features(20, dtype), _boxes(GOOD_BOXES)
    # Each value is rounded once, at the end, but may lie on the edge between two; the boxes' gradient is not rounded.
    ours, theirs = pool_both_ways(lambda: _results(features, boxes, 1))
    _assert_close(ours[:2], theirs[:2], ulp=torch.finfo(dtype).eps)
    torch.testing.assert_close(ours[2], theirs[2], rtol=3e-6, atol=3e-5)


@runs_kernels
def test_boxes_without_overlap_give_zero_and_no_gradient(pool_both_ways):
    for result in pool_both_ways(lambda: _results(_features(3), _boxes(BAD_BOXES), 1))[0]:
        assert torch.equal(result, torch.zeros_like(result))


@runs_kernels
def test_no_boxes_keep_the_graph(pool_both_ways):
    ours, theirs = pool_both_ways(lambda: _results(_features(3), _boxes([]), (7, 5)))
    assert ours[0].shape == (0, 3, 7, 5)
    assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


@runs_kernels
@pytest.mark.parametrize("wanted", ["features", "boxes", "neither"])
def test_strides_autocast_and_unwanted_gradients(pool_both_ways, wanted):
    leaves = {"features": _features(8), "boxes": _boxes(GOOD_BOXES)}

    def task():
        features, boxes = (leaf if name == wanted else leaf.detach() for name, leaf in leaves.items())
        with torch.autocast(DEVICE, torch.bfloat16):
            pooled = prroi_pool(features.mT[:, ::2], boxes.flip(0), 1, 0.25)
        assert pooled.requires_grad == (wanted != "neither")
        # The gradient of a sum is one number seen as a tensor.
        return pooled, *(torch.autograd.grad(pooled.sum(), leaves[wanted]) if wanted != "neither" else ())

    ours, theirs = pool_both_ways(task)
    assert ours[0].dtype == torch.float32
    _assert_close(ours, theirs)


@once
@runs_kernels
def test_on_a_map_of_real_size(pool_both_ways):
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(2, 256, 128, 200, generator=generator).cuda().requires_grad_()
    start = torch.rand(500, 2, generator=generator) * 700 - 30
    images = torch.arange(500)[:, None] % 2
    boxes = torch.cat([images, start, start + torch.rand(500, 2, generator=generator) ** 3 * 500], 1)
    boxes = boxes.cuda().requires_grad_()
    first, theirs = pool_both_ways(lambda: _results(features, boxes, 7))
    # The sums over 256 channels and 49 bins are in float32, in another order.
    for actual, expected in zip(first, theirs, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.detach().abs().max()))
    second = pool_both_ways(lambda: _results(features, boxes, 7))[0]
    assert torch.equal(first[0], second[0]) and torch.equal(first[2], second[2])


@once
@pytest.mark.parametrize("capability, pooled", [(75, "*fp16"), (90, "*bf16")])
@pytest.mark.parametrize("ones", [(), ("channels", "width", "bins_y", "bins_x")])  # compiled in, as at launch
def test_kernels_compile(monkeypatch, tmp_path, capability, pooled, ones):
    triton = pytest.importorskip("triton")
    compiler = pytest.importorskip("triton.backends.compiler")
    if "nvidia" not in triton.backends.backends:
        pytest.skip("Triton has no CUDA compiler")
    from gan_plugin.layers import prroi_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # Triton 3.9 warns if nobody chooses
    target = compiler.GPUTarget("cuda", capability, 32)
    pointers = {"surface": "*fp32", "spans": "*i64", "weights": "*fp32", "pooled": pooled, "edges": "*fp32"}
    constants = {"CELLS": 16, "CHANNELS": 128, **dict.fromkeys(ones, 1)}
    for kernel in (prroi_kernels.pool, prroi_kernels.features_gradient, prroi_kernels.edges_gradient):
        signature = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in kernel.arg_names}
        source = triton.compiler.ASTSource(kernel, signature, constants)
        assert triton.compile(source, target=target).asm["cubin"]


class TestChoice:
    """Which features go to the kernels; a stand-in takes the place of a tensor on a GPU."""

    @pytest.fixture(autouse=True)
    def working_kernels(self, monkeypatch):
        monkeypatch.setattr(module, "_kernels_on", lambda device, dtype: "kernels")

    def _chosen(self, dtype=torch.float32, is_cuda=True, numel=1):
        return module._kernels(SimpleNamespace(is_cuda=is_cuda, dtype=dtype, numel=lambda: numel, device="cuda:0"))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_a_gpus_floats(self, dtype):
        assert self._chosen(dtype) == "kernels"

    @pytest.mark.parametrize("other", [{"dtype": torch.float64}, {"is_cuda": False}, {"numel": 0}])
    def test_others_stay_in_pytorch(self, other):
        assert self._chosen(**other) is None

    def test_not_if_results_must_be_deterministic(self):
        torch.use_deterministic_algorithms(True)
        try:
            assert self._chosen() is None
        finally:
            torch.use_deterministic_algorithms(False)


@once
def test_works_without_triton(monkeypatch):
    for name in ("prroi_pool_triton", "prroi_kernels"):
        monkeypatch.delitem(sys.modules, f"gan_plugin.layers.{name}", raising=False)
        monkeypatch.delattr(gan_plugin.layers, name, raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    assert module._kernels_on.__wrapped__(torch.device("cpu"), torch.float32) is None


@once
def test_works_where_triton_fails(monkeypatch, caplog):
    triton_path = pytest.importorskip("gan_plugin.layers.prroi_pool_triton")

    def fail(*_):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(triton_path, "probe", fail)
    assert module._kernels_on.__wrapped__(torch.device("cpu"), torch.float32) is None
    assert "Failed to find C compiler" in caplog.text
