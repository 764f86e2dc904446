"""Programs without a new interpreter for each, which would import everything again."""

import logging
import os
import signal
import subprocess
import sys
import time
import traceback

from detectron2.utils.logger import setup_logger

from gan_plugin.comparison.run import TrainNet
from gan_plugin.errors import run_command_line


class Fork:
    """`work()` in a child of this process, whose output goes to a file; answers as a `subprocess.Popen` would."""

    def __init__(self, work, console, *, new_session=False):
        """
        Args:
            work: returns the exit code, or None for 0.
            console: path of the file.
            new_session: whether the child leads a process group of its own.
        """
        self.pid, self.returncode = os.fork(), None
        if self.pid:
            return
        code = 70
        try:
            if new_session:
                os.setsid()
            # as at a terminal; a suite in the background of a shell is told to ignore it
            signal.signal(signal.SIGINT, signal.default_int_handler)
            console = os.open(console, os.O_CREAT | os.O_WRONLY)
            os.dup2(console, 1)
            os.dup2(console, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            # Detectron2 would go on to log to the console of this process
            setup_logger.cache_clear()
            for name in ("detectron2", "fvcore", "gan_plugin"):
                logging.getLogger(name).handlers.clear()
            code = work() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def wait(self, timeout=120):
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a fork", timeout)
            time.sleep(0.01)
        return self.returncode


def forked_runs(main):
    """A stand-in for TrainNet that calls `main` in a fork."""

    class Forked(TrainNet):
        def __init__(self, tool, arguments, folder, environment, keep_open):
            folder.mkdir(parents=True, exist_ok=True)
            self._console = folder / "console.txt"
            self._process = Fork(lambda: run_command_line(lambda: main(list(arguments))), self._console)

    return Forked
