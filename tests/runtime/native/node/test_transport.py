"""The line between two nodes: who is let in, what is warned of, and which options gRPC really has."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest
import transport_scenarios

from shoal import runtime
from shoal.runtime.native.node.transport import OPTIONS, Secrets, warn_if_readable


@pytest.fixture(scope="module")
def outcomes():
    quiet = os.environ | {"GRPC_VERBOSITY": "NONE"}
    command = [sys.executable, transport_scenarios.__file__]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=quiet, timeout=60, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("scenario", [scenario.__name__ for scenario in transport_scenarios.SCENARIOS])
def test_what_the_ends_of_a_line_say(outcomes, scenario):
    assert not outcomes[scenario], outcomes[scenario]


def test_grpc_knows_each_option():
    """One that it does not know is ignored, silently."""
    module = importlib.util.find_spec("grpc._cython.cygrpc")
    with open(module.origin, "rb") as library:
        known = library.read()
    options = set(re.findall(rb"grpc\.[a-z0-9_.]+(?=\0)", known))
    unknown = [name for name, _ in OPTIONS if name.encode() not in options]
    assert not unknown


@pytest.mark.parametrize("address", ["0.0.0.0:0", "10.0.0.1:6379", "[::]:6379", "head.example:6379"])
def test_what_others_can_read_is_warned_of(address):
    with pytest.warns(RuntimeWarning, match=r"without TLS.*SHOAL_TLS_CA"):
        warn_if_readable("listen", address, Secrets("token"))
    warn_if_readable("listen", address, Secrets("token", "ca", "certificate", "key"))


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:6379", "[::1]:6379"])
def test_loopback_is_not_warned_of(address):
    warn_if_readable("listen", address, Secrets("token"))


def test_init_warns():
    with pytest.warns(RuntimeWarning, match=r"listen='0\.0\.0\.0:0' without TLS"):
        runtime.init("native", num_cpus=1, preload=(), listen="0.0.0.0:0")
