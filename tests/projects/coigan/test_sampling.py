"""Samples of the training loader: other ones for every worker and process, the same for every position."""

import pytest
import torch
from coigan.config import get_cfg
from coigan.data.samples import SampleMapper, open_data
from detectron2.utils import comm

from gan_plugin.engine.train_loader import ResumableTrainLoader


@pytest.fixture
def loader_of(steel):
    """(workers, first batch) -> the samples of four batches of two."""
    cfg = get_cfg()
    cfg.INPUT.SIZE, cfg.DATA.ROOT, cfg.INPUT.NOISE.SMOOTH = 64, str(steel), 11
    mapper = SampleMapper(open_data(cfg).draw)

    def samples(workers, first=0, total=2):
        records = [{"number": number} for number in range(2)]
        loader = ResumableTrainLoader(
            records, mapper, seed=3, total_batch_size=total, num_workers=workers, aspect_ratio_grouping=False
        )
        loader.load_state_dict(loader.state_dict(), first)
        batches = iter(loader)
        return [sample for _ in range(4) for sample in next(batches)]

    return samples


def _same(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


def test_workers_draw_different_samples_that_depend_on_their_position_alone(loader_of):
    alone, two = loader_of(0), loader_of(2)
    assert all(map(_same, alone, two))
    inputs = [sample["gen_input"] for sample in two]
    assert not any(torch.equal(a, b) for place, a in enumerate(inputs) for b in inputs[:place])
    assert inputs[0].shape == (7, 64, 64) and two[0]["disc_input"].shape == (12, 64, 64)
    # two batches of two on: what a resumed run sees
    assert all(map(_same, loader_of(2, first=2)[:4], alone[4:]))


def test_ranks_draw_different_samples(loader_of, monkeypatch):
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    ranks = []
    for rank in (0, 1, 0):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        ranks.append([sample["gen_input"] for sample in loader_of(0, total=4)])
    first, second, again = ranks
    assert all(map(torch.equal, first, again))
    assert not any(torch.equal(one, other) for one in first for other in second)
