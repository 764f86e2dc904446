"""Runs of the trainer without a new interpreter for each."""

import pytest
import train_net
from forked_runs import forked_runs


@pytest.fixture(scope="session")
def forked():
    """To stand in for TrainNet."""
    return forked_runs(train_net.main)
