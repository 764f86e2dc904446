"""How fast training samples are made."""

import time

from yacs.config import CfgNode

from gan_plugin.engine.train_loader import ResumableTrainLoader

from .data import open_data
from .training import SampleMapper


def samples_per_second(cfg: CfgNode, workers: int, batches: int = 20, batch: int = 8) -> float:
    """Samples of the prepared data set DATA.ROOT a second, after a first batch that starts the workers.

    Args:
        cfg: with DATA.ROOT and INPUT.
        workers: processes that load; 0 for this one.
        batches: that are timed.
        batch: samples in one.

    Raises:
        UserError: there is no prepared data set.
    """
    loader = ResumableTrainLoader(
        [{"number": number} for number in range(batch)],
        SampleMapper(open_data(cfg).draw),
        seed=cfg.SEED,
        total_batch_size=batch,
        num_workers=workers,
        aspect_ratio_grouping=False,
    )
    stream = iter(loader)
    next(stream)
    start = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return batches * batch / (time.perf_counter() - start)
