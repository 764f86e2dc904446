"""Data that several tests read."""

import pytest
from coigan.data.prepare import prepare
from coigan_steel import OPTIONS


@pytest.fixture(scope="session")
def steel(tmp_path_factory):
    """16 toy sheets of 96x200, prepared with tiles of 64; for reading only."""
    out = tmp_path_factory.mktemp("prepared") / "steel"
    prepare("toy", out, OPTIONS)
    return out
