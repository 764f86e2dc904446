"""Training batches that depend on the seed and the iteration alone, so that a resumed run sees what it would have.

The loaders with plain arguments at the end are for `dataloader.train` and `dataloader.test` of a LazyConfig.
"""

import re
import weakref
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing.util import Finalize
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from detectron2.data.build import trivial_batch_collator
from detectron2.data.common import DatasetFromList
from detectron2.data.samplers import RandomSubsetTrainingSampler, RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, get_worker_info

from gan_plugin.config import check_name
from gan_plugin.data.mappers import CheckedDatasetMapper, keep_masks, mapper_class
from gan_plugin.errors import UserError

from .distributed import forking_workers, outlive_one_signal, preserved_rng

_SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler")
Mapper = Callable[[dict[str, Any]], Any]


class ResumableTrainLoader:
    """Detectron2's training loader, restartable at any batch.

    The order of images comes from the seed; the augmentation of an image from the seed and its position in the stream.
    Neither touches the global random state, whatever the number of workers.
    """

    def __init__(
        self,
        dataset_dicts: list[Any],
        mapper: Callable[[Any], Any],
        *,
        seed: int,
        total_batch_size: int,
        num_workers: int = 0,
        aspect_ratio_grouping: bool = True,
        make_sampler: Callable[[list[dict[str, Any]], int], Sampler] | None = None,
    ) -> None:
        """
        Args:
            dataset_dicts: in Detectron2's format, or whatever else `mapper` takes if nothing is grouped.
            mapper: makes a model input of one of them.
            seed: of order and augmentation; the same in every process.
            total_batch_size: images of a batch over all processes.
            num_workers: worker processes, 0 to load in this one.
            aspect_ratio_grouping: whether a batch holds only wide or only tall images.
            make_sampler: (dataset_dicts, seed) -> an endless sampler; by default a TrainingSampler.
        """
        self.seed = seed
        self.first_batch = 0
        self._dicts = dataset_dicts
        self._mapper = mapper
        self._batch_size = total_batch_size // comm.get_world_size()
        self._num_workers = num_workers
        self._grouping = aspect_ratio_grouping
        self._make_sampler = make_sampler or _training_sampler

    def __iter__(self) -> Iterator[list[Any]]:
        order = _PositionSampler(
            self._make_sampler(self._dicts, self.seed),
            [_is_wide(record) for record in self._dicts] if self._grouping else None,
            self._batch_size,
            self.first_batch,
        )
        # PyTorch's own loader: the arguments of Detectron2's differ from build to build, and this one needs no more.
        loader = DataLoader(
            _SeededDataset(self._dicts, self._mapper, self.seed),
            batch_sampler=BatchSampler(order, self._batch_size, drop_last=True),
            num_workers=self._num_workers,
            collate_fn=trivial_batch_collator,
            generator=torch.Generator().manual_seed(self.seed % 2**63),
        )
        with forking_workers():
            batches = iter(loader)
        if self._num_workers:
            # Our workers outlive one signal, the one by which multiprocessing would end them when this process does.
            Finalize(None, _end_workers, args=(weakref.ref(batches),), exitpriority=100)
        return batches

    def state_dict(self) -> dict[str, int]:
        """The seed. The position is the trainer's iteration."""
        return {"seed": self.seed}

    def load_state_dict(self, state: dict[str, int], first_batch: int) -> None:
        """Continue the stream of `state` at batch number `first_batch`; iterators made before are not affected."""
        self.seed = state["seed"]
        self.first_batch = first_batch


def _end_workers(batches: weakref.ref) -> None:
    iterator = batches()
    if iterator is not None:
        iterator._shutdown_workers()


class _PositionSampler(Sampler):
    """Yields (index, position): whole batches one after another, each of one aspect if `wide` is given."""

    def __init__(self, sampler: Sampler, wide: list[bool] | None, batch_size: int, first_batch: int) -> None:
        self._sampler = sampler
        self._wide = wide
        self._batch_size = batch_size
        self._first = first_batch * batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        pairs = ((index, position) for position, index in enumerate(self._in_batches()))
        return islice(pairs, self._first, None)

    def _in_batches(self) -> Iterator[int]:
        if self._wide is None:
            yield from self._sampler
            return
        waiting: dict[bool, list[int]] = {True: [], False: []}
        for index in self._sampler:
            bucket = waiting[self._wide[index]]
            bucket.append(index)
            if len(bucket) == self._batch_size:
                yield from bucket
                bucket.clear()


class _SeededDataset(Dataset):
    """Maps (index, position) to a model input, with the random state of that position alone."""

    def __init__(self, dataset_dicts: list[dict[str, Any]], mapper: Callable, seed: int) -> None:
        self._records = DatasetFromList(dataset_dicts, copy=False)
        self._mapper = mapper
        self._seed = seed * comm.get_world_size() + comm.get_rank()
        self._prepared = False

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        if not self._prepared:
            self._prepared = True
            if get_worker_info() is not None:
                # Not earlier: a worker of PyTorch sets its own handler of SIGTERM when it starts.
                outlive_one_signal()
        index, position = key
        own_seed = int(np.random.SeedSequence([self._seed, position]).generate_state(1, np.uint64)[0])
        with preserved_rng(seed=own_seed >> 1):
            # A mapper may refuse a record by returning None; the next one takes its place, as in Detectron2.
            for offset in range(len(self)):
                item = self._mapper(self._records[(index + offset) % len(self)])
                if item is not None:
                    return item
        raise UserError("The training mapper refused every image; check DATASETS.TRAIN and INPUT.")


def _is_wide(record: dict[str, Any]) -> bool:
    return record["width"] > record["height"]


def _training_sampler(dataset_dicts: list[dict[str, Any]], seed: int) -> Sampler:
    return TrainingSampler(len(dataset_dicts), seed=seed)


def _sampler_factory(cfg: CfgNode) -> Callable[[list[dict[str, Any]], int], Sampler]:
    name = check_name("DATALOADER.SAMPLER_TRAIN", cfg.DATALOADER.SAMPLER_TRAIN, _SAMPLERS)
    if name == "TrainingSampler":
        return _training_sampler
    if name == "RepeatFactorTrainingSampler":

        def repeat_factor(dicts: list[dict[str, Any]], seed: int) -> Sampler:
            # The key and the argument came to Detectron2 together, after 0.6.
            options = {"sqrt": cfg.DATALOADER.REPEAT_SQRT} if "REPEAT_SQRT" in cfg.DATALOADER else {}
            factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
                dicts, cfg.DATALOADER.REPEAT_THRESHOLD, **options
            )
            return RepeatFactorTrainingSampler(factors, seed=seed)

        return repeat_factor
    ratio = cfg.DATALOADER.RANDOM_SUBSET_RATIO
    return lambda dicts, seed: RandomSubsetTrainingSampler(len(dicts), ratio, seed_shuffle=seed, seed_subset=seed)


def build_resumable_train_loader(
    cfg: CfgNode, mapper: Callable[[dict[str, Any]], Any] | None = None
) -> ResumableTrainLoader:
    """The training loader of a config.

    Args:
        cfg: with the plugin's keys.
        mapper: makes a model input of a record; by default Detectron2's, behind our checks on every file it opens.

    Raises:
        UserError: the sampler is unknown, no image is left to train on, or the processes do not divide the batch.
    """
    processes = comm.get_world_size()
    if cfg.SOLVER.IMS_PER_BATCH <= 0 or cfg.SOLVER.IMS_PER_BATCH % processes:
        raise UserError(f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}; make it a multiple of {processes}.")
    return ResumableTrainLoader(
        _training_records(cfg),
        mapper or CheckedDatasetMapper(mapper_class(cfg)(cfg, is_train=True)),
        seed=cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed(),
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        make_sampler=_sampler_factory(cfg),
    )


def _training_records(cfg: CfgNode) -> list[dict[str, Any]]:
    records = training_records(
        cfg.DATASETS.TRAIN,
        cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        min_keypoints=cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0,
        proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
    )
    share = cfg.DATASETS.MASK_SHARE
    return keep_masks(records, share, cfg.DATASETS.SUBSETS.SEED) if share < 1 else records


def training_records(names: Any, filter_empty: bool = True, **options: Any) -> list[dict[str, Any]]:
    """The records of the training sets `names`, one or several; arguments as in `get_detection_dataset_dicts`.

    Raises:
        UserError: nothing is left to train on.
    """
    names = [names] if isinstance(names, str) else list(names)
    try:
        return get_detection_dataset_dicts(names, filter_empty, **options)
    except AssertionError as error:
        # Detectron2's two sentences on that; whatever else a data set asserts is another matter
        if names and not re.match(r"Dataset '.*' is empty!|No valid data found in ", str(error)):
            raise
        raise UserError(
            f"There is nothing to train on in DATASETS.TRAIN {tuple(names)}: {error or 'no data set'}. "
            "Images without instances are left out unless DATALOADER.FILTER_EMPTY_ANNOTATIONS is False."
        ) from error


def resumable_train_loader(
    dataset: list[dict[str, Any]],
    mapper: Mapper,
    *,
    total_batch_size: int,
    num_workers: int = 0,
    seed: int = -1,
    aspect_ratio_grouping: bool = True,
) -> ResumableTrainLoader:
    """A ResumableTrainLoader, with our checks on every file that `mapper` opens.

    Args:
        dataset: `training_records`.
        mapper: makes a model input of one of them.
        seed: of order and augmentation; below 0 one is drawn that all processes share.
        total_batch_size, num_workers, aspect_ratio_grouping: as for ResumableTrainLoader.

    Raises:
        UserError: the processes do not divide the batch.
    """
    processes = comm.get_world_size()
    if total_batch_size <= 0 or total_batch_size % processes:
        raise UserError(
            f"dataloader.train.total_batch_size is {total_batch_size}; make it a positive multiple of {processes}."
        )
    return ResumableTrainLoader(
        dataset,
        CheckedDatasetMapper(mapper),
        seed=seed if seed >= 0 else comm.shared_random_seed(),
        total_batch_size=total_batch_size,
        num_workers=num_workers,
        aspect_ratio_grouping=aspect_ratio_grouping,
    )


def checked_test_loader(dataset: list[dict[str, Any]], mapper: Mapper, **options: Any) -> Any:
    """Detectron2's `build_detection_test_loader`, with our checks on every file that `mapper` opens."""
    return build_detection_test_loader(dataset=dataset, mapper=CheckedDatasetMapper(mapper), **options)
