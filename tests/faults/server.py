"""Runs tools/train_net.py again and again, each time in a process of its own with a fault in it.

A script: it imports everything once and forks for each line of JSON on stdin, until an empty one, because the imports
take longer than the runs. It answers, also in JSON, the exit code: negative for a signal, null if the time was up.
"""

import gc
import importlib.util
import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import faults
import torch

from gan_plugin.errors import run_command_line

TOOL = Path(__file__).resolve().parents[2] / "tools/train_net.py"


def run(job, main):
    """In the fork: everything that the tool prints goes to one file, as on a console."""
    # its own session, so that its workers can be ended with it
    os.setsid()
    target = os.open(job["console"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(target, 1)
    os.dup2(target, 2)
    for kind, options in job["faults"].items():
        getattr(faults, kind)(**options)
    sys.exit(run_command_line(lambda: main(job["arguments"])))


def main():
    torch.set_num_threads(1)
    sys.path.append(str(TOOL.parent))
    spec = importlib.util.spec_from_file_location("train_net", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    # spares each fork from copying all that is imported when it collects garbage
    gc.freeze()
    print("ready", flush=True)
    while (line := sys.stdin.readline()).strip():
        job = json.loads(line)
        process = multiprocessing.get_context("fork").Process(target=run, args=(job, tool.main))
        process.start()
        process.join(job["seconds"])
        code = process.exitcode
        if code is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
        print(json.dumps(code), flush=True)


if __name__ == "__main__":
    main()
