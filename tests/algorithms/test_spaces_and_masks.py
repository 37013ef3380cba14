"""Observations with parts, nested actions, masks and memories, through whole trainings."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from learning_envs import Masked, Parts, Recall

from shoal import runtime
from shoal.algorithms import ALGORITHMS, PPO
from shoal.envs import EnvContractError, EnvGroup, resolve
from shoal.rl import Callback, ModelSpec, Policy, build_model, evaluate
from shoal.runtime import InputError

SMALL = {"n_envs": 4, "group_size": 2, "preset": "none", "seed": 1}
OWN = {
    "ppo": {"n_steps": 16, "batch_size": 32, "n_epochs": 2},
    "a2c": {"n_steps": 8},
    "dqn": {"learning_starts": 16, "train_freq": 4, "batch_size": 8, "n_step": 2, "double_q": True},
    "qrdqn": {"learning_starts": 16, "train_freq": 4, "batch_size": 8, "policy_kwargs": {"n_quantiles": 5}},
    "sac": {"learning_starts": 16, "train_freq": 4, "batch_size": 8, "policy_kwargs": {"net_arch": [8]}},
}
NESTED = spaces.Dict(
    {
        "choice": spaces.Discrete(3),
        "more": spaces.Tuple(
            [spaces.Box(-2, 2, (2,), np.float32), spaces.MultiBinary(2), spaces.MultiDiscrete([2, 3])]
        ),
    }
)


def digest(name, env, steps=128, env_kwargs=None, callbacks=(), **changes):
    settings = SMALL | OWN[name] | changes
    with ALGORITHMS[name](env, env_kwargs=env_kwargs, **settings) as algorithm:
        return algorithm.train(steps, callbacks=callbacks).weights_sha256


@pytest.fixture
def serial():
    runtime.shutdown()
    runtime.init(engine="serial")
    yield
    runtime.shutdown()


@pytest.mark.parametrize(
    "name", ["ppo", "dqn", "sac", *(pytest.param(name, marks=pytest.mark.slow) for name in ("a2c", "qrdqn"))]
)
def test_observations_with_parts_train_and_a_saved_policy_acts(serial, name, tmp_path):
    with ALGORITHMS[name](Parts, **SMALL | OWN[name]) as algorithm:
        algorithm.train(64)
        algorithm.save(tmp_path)
        before = evaluate(algorithm.policy, Parts, episodes=3)
    assert evaluate(tmp_path, Parts, episodes=3).returns == before.returns
    one = Parts().reset(seed=0)[0]
    assert Policy.load(tmp_path).act(one, deterministic=True) in range(3)


@pytest.mark.parametrize("name", ["ppo", pytest.param("a2c", marks=pytest.mark.slow)])
def test_nested_actions(serial, name):
    kwargs = {"action_space": NESTED}
    with ALGORITHMS[name](Parts, env_kwargs=kwargs, **SMALL | OWN[name]) as algorithm:
        algorithm.train(64)
        policy = algorithm.policy
        assert evaluate(policy, Parts, env_kwargs=kwargs, episodes=2).episodes == 2
    action = policy.act(Parts().reset(seed=0)[0])
    assert NESTED.contains({"choice": action["choice"], "more": action["more"]})
    with pytest.raises(InputError, match=r"sac does not work with action space Dict.*with it work: a2c, .*ppo"):
        ALGORITHMS["sac"](Parts, env_kwargs=kwargs)


def test_the_distribution_of_nested_actions_is_the_product_of_its_parts():
    model = build_model(ModelSpec("actor_critic", spaces.Box(-1, 1, (1,)), NESTED, {"net_arch": []}))
    assert model.actions.row_size == 3 + 2 + 2 + 5
    assert model.log_std.shape == (2,)
    outputs = torch.zeros(1, 12)
    distribution = model.distribution(outputs)
    action = torch.tensor([[2.0, 0.5, -0.5, 1.0, 0.0, 1.0, 2.0]])
    normal = sum(-0.5 * x**2 - 0.5 * np.log(2 * np.pi) for x in (0.5, -0.5))
    assert distribution.log_prob(action).item() == pytest.approx(-np.log(3) + normal - 2 * np.log(2) - np.log(6))


class KillWorker(Callback):
    """Kills a rollout worker after the second iteration; it comes back."""

    def on_iteration_end(self, training, report):
        if report.iteration == 2:
            runtime.kill(training.actors.workers.actors[0], no_restart=False)


@pytest.mark.slow
@pytest.mark.parametrize("env", [Masked, Parts])
@pytest.mark.parametrize("name", OWN)
def test_weights_do_not_depend_on_workers_or_on_their_deaths(processes, name, env):
    settings = {"n_envs": 6, "steps": 4 * 6 * 16}
    expected = digest(name, env, workers=1, **settings)
    assert digest(name, env, workers=2, callbacks=[KillWorker()], **settings) == expected
    if name != "ppo":
        assert digest(name, env, workers=3, **settings) == expected


@pytest.mark.slow
@pytest.mark.parametrize("in_info", [False, True])
def test_masked_ppo_finds_the_optimum(serial, in_info):
    settings = {"n_envs": 8, "n_steps": 64, "batch_size": 64, "n_epochs": 10, "learning_rate": 3e-3, "gamma": 0.5}
    with PPO(Masked, env_kwargs={"in_info": in_info}, preset="none", seed=1, **settings) as ppo:
        ppo.train(12_000)
        kwargs = {"in_info": in_info}
        assert evaluate(ppo.policy, Masked, env_kwargs=kwargs, episodes=40).episode_return_mean == 5


@pytest.mark.parametrize(
    ("name", "in_info"),
    [
        *((name, False) for name in OWN),
        ("ppo", True),
        *(pytest.param(name, True, marks=pytest.mark.slow) for name in OWN if name != "ppo"),
    ],
)
def test_forbidden_actions_are_never_taken(serial, name, in_info):
    with ALGORITHMS[name](Masked, env_kwargs={"in_info": in_info}, **SMALL | OWN[name]) as algorithm:
        algorithm.train(200)  # the environment raises where one is
        for deterministic in (True, False):
            evaluate(algorithm.policy, Masked, env_kwargs={"in_info": in_info}, episodes=4, deterministic=deterministic)


@pytest.mark.parametrize(
    ("kind", "actions"),
    [
        ("actor_critic", spaces.Discrete(4)),
        ("actor_critic", spaces.MultiDiscrete([2, 2])),
        ("actor_critic", spaces.MultiBinary(4)),
        ("categorical_actor_q", spaces.Discrete(4)),
    ],
)
def test_a_forbidden_action_has_probability_zero_and_no_gradient(kind, actions):
    space = spaces.Dict({"action_mask": spaces.MultiBinary(4), "x": spaces.Box(-1, 1, (1,))})
    model = build_model(ModelSpec(kind, space, actions, {"net_arch": []}))
    rows = {"action_mask": torch.tensor([[True, False, True, False]]), "x": torch.ones(1, 1)}
    outputs = model.outputs(rows)
    outputs.retain_grad()
    if kind == "actor_critic":
        distribution = model.distribution(outputs)
        allowed = {"Discrete": [2], "MultiDiscrete": [[0, 0]], "MultiBinary": [[1, 0, 1, 0]]}[model.actions.kind]
        (distribution.log_prob(torch.tensor(allowed)) + distribution.entropy()).sum().backward()
        even = model.distribution(torch.where(rows["action_mask"], 0.0, outputs.detach()))  # what is allowed is alike
        entropies = {"Discrete": np.log(2), "MultiDiscrete": 0.0, "MultiBinary": 2 * np.log(2)}
        assert even.entropy().tolist() == pytest.approx([entropies[model.actions.kind]], abs=1e-6)
    else:
        log_probs = outputs.log_softmax(-1)
        assert log_probs.exp()[0, 1].item() == 0
        (log_probs.exp() * log_probs).sum().backward()
        assert float(model.allowed(rows)) == 2
    assert torch.isfinite(model.flat_gradients).all()
    assert outputs.grad[0, 1].item() == 0


def test_masks_count_in_targets_and_in_random_actions():
    space = spaces.Dict({"action_mask": spaces.MultiBinary(3), "x": spaces.Box(-1, 1, (1,))})
    model = build_model(ModelSpec("q_network", space, spaces.Discrete(3), {"net_arch": []}))
    with torch.no_grad():
        model.q.layers[0].weight.zero_()
        model.q.layers[0].bias.copy_(torch.tensor([1.0, 3.0, 2.0]))
    rows = {"action_mask": torch.tensor([[True, False, True]]), "x": torch.zeros(1, 1)}
    assert model(rows).max(-1).values.tolist() == [2]
    noise = torch.tensor([[0.0, 0.1, 0.9, 0.5]])  # explores; the largest noise is that of the forbidden one
    assert model.choose(model(rows), noise, 0.5).tolist() == [2]


def test_a_mask_that_allows_nothing_names_environment_and_step(serial):
    with pytest.raises(EnvContractError, match=r"step\(\) returned an action_mask that allows no action \(step 3"):
        PPO(Masked, env_kwargs={"none_at": 3}, **SMALL | OWN["ppo"])
    with EnvGroup(resolve(Masked, {"none_at": 1}), size=2, first_index=4, run_seed=0) as group:
        mask = group.reset()["action_mask"]
        with pytest.raises(EnvContractError, match=r"index 4: .*allows no action.*step 1 of episode 0"):
            group.step(mask.argmax(1))


def test_masks_that_do_not_fit_are_refused(serial):
    class Wrong(Masked):
        def __init__(self):
            super().__init__()
            self.action_space = spaces.Discrete(11)

    class Continuous(Masked):
        def __init__(self):
            super().__init__()
            self.action_space = spaces.Box(-1, 1, (1,))

        def step(self, action):
            return super().step(int(self._allowed[0]))

    with pytest.raises(InputError, match=r"action_mask is MultiBinary\(12\), but must be MultiBinary\(11\)"):
        PPO(Wrong, **SMALL)
    with pytest.raises(InputError, match="a mask works with Discrete, MultiDiscrete and MultiBinary actions"):
        PPO(Continuous, **SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["gru", "lstm"])
def test_a_memory_learns_what_no_memory_can(serial, memory):
    settings = {"n_envs": 16, "n_steps": 32, "batch_size": 128, "n_epochs": 4, "learning_rate": 0.01, "gamma": 1.0}
    kwargs = {"memory": memory, "memory_kwargs": {"units": 16}, "sequence_length": 8, "net_arch": [16]}
    with PPO(Recall, preset="none", seed=3, policy_kwargs=kwargs, **settings) as ppo:
        ppo.train(8_000)
        assert evaluate(ppo.policy, Recall, episodes=40, seed=5).episode_return_mean == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "a2c"])
@pytest.mark.parametrize("memory", ["lstm", "transformer"])
def test_weights_with_a_memory_do_not_depend_on_workers_or_on_a_resume(processes, name, memory, tmp_path):
    kwargs = {"memory": memory, "memory_kwargs": {"units": 8}, "sequence_length": 5, "net_arch": [8]}
    settings = {"policy_kwargs": kwargs}
    expected = digest(name, "CartPole-v1", 192, workers=1, **settings)
    assert digest(name, "CartPole-v1", 192, workers=2, **settings) == expected
    with ALGORITHMS[name]("CartPole-v1", **SMALL | OWN[name] | settings) as first:
        first.train(64)
        first.save(tmp_path)
    with ALGORITHMS[name].load(tmp_path) as second:
        assert second.train(128).weights_sha256 == expected


@pytest.mark.parametrize("name", ["dqn", "sac", "td3"])
def test_memories_without_sequences_are_refused(serial, name):
    env = "Pendulum-v1" if name == "td3" else "CartPole-v1"
    with pytest.raises(InputError, match=f"{name} does not work with a memory.*a2c, .*ppo"):
        ALGORITHMS[name](env, policy_kwargs={"memory": "lstm"})
