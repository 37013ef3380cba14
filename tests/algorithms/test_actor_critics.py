"""SAC and TD3 by numbers worked by hand."""

import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal import runtime
from shoal.algorithms import DDPG, SAC, TD3, DDPGConfig, SACConfig, TD3Config
from shoal.algorithms import sac as sac_file
from shoal.algorithms import td3 as td3_file
from shoal.rl import Batch, Clock, Learner, ModelSpec, Policy, build_model
from shoal.rl.models.distributions import SquashedGaussian
from shoal.runtime import InputError

OBSERVATIONS = spaces.Box(-1, 1, (2,))
WIDE = spaces.Box(np.float32([-2, 0]), np.float32([6, 1]))


@pytest.fixture(autouse=True)
def _serial():
    runtime.init(engine="serial")


def build(kind, actions, **policy_kwargs):
    return build_model(ModelSpec(kind, OBSERVATIONS, actions, {"net_arch": [], **policy_kwargs}))


def zero(model):
    with torch.no_grad():
        model.flat.zero_()
    return model


# ---- the squashed Gaussian


def test_log_probabilities_are_those_of_a_density():
    mean, log_std = (torch.tensor([[number]], dtype=torch.float64) for number in (0.7, -0.3))
    actions = torch.linspace(-1, 1, 200_001, dtype=torch.float64)[1:-1, None]
    density = SquashedGaussian(mean, log_std).log_prob(actions).exp()
    assert torch.trapezoid(density, actions[:, 0]).item() == pytest.approx(1, abs=1e-6)


def test_samples_and_their_log_probabilities_agree_with_log_prob():
    mean, log_std = torch.tensor([[0.2, -0.4]], dtype=torch.float64), torch.tensor([[0.1, -0.5]], dtype=torch.float64)
    distribution = SquashedGaussian(mean, log_std)
    actions, log_prob = distribution.sample_with_log_prob(torch.tensor([[0.3, -1.2]], dtype=torch.float64))
    torch.testing.assert_close(distribution.log_prob(actions), log_prob)
    by_hand = sum(
        -0.5 * z**2 - s - 0.5 * math.log(2 * math.pi) - math.log(1 - math.tanh(m + math.exp(s) * z) ** 2)
        for m, s, z in ((0.2, 0.1, 0.3), (-0.4, -0.5, -1.2))
    )
    assert log_prob.item() == pytest.approx(by_hand)


@pytest.mark.parametrize("before", [9.0, 20.0, -30.0])
def test_log_probabilities_near_the_bounds_are_finite_and_exact(before):
    # float32: tanh(20) is 1 and 1 − tanh² is 0; the exact value of log(1 − tanh²) is 2 log 2 − 2|u| there
    mean = torch.tensor([[before]], requires_grad=True)
    actions, log_prob = SquashedGaussian(mean, torch.zeros(1, 1)).sample_with_log_prob(torch.zeros(1, 1))
    exact = -0.5 * math.log(2 * math.pi) - (2 * math.log(2) - 2 * abs(before))
    assert log_prob.item() == pytest.approx(exact, rel=1e-5)
    log_prob.sum().backward()
    assert mean.grad.item() == pytest.approx(2 * math.copysign(1, before), rel=1e-4)
    assert torch.isfinite(SquashedGaussian(mean, torch.zeros(1, 1)).log_prob(actions)).all()


def test_its_best_action_is_the_tanh_of_the_mean():
    assert SquashedGaussian(torch.tensor([[0.5]]), torch.zeros(1, 1)).mode().item() == pytest.approx(math.tanh(0.5))


# ---- models


def test_actions_fill_the_space_between_its_bounds():
    model = build("gaussian_actor_q", WIDE)
    found = model.environment_actions(np.float32([[-1, -1], [0, 0], [1, 1], [0.5, -0.5]]))
    np.testing.assert_allclose(found, [[-2, 0], [2, 0.5], [6, 1], [4, 0.25]])
    assert found.dtype == np.float32


def test_uniform_actions_are_uniform():
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((20_000, 1)).astype(np.float32))
    drawn = build("gaussian_actor_q", WIDE).uniform(None, noise).numpy()
    counts, _ = np.histogram(drawn, bins=10, range=(-1, 1))
    assert ((counts - 2000) ** 2 / 2000).sum() < 27.9  # χ² of 9 degrees of freedom, p = 0.001
    gumbel = torch.from_numpy(np.random.default_rng(0).gumbel(size=(9_000, 3)).astype(np.float32))
    chosen = np.bincount(build("categorical_actor_q", spaces.Discrete(3)).uniform(torch.zeros(1), gumbel).numpy())
    assert ((chosen - 3000) ** 2 / 3000).sum() < 13.8


def test_only_what_acts_travels():
    model = build("gaussian_actor_q", WIDE)
    assert all(name.startswith("actor.") for name in model.layout.shapes)
    assert model.get_weights().shape == (model.layout.size,)
    assert model.get_parameters().size == model.layout.size + 2 * (4 + 1) + 1  # critics of 2 + 2 inputs; log α
    before = model.get_parameters()
    model.set_weights(np.ones(model.layout.size, np.float32))
    np.testing.assert_array_equal(model.get_parameters()[model.layout.size :], before[model.layout.size :])


@pytest.mark.parametrize("algorithm", [SAC, TD3, DDPG])
def test_unbounded_actions_are_refused_with_what_takes_them(algorithm):
    class Unbounded(gymnasium.Env):
        observation_space, action_space = OBSERVATIONS, spaces.Box(-np.inf, np.inf, (1,))

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(2, np.float32), {}

        def step(self, action):
            return np.zeros(2, np.float32), 0.0, False, True, {}

    with pytest.raises(InputError, match=rf"{algorithm.name} does not work with action space Box\(1,\).*a2c, .*ppo"):
        algorithm(Unbounded)


def test_discrete_actions_are_refused_by_td3_with_what_takes_them():
    with pytest.raises(
        InputError, match=r"td3 does not work with action space Discrete\(2\).*a2c, .*dqn, .*ppo, qrdqn, sac"
    ):
        TD3("CartPole-v1")


# ---- SAC


def minibatch(actions, rewards=(1.0,), discounts=(0.5,)):
    rows = torch.zeros(len(rewards), 2)
    return {
        "observations": rows,
        "actions": torch.tensor(actions),
        "rewards": torch.tensor(rewards),
        "next_observations": rows,
        "discounts": torch.tensor(discounts),
    }


def set_values(model, *values):
    """Have each critic give the same value for everything."""
    for critic, value in zip(model.critics, values, strict=True):
        with torch.no_grad():
            critic.layers[-1].bias.copy_(torch.tensor(value))


def test_critics_aim_at_the_smaller_target_minus_the_entropy_term():
    actions = spaces.Box(-1, 1, (1,))
    model, target = zero(build("gaussian_actor_q", actions)), zero(build("gaussian_actor_q", actions))
    set_values(model, [1.0], [2.0])
    set_values(target, [5.0], [3.0])
    # mean 0, log σ 0, noise 0: a' = 0, log π = −½ log 2π; y = 1 + ½ (3 − 0.2 · log π)
    y = 1 + 0.5 * (3 - 0.2 * (-0.5 * math.log(2 * math.pi)))
    loss = sac_file.critic_loss(model, target, minibatch([[0.3]]), 0.2, torch.zeros(1, 1))
    assert loss.item() == pytest.approx(0.5 * ((1 - y) ** 2 + (2 - y) ** 2))
    ended = sac_file.critic_loss(model, target, minibatch([[0.3]], discounts=(0.0,)), 0.2, torch.zeros(1, 1))
    assert ended.item() == pytest.approx(0.5 * ((1 - 1) ** 2 + (2 - 1) ** 2))  # termination masks the entropy, too


def test_discrete_expectations_are_sums_over_the_policy():
    model = zero(build("categorical_actor_q", spaces.Discrete(2)))
    with torch.no_grad():
        model.actor.layers[-1].bias.copy_(torch.tensor([0.0, math.log(3.0)]))  # ¼ and ¾
    set_values(model, [1.0, 8.0], [2.0, 4.0])
    value, log_prob = model.expectations(model, torch.zeros(1, 2), torch.zeros(1, 2))
    assert value.item() == pytest.approx(0.25 * 1 + 0.75 * 4)
    assert log_prob.item() == pytest.approx(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    loss = sac_file.critic_loss(model, model, minibatch([1]), 0.0, torch.zeros(1, 2))
    y = 1 + 0.5 * 3.25
    assert loss.item() == pytest.approx(0.5 * ((8 - y) ** 2 + (4 - y) ** 2))


def test_the_entropy_to_aim_at_comes_from_the_number_of_actions():
    assert sac_file.target_entropy(build("gaussian_actor_q", WIDE), SACConfig(), torch.zeros(1, 2)) == -2
    discrete = build("categorical_actor_q", spaces.Discrete(4))
    assert float(sac_file.target_entropy(discrete, SACConfig(), torch.zeros(1, 2))) == pytest.approx(0.89 * math.log(4))
    assert sac_file.target_entropy(discrete, SACConfig(target_entropy=0.3), torch.zeros(1, 2)) == 0.3
    some = spaces.Dict({"action_mask": spaces.MultiBinary(4), "x": OBSERVATIONS})
    masked = build_model(ModelSpec("categorical_actor_q", some, spaces.Discrete(4), {"net_arch": []}))
    rows = {
        "action_mask": torch.tensor([[True, False, True, False], [False, False, False, True]]),
        "x": torch.zeros(2, 2),
    }
    found = sac_file.target_entropy(masked, SACConfig(), rows)
    assert found.tolist() == pytest.approx([0.89 * math.log(2), 0])  # of the actions that are allowed in each row


def filled(algorithm, config, actions, kind, rows=64):
    learner = Learner(ModelSpec(kind, OBSERVATIONS, actions, {"net_arch": [8]}), seed=1, device="cpu")
    algorithm.prepare(learner, config)
    generator = np.random.default_rng(0)
    observations = generator.standard_normal((rows, 2)).astype(np.float32)
    if isinstance(actions, spaces.Discrete):
        taken = generator.integers(actions.n, size=rows)
    else:
        taken = generator.uniform(-1, 1, (rows, *actions.shape)).astype(np.float32)
    ones = np.ones(rows, np.float32)
    learner.replay.write(
        Batch(
            {
                "observations": observations,
                "actions": taken,
                "rewards": ones,
                "next_observations": observations,
                "discounts": ones * 0.9,
            }
        )
    )
    return learner


@pytest.mark.parametrize(("actions", "kind"), [(WIDE, "gaussian_actor_q"), (spaces.Discrete(3), "categorical_actor_q")])
def test_each_loss_moves_its_own_part(actions, kind):
    config = SACConfig(batch_size=16)
    learner = filled(SAC, config, actions, kind)
    model = learner.model
    before = {part: model.flat[model.part(part)].clone() for part in ("actor", "critics", "log_alpha")}
    target = learner.target.flat[model.part("critics")].clone()
    metrics = sac_file.descend(learner, config, 1e-3)
    for part, values in before.items():
        step = (model.flat[model.part(part)] - values).abs()
        assert 0 < step.max() <= 1.01e-3  # Adam's first step is lr for each parameter with a gradient
    moved = learner.target.flat[model.part("critics")] - target
    torch.testing.assert_close(moved, 0.005 * (model.flat[model.part("critics")] - target), rtol=1e-2, atol=1e-7)
    assert metrics["train/ent_coef"].item() == 1  # α of the losses is that before the step
    assert learner.n_updates == 1


def test_a_given_temperature_stays():
    config = SACConfig(batch_size=16, ent_coef=0.25)
    learner = filled(SAC, config, WIDE, "gaussian_actor_q")
    assert sac_file.descend(learner, config, 1e-3)["train/ent_coef"].item() == pytest.approx(0.25)
    assert sac_file.descend(learner, config, 1e-3)["train/ent_coef"].item() == pytest.approx(0.25)


def test_the_temperature_rises_where_the_entropy_is_too_small():
    for aim, sign in ((100.0, 1), (-100.0, -1)):
        config = SACConfig(batch_size=16, target_entropy=aim)
        learner = filled(SAC, config, WIDE, "gaussian_actor_q")
        sac_file.descend(learner, config, 1e-3)
        assert math.copysign(1, learner.model.log_alpha.item()) == sign


# ---- TD3


def test_noise_in_the_target_is_clipped_before_and_actions_after():
    model = zero(build("deterministic_actor_q", spaces.Box(-1, 1, (1,))))
    with torch.no_grad():
        model.actor.layers[-1].bias.fill_(math.atanh(0.8))
        for critic, weight in zip(model.critics, (1.0, 2.0), strict=True):
            critic.layers[-1].weight.copy_(torch.tensor([[0.0, 0.0, weight]]))
    rows = {name: torch.cat([value] * 3) for name, value in minibatch([[0.0]]).items()}
    noise = torch.tensor([[-1.0], [-100.0], [100.0]])
    y = td3_file.td3_target(model, rows, noise, TD3Config(target_policy_noise=0.2, target_noise_clip=0.5))
    # a' = 0.8 − 0.2, 0.8 − 0.5, min(0.8 + 0.5, 1); the first critic's value is the smaller one
    assert y.tolist() == pytest.approx([1 + 0.5 * 0.6, 1 + 0.5 * 0.3, 1 + 0.5 * 1.0])


def test_actor_and_targets_wait_for_the_critics():
    config = TD3Config(batch_size=16, policy_delay=3)
    learner = filled(TD3, config, WIDE, "deterministic_actor_q")
    model, moved = learner.model, []
    for _ in range(6):
        actor, target = model.flat[model.part("actor")].clone(), learner.target.flat.clone()
        td3_file.descend(learner, config, 1e-3)
        moved.append(
            [
                (model.flat[model.part("actor")] != actor).any().item(),
                (learner.target.flat != target).any().item(),
            ]
        )
    assert moved == [[False, False], [False, False], [True, True]] * 2


def test_the_actor_climbs_the_first_critic_alone():
    config = TD3Config(batch_size=16, policy_delay=1, tau=1.0)
    first, second = (filled(TD3, config, WIDE, "deterministic_actor_q") for _ in range(2))
    with torch.no_grad():
        second.model.critics[1].layers[-1].bias.add_(100.0)
        second.target.critics[1].layers[-1].bias.add_(100.0)
    for learner in (first, second):
        td3_file.descend(learner, config, 1e-3)
    part = first.model.part("actor")
    torch.testing.assert_close(first.model.flat[part], second.model.flat[part])


def test_ddpg_is_td3_with_three_settings():
    plain = DDPGConfig()
    assert (plain.policy_delay, plain.target_policy_noise, plain.n_critics) == (1, 0.0, 1)
    assert DDPG.model_options(plain)["n_critics"] == 1


@pytest.mark.parametrize("algorithm", [SAC, TD3])
def test_actions_before_learning_starts_are_uniform_and_then_the_policys(algorithm):
    kind = algorithm.models[0]
    model, config = zero(build(kind, WIDE)), algorithm.config_class(learning_starts=10)
    noise = torch.full((1, 2), 0.5)
    uniform = algorithm.explore(model, torch.zeros(1, 2), noise, config, Clock(9, 100)).actions
    assert uniform[0, 0].item() == pytest.approx(math.erf(0.5 / math.sqrt(2)))
    own = algorithm.explore(model, torch.zeros(1, 2), noise, config, Clock(10, 100)).actions
    assert own[0, 0].item() == pytest.approx(math.tanh(0.5) if algorithm is SAC else 0.1 * 0.5)


def test_evaluated_actions_are_without_the_noise_of_exploration():
    policy = Policy(OBSERVATIONS, WIDE, model="deterministic_actor_q", policy_kwargs={"net_arch": []})
    model, rows = policy.model, torch.linspace(-1.0, 1.0, 8).reshape(4, 2)
    own = model.environment_actions(model.actor(rows).tanh().detach().numpy())
    np.testing.assert_allclose(policy.act(rows.numpy(), deterministic=True), own, rtol=1e-5)
    noise = model.draw_noise(np.random.default_rng(0), (4,))
    with torch.no_grad():
        explored = TD3.explore(model, rows, torch.from_numpy(noise), TD3Config(learning_starts=0), Clock(1, 9)).actions
    assert not np.isclose(model.environment_actions(np.asarray(explored)), own).any()
