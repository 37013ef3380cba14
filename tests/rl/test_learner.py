import dataclasses

import numpy as np
import pytest
from gymnasium import spaces

from shoal import runtime
from shoal.rl import Learner, RunSettings, TrainingDivergedError, Trajectory
from shoal.runtime import InputError

SPACES = (spaces.Box(-1, 1, (2,)), spaces.Discrete(2))
SETTINGS = RunSettings(n_envs=2, group_size=1, seed=4, policy_kwargs={"net_arch": [4]})


@pytest.fixture(autouse=True)
def _serial():
    runtime.init(engine="serial")


def trajectory(fill):
    made = Trajectory.allocate(
        3, 1, observation_shape=(2,), observation_dtype=np.dtype("f4"), action_shape=(), action_dtype=np.dtype("i8")
    )
    for item in dataclasses.fields(made):
        getattr(made, item.name)[:] = fill
    return runtime.put(made)


def descend(learner, joined, config, remaining):
    """An update that draws the values towards the rewards, three rows at a time; its config is the step size."""
    batch = {
        "rows": learner.policy.encode(joined.flat("observations")),
        **learner.tensors({"r": joined.flat("rewards")}),
    }
    for minibatch in learner.minibatches(batch, 3, epoch=0):
        values, _, _ = learner.policy.evaluate_actions(minibatch["rows"], minibatch["rows"][:, 0].long())
        loss = (values - minibatch["r"]).square().mean()
        learner.optimizer.minimize(loss, learning_rate=config, max_grad_norm=None)
    learner.epochs += 1
    return {"train/loss": float(loss.detach()), "remaining": remaining, "rewards": float(joined.rewards[0] @ [1, 10])}


def make(step_size=0.01, update=descend):
    return Learner(update, step_size, SETTINGS, *SPACES)


def step(learner, state, iteration):
    boxes = [runtime.put(part) for part in state]
    return learner.update([trajectory(0.5), trajectory(0.25)], boxes, iteration, 1.0)


def test_an_update_learns_from_all_groups_in_order():
    learner = make()
    weights, optimizer, metrics = step(learner, learner.initial_state(), 0)
    assert metrics["rewards"] == 0.5 + 2.5
    assert metrics["remaining"] == 1.0
    assert metrics["time/update_seconds"] > 0
    assert (optimizer["steps"], optimizer["epochs"]) == (2, 1)
    assert optimizer["moments"].shape == (2, len(weights))
    assert learner.policy.version == 1


def test_a_new_learner_continues_from_the_state_with_the_same_bits():
    learner = make()
    first = step(learner, learner.initial_state(), 0)[:2]
    expected = step(learner, first, 1)
    again = step(make(), first, 1)
    np.testing.assert_array_equal(expected[0], again[0])
    np.testing.assert_array_equal(expected[1]["moments"], again[1]["moments"])
    assert expected[1]["epochs"] == again[1]["epochs"] == 2


def test_an_iteration_that_is_repeated_gives_the_same_bits():
    learner = make()
    initial = learner.initial_state()
    expected = step(learner, initial, 0)
    np.testing.assert_array_equal(expected[0], step(learner, initial, 0)[0])


def test_a_failed_update_leaves_nothing_of_itself():
    learner = make(update=lambda *given: descend(*given) and 1 / 0)
    initial = learner.initial_state()
    with pytest.raises(ZeroDivisionError):
        step(learner, initial, 0)
    learner._update = descend
    np.testing.assert_array_equal(step(learner, initial, 0)[0], step(make(), initial, 0)[0])


def test_minibatches_hold_every_row_once_in_an_order_of_their_own():
    learner = make()
    batch = learner.tensors({"rows": np.arange(10), "squares": np.arange(10) ** 2})
    orders = []
    for epoch in (0, 0, 1):
        minibatches = list(learner.minibatches(batch, 4, epoch))
        assert [len(minibatch["rows"]) for minibatch in minibatches] == [4, 4, 2]
        orders.append([row for minibatch in minibatches for row in minibatch["rows"].tolist()])
        squares = [row for minibatch in minibatches for row in minibatch["squares"].tolist()]
        assert squares == [row**2 for row in orders[-1]]
    assert sorted(orders[0]) == list(range(10))
    assert orders[0] == orders[1] != orders[2]


def test_weights_that_are_not_finite_end_the_training():
    learner = make(step_size=float("inf"))
    with pytest.raises(TrainingDivergedError, match=r"not finite after iteration 1.*Lower learning_rate"):
        step(learner, learner.initial_state(), 0)


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"device is 'gpu:x', which cannot be used here"):
        Learner(descend, 0.1, dataclasses.replace(SETTINGS, device="gpu:x"), *SPACES)
    assert Learner(descend, 0.1, dataclasses.replace(SETTINGS, device="cpu"), *SPACES).device() == "cpu"
