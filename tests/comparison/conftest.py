"""Runs of the trainer without a new interpreter for each."""

import pytest
from forked_runs import Forked


@pytest.fixture(scope="session")
def forked():
    """To stand in for TrainNet."""
    return Forked
