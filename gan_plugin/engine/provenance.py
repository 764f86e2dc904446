"""Where a run comes from: versions, the commit, and what its command line asked for, as JSON beside its results."""

import json
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import detectron2
import numpy as np
import torch
from detectron2.utils import comm

import gan_plugin
from gan_plugin.files import write_whole

FACTS = "run.json"
LOG = "log.txt"
_SECONDS = 10


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide over a result."""
    modules = {"gan_plugin": gan_plugin, "torch": torch, "detectron2": detectron2, "numpy": np}
    return {"python": platform.python_version(), **{name: str(module.__version__) for name, module in modules.items()}}


def commit(of: str | Path) -> str:
    """The commit that the file `of` belongs to, with "-dirty" if files differ from it; "unknown" outside of one."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    folder = Path(of).parent
    try:
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()


def write_facts(folder: str | Path, args: Any) -> None:
    """Leave what a run is asked for as run.json in its folder, in the main process; call it before it logs anything.

    Args:
        folder: of the run.
        args: of the command line, with `config_file`, `opts`, `resume` and `eval_only`, as far as it has them.
    """
    if not comm.is_main_process():
        return
    log = Path(folder) / LOG
    facts = {
        "config_file": getattr(args, "config_file", ""),
        "options": list(getattr(args, "opts", None) or []),
        "resume": bool(getattr(args, "resume", False)),
        "eval_only": bool(getattr(args, "eval_only", False)),
        "versions": versions(),
        # where in the log this run begins, which may go on where another one has ended
        "log_from": log.stat().st_size if log.is_file() else 0,
    }
    write_whole(Path(folder) / FACTS, json.dumps(facts, indent=1) + "\n")


def read_facts(folder: str | Path) -> Mapping[str, Any]:
    """What `write_facts` has left; nothing if that cannot be read, or a trainer of others has made the run."""
    try:
        facts = json.loads((Path(folder) / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
