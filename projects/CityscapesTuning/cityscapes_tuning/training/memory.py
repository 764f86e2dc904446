"""A limit on what a trial may use, so that a search fits beside others on one machine."""

import logging

import torch

_GIB = 1 << 30


def limit_memory(gib: float) -> None:
    """Let this process allocate no more than `gib` GiB: of the GPU's memory if there is one, else of its own data.

    What goes beyond raises the usual out-of-memory errors. 0 for no limit.
    """
    if gib <= 0:
        return
    if torch.cuda.is_available():
        whole = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gib * _GIB / whole))
        return
    try:
        import resource
    except ImportError:
        logging.getLogger(__name__).warning("This system has no memory limits; TUNING.MEMORY_GB is not enforced.")
        return
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (round(gib * _GIB), most))
