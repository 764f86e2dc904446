"""Faults of the machine, for the process that calls one of these functions. None of them replaces code of ours but
`worker_dies`, which puts one in front of it: files are met at the system call, whoever makes it."""

import os
import re
import resource
import signal
import sys

import torch
from torch.utils.data import get_worker_info


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def killed_in_forward(call):
    """At the `call`-th forward pass of any module."""
    passed = 0

    def count(module, arguments):
        nonlocal passed
        passed += 1
        if passed == call:
            die()

    torch.nn.modules.module.register_module_forward_pre_hook(count)


def killed_when_a_file_reaches(size):
    """Of the files of a run only a checkpoint gets that large. SIGXFSZ is the kernel's and as final as SIGKILL."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def killed_before(event, path, time=1):
    """Before a file is opened for writing as `path` (event "open"), or gets that name ("os.rename"), the `time`-th."""
    met = 0

    def watch(name, arguments):
        nonlocal met
        if name == event and (_writes(arguments) if name == "open" else True):
            met += _matches(path, arguments[name == "os.rename"])
            if met == time:
                die()

    sys.addaudithook(watch)


def disk_full_for(path):
    """A file that matches `path` is opened, but whatever is written to it does not fit."""

    def watch(name, arguments):
        if name == "open" and _writes(arguments) and _matches(path, arguments[0]):
            file = os.fsdecode(arguments[0])
            if os.path.lexists(file):
                os.remove(file)
            os.symlink("/dev/full", file)

    sys.addaudithook(watch)


def size_limit(size):
    """What `ulimit -f` does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def worker_dies(item, how, training=True):
    """The second data loading worker, of training or of an evaluation, when it is asked for its `item`-th image."""
    from gan_plugin.data.mappers import CheckedDatasetMapper

    original, asked = CheckedDatasetMapper.__call__, 0

    def call(self, record):
        nonlocal asked
        worker = get_worker_info()
        if worker is not None and worker.id == 1 and self.mapper.is_train == training:
            asked += 1
            if asked == item:
                die() if how == "killed" else os._exit(3)
        return original(self, record)

    CheckedDatasetMapper.__call__ = call


def _writes(arguments):
    return isinstance(arguments[0], str | bytes | os.PathLike) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))


def _matches(pattern, path):
    return re.search(pattern, os.fsdecode(path)) is not None
