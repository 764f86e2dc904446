"""What a trial ran with, kept beside its numbers."""

import platform
import subprocess
from functools import cache
from pathlib import Path

import detectron2
import optuna
import torch

import gan_plugin


@cache
def environment() -> dict[str, str]:
    """Versions, the device, and the commit of this repository, "unknown" outside of one."""
    modules = {"gan_plugin": gan_plugin, "torch": torch, "detectron2": detectron2, "optuna": optuna}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    versions = {name: str(module.__version__) for name, module in modules.items()}
    return {"python": platform.python_version(), **versions, "device": device, "commit": _commit()}


def _commit() -> str:
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()
