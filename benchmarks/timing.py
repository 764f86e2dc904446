"""Times of several actions, one after another in every round, so that a busy machine slows all alike."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

Table = dict[str, dict[str, float]]


def timed(action: Callable[[], Any], device: str) -> float:
    """Seconds that `action` takes, including what it leaves running on a GPU."""
    start = time.perf_counter()
    action()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interleave(actions: dict[str, Callable[[], Any]], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of every action in every round; one round before, for warming up, does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds + 1):
        for name, action in actions.items():
            elapsed = timed(action, device)
            if number:
                seconds[name].append(elapsed)
    return seconds


def summarise(seconds: dict[str, list[float]], baseline: str) -> Table:
    """Median seconds of each action, and min, median and max of its ratio to `baseline` in the same round."""
    table = {}
    for name, values in seconds.items():
        ratios = [value / base for value, base in zip(values, seconds[baseline], strict=True)]
        table[name] = {
            "seconds": statistics.median(values),
            "ratio_min": min(ratios),
            "ratio_median": statistics.median(ratios),
            "ratio_max": max(ratios),
        }
    return table
