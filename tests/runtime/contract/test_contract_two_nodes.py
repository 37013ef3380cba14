"""The contract once more, on two nodes: the head has no CPU, so whatever runs, runs on the other one."""

import psutil
import pytest
from conftest import leaving_nothing_behind
from nodes import two_nodes
from test_contract import *  # noqa: F403  # the same tests, on this module's engine

from shoal import runtime

pytestmark = pytest.mark.slow
# The other node ends with the head, so what shuts the runtime down is not for here.
del test_shutdown_and_start_again, test_unknown_engine_names_the_nearest  # noqa: F821
# Placement groups take the head's resources, and it has none.
del test_a_placement_group_takes_numbers_of_numpy  # noqa: F821


@pytest.fixture(scope="module")
def shared_engine():
    with leaving_nothing_behind(), two_nodes():
        yield "native"


def test_all_of_it_runs_on_the_other_node(engine):
    @runtime.remote
    def ancestors():
        return [process.pid for process in psutil.Process().parents()]

    [other] = [node for node in runtime.nodes() if not node.is_head_node]
    assert other.pid in runtime.get(ancestors.remote())
