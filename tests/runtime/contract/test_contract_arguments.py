"""Arguments that make no sense raise at once, before anything is sent, and the runtime goes on."""

import pytest

from shoal import runtime
from shoal.runtime import util

NO_TEXT = [None, 5, b"name", 1.5, [], "\ud800"]
NO_BOOL = [None, 5, "yes", []]
HUGE = 2**70


@runtime.remote
class Adder:
    def add(self, a, b):
        return a + b


@runtime.remote
def double(x):
    return 2 * x


CALLS = {
    "get_actor": (runtime.get_actor, [*NO_TEXT, ""]),
    "get_actor in": (lambda bad: runtime.get_actor("name", bad), NO_TEXT[1:]),
    "publish": (lambda bad: runtime.publish(bad, 1), NO_TEXT),
    "lookup": (runtime.lookup, NO_TEXT),
    "preload": (runtime.preload, NO_TEXT),
    "group's name": (lambda bad: util.placement_group([{"CPU": 1}], name=bad), NO_TEXT),
    "group's strategy": (lambda bad: util.placement_group([{"CPU": 1}], bad), NO_TEXT),
    "bundles": (util.placement_group, [None, 5, [], [None], [{}], [{5: 1}], [{"CPU": "1"}]]),
    "huge bundles": (util.placement_group, [[{"CPU": float("inf")}], [{"\ud800": 1}]]),
    "resource": (lambda bad: double.options(resources={bad: 1}), NO_TEXT),
    "amount": (lambda bad: double.options(num_cpus=bad), ["1", [], -1, float("nan"), float("inf"), 1e300, HUGE]),
    "name": (lambda bad: double.options(name=bad), NO_TEXT[1:]),
    "actor's name": (lambda bad: Adder.options(name=bad), NO_TEXT[1:]),
    "namespace": (lambda bad: Adder.options(name="name", namespace=bad), NO_TEXT[1:]),
    "num_returns": (lambda bad: double.options(num_returns=bad), [-1, 1.5, "many", HUGE]),
    "max_retries": (lambda bad: double.options(max_retries=bad), [-2, 1.5, "many"]),
    "max_restarts": (lambda bad: Adder.options(max_restarts=bad), [-2, 1.5, "many", HUGE]),
    "max_concurrency": (lambda bad: Adder.options(max_concurrency=bad), [0, 1.5, "many", HUGE]),
    "concurrency groups": (lambda bad: Adder.options(concurrency_groups=bad), [{"a": HUGE}, {5: 1}, {"\ud800": 1}]),
    "backpressure": (
        lambda bad: double.options(num_returns="streaming", generator_backpressure=bad),
        [-2, 1.5, "many", HUGE],
    ),
    "checkpoint_every": (lambda bad: Adder.options(checkpoint_every=bad), [-1, 1.5, "many", HUGE]),
    "limit": (lambda bad: runtime.state.list_tasks(limit=bad), [None, 0, -1, "many", HUGE]),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_makes_no_sense_raises_before_anything_is_sent(engine, name):
    call, arguments = CALLS[name]
    for bad in arguments:
        with pytest.raises((ValueError, TypeError)):
            call(bad)
    assert runtime.get(double.remote(1), timeout=20) == 2


@pytest.mark.parametrize("bad", NO_BOOL)
def test_a_flag_is_true_or_false(engine, bad):
    adder, ref = Adder.remote(), double.remote(1)
    with pytest.raises((ValueError, TypeError)):
        runtime.kill(adder, no_restart=bad)
    with pytest.raises((ValueError, TypeError)):
        runtime.cancel(ref, force=bad)
    with pytest.raises((ValueError, TypeError)):
        runtime.cancel(ref, recursive=bad)
    assert runtime.get([adder.add.remote(1, 2), ref], timeout=20) == [3, 2]
