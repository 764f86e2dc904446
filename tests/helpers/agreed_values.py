"""What one of two processes holds of gate, ADA, balance and mean after both have told each other; run by tests."""

import json

import torch
from detectron2.utils import comm

from gan_plugin.modeling.samples import MaskSamples
from gan_plugin.modeling.stability import AccuracyGate, AdaptiveAugment, GradientShare, mean_over_processes


def agreed(rank):
    """By name, of process `rank`, which has seen other verdicts than its fellow."""
    own = torch.tensor([1.0 + rank, 4.0], requires_grad=True)
    mean = mean_over_processes(own)
    assert own.tolist() == [1 + rank, 4] and not mean.requires_grad

    gate = AccuracyGate(0.6)
    gate.update(*[(1.0, 3), (0.5, 1)][rank])
    gate.update(*[(1.0, 2), (0.0, 0)][rank])

    augment = AdaptiveAugment("flip", target=0.6, images=100)
    augment.observe(torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, -1]][rank]))

    # two logits, one in each process or both in the first; a head's loss of slopes 3 and 4, a verdict's of 1 and 2
    shares = {}
    for case, slopes in {"both": [([3.0], [1.0]), ([4.0], [2.0])], "one": [([3.0, 4.0], [1.0, 2.0]), ([], [])]}.items():
        own, pull = (torch.tensor(slope) for slope in slopes[rank])
        logits = torch.zeros(len(own), requires_grad=True)
        nothing = torch.zeros(len(own))
        samples = MaskSamples(logits, nothing, nothing, nothing, nothing, (), (logits * own).sum(), logits)
        shares[case] = GradientShare(0.5)({"": (logits * pull).sum()}, samples)[1].item()
    return {
        "mean": mean.tolist(),
        "accuracy": gate.accuracy.item(),
        "probability": augment.probability.item(),
        "shares": shares,
    }


def write_agreed(folder):
    """In one of two processes: leave what it holds in `folder`."""
    rank = comm.get_rank()
    (folder / f"{rank}.json").write_text(json.dumps(agreed(rank)))
