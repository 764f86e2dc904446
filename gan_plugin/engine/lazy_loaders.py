"""Our data loaders with plain arguments, for `dataloader.train` and `dataloader.test` of a LazyConfig."""

from collections.abc import Callable
from typing import Any

from detectron2.data import build_detection_test_loader
from detectron2.utils import comm

from gan_plugin.data.checks import CheckedDatasetMapper
from gan_plugin.errors import UserError

from .train_loader import ResumableTrainLoader

Mapper = Callable[[dict[str, Any]], Any]


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
