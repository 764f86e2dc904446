"""A run of the tool with a fault in it."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import SMALLEST_MODEL

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs/quick_schedules/gan_mask_rcnn_penn_fudan_quick.yaml"
TINY = {
    **SMALLEST_MODEL,
    "MODEL.GAN.START_ITER": 0,
    "MODEL.GAN.WARMUP_ITERS": 0,
    "MODEL.GAN.VIS_PERIOD": 0,
    "INPUT.MIN_SIZE_TRAIN": (64,),
    "INPUT.MIN_SIZE_TEST": 64,
    "DATASETS.TEST": (),
    "SOLVER.STEPS": (),
    "SOLVER.MAX_ITER": 4,
    "SOLVER.CHECKPOINT_PERIOD": 2,
}


@dataclass
class Ended:
    """A run that is over."""

    code: int | None
    console: str
    seconds: float

    @property
    def error(self):
        """The one sentence that it ended with; fails if there is anything else that a user would have to read."""
        assert self.code == 2, self.console[-3000:]
        assert "Traceback" not in self.console, self.console[-6000:]
        last = self.console.splitlines()[-1]
        assert last.startswith("error: ") and f"\n{self.console}".count("\nerror: ") == 1
        return last.removeprefix("error: ")


@pytest.fixture(scope="session")
def server(pedestrians):
    environment = {**os.environ, "DETECTRON2_DATASETS": str(pedestrians), "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("server.py")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", script], env=environment, stderr=subprocess.DEVNULL, **pipes
    )
    assert process.stdout.readline() == "ready\n"
    yield process
    # not by closing the pipe, which a data loading worker of another test may have inherited
    process.stdin.write("\n")
    process.stdin.close()
    process.wait(timeout=30)


@pytest.fixture
def tool(server, tmp_path):
    """(output folder, options, faults) -> Ended, of tools/train_net.py in a process of its own; 60 s at most."""

    def run(out, *flags, options=None, **faults):
        settings = {**TINY, "OUTPUT_DIR": out, **(options or {})}
        pairs = [str(part) for pair in settings.items() for part in pair]
        console = tmp_path / "console.txt"
        job = {"arguments": ["--config-file", str(CONFIG), *flags, *pairs], "faults": faults}
        start = time.monotonic()
        server.stdin.write(json.dumps({**job, "console": str(console), "seconds": 60}) + "\n")
        server.stdin.flush()
        code = json.loads(server.stdout.readline())
        return Ended(code, console.read_text(), time.monotonic() - start)

    return run
