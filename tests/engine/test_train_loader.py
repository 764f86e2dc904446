"""Batches depend on the seed and their number alone."""

from itertools import islice

import pytest
import torch
from detectron2.data.samplers import TrainingSampler

from gan_plugin.engine.train_loader import ResumableTrainLoader, build_resumable_train_loader
from gan_plugin.errors import UserError

RECORDS = [{"index": i, "width": 20 if i % 3 else 10, "height": 15} for i in range(10)]


def noisy(record):
    return record["index"], record["width"] > record["height"], torch.rand(1).item()


def batches(count, first=0, workers=0, grouping=True, mapper=noisy, seed=4):
    loader = ResumableTrainLoader(
        RECORDS, mapper, seed=seed, total_batch_size=2, num_workers=workers, aspect_ratio_grouping=grouping
    )
    loader.load_state_dict(loader.state_dict(), first_batch=first)
    return list(islice(loader, count))


def test_a_later_start_continues_the_same_stream():
    whole = batches(20)
    assert whole[7:] == batches(13, first=7)
    assert whole != batches(20, seed=5)


def test_workers_change_nothing():
    assert batches(9, first=2) == batches(9, first=2, workers=2)


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    batches(5)
    assert torch.equal(torch.rand(2), expected)


def test_batches_have_one_aspect_and_no_image_is_lost():
    whole = batches(50)
    assert all(len({wide for _, wide, _ in batch}) == 1 for batch in whole)
    seen = sorted(index for batch in whole for index, _, _ in batch)
    assert min(seen.count(i) for i in range(10)) >= 8


def test_without_grouping_the_order_is_detectron2s():
    ours = [index for batch in batches(10, grouping=False) for index, _, _ in batch]
    assert ours == list(islice(TrainingSampler(10, seed=4), 20))


def test_refused_records_are_replaced_by_the_next():
    some = batches(10, grouping=False, mapper=lambda r: r["index"] if r["index"] % 2 else None)
    plain = [index for batch in batches(10, grouping=False) for index, _, _ in batch]
    assert [i for batch in some for i in batch] == [i if i % 2 else i + 1 for i in plain]
    with pytest.raises(UserError, match="refused every image"):
        batches(1, mapper=lambda record: None)


@pytest.mark.parametrize("name", ["RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler"])
def test_detectron2s_other_samplers_resume_as_well(run_cfg, name):
    run_cfg.DATALOADER.SAMPLER_TRAIN = name
    run_cfg.DATALOADER.REPEAT_THRESHOLD = 0.5
    run_cfg.DATALOADER.RANDOM_SUBSET_RATIO = 0.5
    loader = build_resumable_train_loader(run_cfg)
    whole = [[item["file_name"] for item in batch] for batch in islice(loader, 8)]
    loader.load_state_dict(loader.state_dict(), first_batch=5)
    assert [[item["file_name"] for item in batch] for batch in islice(loader, 3)] == whole[5:]


@pytest.mark.parametrize("key, value", [("DATALOADER.SAMPLER_TRAIN", "Ordered"), ("SOLVER.IMS_PER_BATCH", 0)])
def test_wrong_options_are_named(run_cfg, key, value):
    run_cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=key):
        build_resumable_train_loader(run_cfg)
