"""The contract of tasks once more, on two nodes: the head has no CPU, so whatever runs, runs on the other one."""

import pytest
from conftest import leaving_nothing_behind
from nodes import two_nodes
from test_contract_tasks import *  # noqa: F403  # the same tests, on this module's engine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared_engine():
    with leaving_nothing_behind(), two_nodes():
        yield "native"
