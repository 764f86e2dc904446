"""What is tested on has not been trained on."""

from collections.abc import Set
from pathlib import Path

from gan_plugin.errors import UserError


def check_apart(train: Set[Path], test: Set[Path]) -> None:
    """Raise a UserError if a picture is in both sets of resolved paths."""
    if shared := train & test:
        raise UserError(f"The test set holds {min(shared)}, which is trained on; use other images for the test.")
