"""Weights & Biases without what another test has made of it, and gone afterwards."""

import pytest


@pytest.fixture(scope="module")
def wandb():
    """The module. Its service is a process below this one, which tests that end all such processes would end.

    It may write the end of a run's file after `run.finish()` has returned. `wandb.teardown()` waits for it.
    """
    module = pytest.importorskip("wandb")
    module.teardown()  # another test may have set it up with other settings
    yield module
    module.teardown()
