"""The random state of a process: saved, restored, kept apart."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def capture_rng_state() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's global generators (and the current GPU's, if one is in use).

    Only tensors and plain Python values, so that a checkpoint with it loads under `weights_only`.
    """
    legacy: Any = np.random.get_state()
    _, keys, position, has_gauss, cached = legacy
    state = {
        "python": random.getstate(),
        "numpy": (torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_rng_state(state: dict[str, Any]) -> None:
    """Set every global generator to a state that `capture_rng_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


@contextmanager
def preserved_rng(seed: int | None = None) -> Iterator[None]:
    """Leave the global generators as they were, whatever the block draws; inside they start from `seed` if given."""
    state = capture_rng_state()
    try:
        if seed is not None:
            _seed(seed)
        yield
    finally:
        restore_rng_state(state)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # torch.manual_seed would leave seeds for GPUs that are not in use yet, which nothing takes back, and note the call
    # stack for each, which takes milliseconds.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
