"""The contract of tasks once more, on two nodes: the head has no CPU, so whatever runs, runs on the other one."""

import pytest
from conftest import WORKERS_NEED, leaving_nothing_behind
from nodes import joined
from test_contract_tasks import *  # noqa: F403  # the same tests, on this module's engine

from shoal import runtime

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two_nodes():
    with leaving_nothing_behind():
        runtime.init("native", num_cpus=0, preload=WORKERS_NEED, listen="127.0.0.1:0")
        with joined("--num-cpus", "2"):
            yield


@pytest.fixture
def engine(two_nodes):
    return "native"


@pytest.fixture
def concurrent(two_nodes):
    """Here all are."""
