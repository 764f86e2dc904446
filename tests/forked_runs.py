"""Runs of the trainer without a new interpreter for each."""

import logging
import os
import signal
import sys
import time

import train_net
from detectron2.utils.logger import setup_logger

from gan_plugin.comparison.process import TrainNet
from gan_plugin.errors import run_command_line


class Forked(TrainNet):
    """Runs train_net's `main` in a child of this process, which saves the seconds of importing everything again."""

    def __init__(self, tool, arguments, folder, environment, keep_open):
        folder.mkdir(parents=True, exist_ok=True)
        self._console, self._process = folder / "console.txt", self
        self._pid, self._code = os.fork(), None
        if self._pid:
            return
        code = 70
        try:
            console = os.open(self._console, os.O_CREAT | os.O_WRONLY)
            os.dup2(console, 1)
            os.dup2(console, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            setup_logger.cache_clear()
            for name in ("detectron2", "fvcore", "gan_plugin"):
                logging.getLogger(name).handlers.clear()
            code = run_command_line(lambda: train_net.main(list(arguments)))
        finally:
            sys.stderr.flush()
            os._exit(code)

    def poll(self):
        if self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def terminate(self):
        os.kill(self._pid, signal.SIGTERM)

    def wait(self):
        while self.poll() is None:
            time.sleep(0.01)
        return self._code
