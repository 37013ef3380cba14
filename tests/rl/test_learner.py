import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium import spaces

from shoal import runtime
from shoal.algorithms import PPO
from shoal.rl import Batch, Clock, Learner, ModelSpec, Rollout, RunSettings, TrainingDivergedError
from shoal.rl.declaration import Learning
from shoal.rl.divergence import divergence
from shoal.rl.learn.actor import LearnerActor
from shoal.rl.learn.log import LearnerInput, LearnerLog, Piece
from shoal.rl.learn.lost import StateLostError
from shoal.rl.learner_group import LearnerGroup
from shoal.runtime import InputError

SPEC = ModelSpec("actor_critic", spaces.Box(-1, 1, (2,)), spaces.Discrete(2), {"net_arch": [4]})
SETTINGS = RunSettings(n_envs=2, group_size=1, seed=4)
CLOCK = Clock(30, 40)


@pytest.fixture(autouse=True)
def _serial():
    runtime.init(engine="serial")


def rollout(fill):
    observations = np.full((3, 1, 2), fill, np.float32)
    flags = {name: np.zeros((3, 1), np.bool_) for name in ("terminations", "truncations")}
    actions, rewards = np.zeros((3, 1), np.int64), np.full((3, 1), fill, np.float32)
    steps = Batch({"observations": observations, "actions": actions, "rewards": rewards, **flags}, 2)
    return runtime.put(Rollout(steps, Batch({"rows": np.array([2]), "observations": observations[2]}), 0))


class Descend(Learning):
    """Draws the values towards the rewards, three rows at a time; its config is the step size."""

    @staticmethod
    def prepare(learner, config):
        learner.adam(epsilon=1e-5)

    @staticmethod
    def update(learner, rollout, config, clock):
        flat = rollout.steps.flat()
        batch = {"rows": learner.model.encode(flat["observations"]), **learner.tensors({"r": flat["rewards"]})}
        for minibatch in learner.minibatches(batch, 3, epoch=0):
            loss = (learner.model.values(minibatch["rows"]) - minibatch["r"]).square().mean()
            learner.optimizers["model"].minimize(loss, learning_rate=config)
        learner.n_updates += 1
        rewards = float(rollout.steps["rewards"][0] @ [1, 10])
        return {"train/loss": float(loss.detach()), "remaining": clock.remaining, "rewards": rewards}


class WithReplay(Descend):
    """Learns from what it draws from everything that it has seen."""

    @staticmethod
    def prepare(learner, config):
        learner.adam()
        learner.add_target()
        learner.add_replay(10, gamma=0.9, n_step=2, alpha=0.6)

    @staticmethod
    def update(learner, rollout, config, clock):
        learner.replay.insert(rollout)
        minibatch, indices = learner.sample(4, beta=0.5)
        errors = learner.model.values(minibatch["observations"]) - minibatch["rewards"]
        learner.optimizers["model"].minimize(errors.square().mean(), learning_rate=config)
        learner.replay.set_errors(indices, errors.detach().numpy())
        learner.update_target(0.1)
        learner.n_updates += 1
        return {}


def make(algorithm=Descend, step_size=0.01):
    return LearnerActor(algorithm, step_size, SPEC, SETTINGS)


def step(learner, iteration, snapshot=False):
    return learner.update([rollout(0.5), rollout(0.25)], iteration, CLOCK, snapshot)


def test_an_update_learns_from_all_groups_in_order():
    learner = make()
    before, layout, device = learner.describe()
    weights, state, transitions, metrics = step(learner, 0, snapshot=True)
    assert metrics["rewards"] == 0.5 + 2.5
    assert metrics["remaining"] == 0.25
    assert metrics["time/update_seconds"] > 0
    assert (state["optimizers"]["model"]["steps"], state["n_updates"], transitions) == (2, 1, None)
    assert weights.shape == before.shape == (layout.size,)
    assert (weights != before).any()
    assert device == "cpu"
    assert step(learner, 1)[1] is None


@pytest.mark.parametrize("algorithm", [Descend, WithReplay])
@pytest.mark.parametrize("since", [0, 1, 3])
def test_a_new_learner_continues_from_a_snapshot_and_what_was_learned_since(algorithm, since):
    learner, pieces = make(algorithm), []
    for iteration in range(4):
        _, state, piece, _ = step(learner, iteration, snapshot=iteration in (1, 3))
        pieces += [Piece(0, 0, runtime.put(piece))] if piece is not None else []
        if iteration == 3:
            snapshot = runtime.put(state)
    inputs = [LearnerInput((rollout(0.5), rollout(0.25)), CLOCK)] * since
    for iteration in range(4, 4 + since):
        step(learner, iteration)
    expected = step(learner, 4 + since)[0]
    other = make(algorithm)
    with pytest.raises(StateLostError, match=f"at iteration 0, not at {4 + since}"):
        step(other, 4 + since)
    other.restore(LearnerLog(4, snapshot, tuple(pieces), tuple(inputs)))
    np.testing.assert_array_equal(step(other, 4 + since)[0], expected)
    other.restore(LearnerLog(inputs=tuple(inputs)))  # also from the very beginning, and over what it did meanwhile
    fresh = make(algorithm)
    for iteration in range(since):
        step(fresh, iteration)
    np.testing.assert_array_equal(step(other, since)[0], step(fresh, since)[0])


def test_without_the_replay_buffers_state_it_fills_again():
    learner = make(WithReplay)
    _, state, _, _ = step(learner, 0, snapshot=True)
    other = make(WithReplay)
    other.restore(LearnerLog(1, runtime.put(state | {"replay": None})))
    assert step(other, 1)[3]["replay/size"] == 4  # 2 environments × 3 steps, of which the last waits for its second


def test_a_failed_update_leaves_nothing_of_itself():
    class Fails(Descend):
        broken = True

        @staticmethod
        def update(learner, rollout, config, clock):
            return Descend.update(learner, rollout, config, clock) | ({"x": 1 / 0} if Fails.broken else {})

    learner = make(Fails)
    with pytest.raises(ZeroDivisionError):
        step(learner, 0)
    Fails.broken = False
    with pytest.raises(StateLostError):
        step(learner, 0)
    learner.restore(LearnerLog())
    np.testing.assert_array_equal(step(learner, 0)[0], step(make(), 0)[0])


@pytest.mark.parametrize("of_tensors", [True, False])
def test_minibatches_hold_every_row_once_in_an_order_of_their_own(of_tensors):
    learner = Learner(SPEC, seed=4, device="cpu")
    columns = {"rows": np.arange(10), "squares": np.arange(10, dtype=np.float32) ** 2}
    batch = learner.tensors(columns) if of_tensors else columns
    orders = []
    for epoch in (0, 0, 1):
        minibatches = list(learner.minibatches(batch, 4, epoch))
        assert [len(minibatch["rows"]) for minibatch in minibatches] == [4, 4, 2]
        orders.append([row for minibatch in minibatches for row in minibatch["rows"].tolist()])
        squares = [row for minibatch in minibatches for row in minibatch["squares"].tolist()]
        assert squares == [row**2 for row in orders[-1]]
    assert sorted(orders[0]) == list(range(10))
    assert orders[0] == orders[1] != orders[2]


def test_a_target_follows_slowly():
    learner = Learner(SPEC, seed=4, device="cpu")
    learner.add_target()
    before = learner.target.get_weights()
    np.testing.assert_array_equal(before, learner.model.get_weights())
    learner.model.flat.add_(1)
    learner.update_target(0.25)
    np.testing.assert_allclose(learner.target.get_weights(), before + 0.25, rtol=1e-6)


def test_a_buffer_must_hold_enough_and_the_steps_be_done():
    learner = Learner(SPEC, seed=4, device="cpu")
    learner.add_replay(5, gamma=0.9)
    assert not learner.can_sample(Clock(0, 100), 0)
    learner.replay.insert(runtime.get(rollout(0.5)))  # 3 transitions
    assert learner.can_sample(Clock(3, 100), 3)
    assert not learner.can_sample(Clock(2, 100), 3)
    assert not learner.can_sample(Clock(90, 100), 4)  # resumed with an empty buffer
    learner.replay.insert(runtime.get(rollout(0.5)))
    assert learner.can_sample(Clock(90, 100), 50)  # no more than 5 fit


def test_weights_that_are_not_finite_end_the_training():
    learner = make(step_size=float("inf"))
    with pytest.raises(TrainingDivergedError, match=r"the loss is not finite in iteration 1\..*smaller learning_rate"):
        step(learner, 0)


def wrong(quantity):
    """An algorithm that leaves `quantity` not finite, and nothing that comes before it."""

    class Wrong(Descend):
        broken = True

        @staticmethod
        def update(learner, rollout, config, clock):
            metrics = Descend.update(learner, rollout, config, clock)
            optimizer, model = learner.optimizers["model"], learner.model
            values = model.values(model.encode(rollout.steps.flat()["observations"])).sum()
            if quantity == "the loss":
                optimizer.minimize(values * 0 + float("inf"), learning_rate=0, max_grad_norm=0.5)
            if quantity == "the gradient":  # loss and derivatives are finite, but not the derivatives' norm
                optimizer.minimize((values - values.detach()) * 3e37, learning_rate=0.1, max_grad_norm=0.5)
            if quantity == "a moment of the optimizer":  # as squares of gradients may come to: all later steps are 0
                optimizer._moments["second_moment"].fill_(float("inf"))
            if quantity == "a weight":
                model.flat[0] = float("nan")
            if quantity == "the metric train/kl":
                metrics["train/kl"] = float("inf")
            return metrics

    return Wrong


@pytest.mark.parametrize(
    "quantity", ["the loss", "the gradient", "a moment of the optimizer", "a weight", "the metric train/kl"]
)
def test_what_is_not_finite_is_named_and_the_state_is_not_gone_on_from(quantity):
    learner = make(wrong(quantity))
    with pytest.raises(TrainingDivergedError, match=rf"diverged: {quantity} is not finite in iteration 1\."):
        step(learner, 0)
    with pytest.raises(StateLostError):
        step(learner, 0)
    with pytest.raises(StateLostError):
        step(learner, 1)


def test_a_metric_that_is_undefined_is_left_out():
    class Undefined(Descend):
        @staticmethod
        def update(*given):
            return Descend.update(*given) | {"train/explained_variance": float("nan")}

    assert "train/explained_variance" not in step(make(Undefined), 0)[3]


def test_the_size_of_the_rewards_is_told_if_it_is_the_reason():
    ordinary = divergence(3, {"the loss": np.inf}, [np.array([[-2.0, 1.0]])], np.array([5.0, -7.5]))
    assert "The largest reward is 2, the largest advantage 7.5 (without their signs). Take a smaller" in str(ordinary)
    for largest in (1e20, np.inf, np.nan):
        huge = divergence(3, {"the weights": 1.0, "the loss": np.nan}, [np.zeros(0), np.array([1.0, -largest])], None)
        assert f"the loss is not finite in iteration 3. The largest reward is {largest:.3g}" in str(huge)
        assert "Rewards of this size are the reason: divide or clip them" in str(huge)
    assert divergence(3, {"the loss": 1e300, "a weight": np.zeros(3)}, [np.array([1e20])], None) is None


def test_the_reward_that_is_the_reason_may_lie_in_the_replay_buffer():
    class Later(WithReplay):
        @staticmethod
        def update(learner, rollout, config, clock):
            if learner.iteration == 0:
                learner.replay.insert(rollout)
                return {}
            return WithReplay.update(learner, rollout, config, clock)

    learner = make(Later)
    learner.update([rollout(1e30), rollout(1e30)], 0, Clock(0, 100), False)
    with pytest.raises(TrainingDivergedError, match=r"in iteration 2\. The largest reward is 1.*e\+30.*are the reason"):
        step(learner, 1)


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"device is 'gpu:x', which cannot be used here"):
        LearnerActor(Descend, 0.1, SPEC, dataclasses.replace(SETTINGS, device="gpu:x"))
    for workers in (1, 2):  # in an actor, it is not the actor's death that is told
        with (
            PPO("CartPole-v1", engine="serial", workers=workers, device="gpu:x") as ppo,
            pytest.raises(InputError, match=r"^device is 'gpu:x', which cannot be used here"),
        ):
            ppo.train(1)


def refuse(*_):
    raise InputError("device is 'there', which cannot be used here")


def test_what_a_group_of_learners_refuses_is_told_as_such():
    group = LearnerGroup(refuse, (), RunSettings(learners=2, gradient_shards=2, device="cpu"))
    begun = SimpleNamespace(learner=SimpleNamespace(inputs=()))
    for ask in (lambda: group.description, lambda: group.start(begun, None, False)):
        with pytest.raises(InputError, match=r"^device is 'there'"):
            ask()
    group.close()
