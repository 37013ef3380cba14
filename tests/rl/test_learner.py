import dataclasses

import numpy as np
import pytest
from gymnasium import spaces

from shoal import runtime
from shoal.rl import Learner, RunSettings, TrainingDivergedError, Trajectory
from shoal.rl.divergence import divergence
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
    with pytest.raises(TrainingDivergedError, match=r"the loss is not finite in iteration 1\..*smaller learning_rate"):
        step(learner, learner.initial_state(), 0)


def wrong(quantity):
    """An update that leaves `quantity` not finite, and nothing that comes before it."""

    def update(learner, joined, config, remaining):
        metrics = descend(learner, joined, config, remaining)
        optimizer = learner.optimizer
        values = learner.policy.evaluate_actions(*rows(learner, joined))[0].sum()
        if quantity == "the loss":
            optimizer.minimize(values * 0 + float("inf"), learning_rate=0, max_grad_norm=0.5)
        if quantity == "the gradient":  # loss and derivatives are finite, but not the derivatives' norm
            optimizer.minimize((values - values.detach()) * 3e37, learning_rate=0.1, max_grad_norm=0.5)
        if quantity == "a moment of the optimizer":  # as squares of gradients may come to: all later steps are 0
            optimizer._second_moment.fill_(float("inf"))
        if quantity == "a weight":
            learner.policy.flat_parameters[0] = float("nan")
        if quantity == "the metric train/kl":
            metrics["train/kl"] = float("inf")
        return metrics

    return update


def rows(learner, joined):
    encoded = learner.policy.encode(joined.flat("observations"))
    return encoded, encoded[:, 0].long()


@pytest.mark.parametrize(
    "quantity", ["the loss", "the gradient", "a moment of the optimizer", "a weight", "the metric train/kl"]
)
def test_what_is_not_finite_is_named_and_the_state_before_is_good(quantity):
    learner = make(update=wrong(quantity))
    initial = learner.initial_state()
    for _ in range(2):
        with pytest.raises(TrainingDivergedError, match=rf"diverged: {quantity} is not finite in iteration 1\."):
            step(learner, initial, 0)
    learner._update = descend
    np.testing.assert_array_equal(step(learner, initial, 0)[0], step(make(), initial, 0)[0])


def test_a_metric_that_is_undefined_is_left_out():
    learner = make(update=lambda *given: descend(*given) | {"train/explained_variance": float("nan")})
    assert "train/explained_variance" not in step(learner, learner.initial_state(), 0)[2]


def test_the_size_of_the_rewards_is_told_if_it_is_the_reason():
    ordinary = divergence(3, {"the loss": np.inf}, np.array([[-2.0, 1.0]]), np.array([5.0, -7.5]))
    assert "The largest reward is 2, the largest advantage 7.5 (without their signs). Take a smaller" in str(ordinary)
    for largest in (1e20, np.inf, np.nan):
        huge = divergence(3, {"the weights": 1.0, "the loss": np.nan}, np.array([1.0, -largest]), None)
        assert f"the loss is not finite in iteration 3. The largest reward is {largest:.3g}" in str(huge)
        assert "Rewards of this size are the reason: divide or clip them" in str(huge)
    assert divergence(3, {"the loss": 1e300, "a weight": np.zeros(3)}, np.array([1e20]), None) is None


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"device is 'gpu:x', which cannot be used here"):
        Learner(descend, 0.1, dataclasses.replace(SETTINGS, device="gpu:x"), *SPACES)
    assert Learner(descend, 0.1, dataclasses.replace(SETTINGS, device="cpu"), *SPACES).device() == "cpu"
