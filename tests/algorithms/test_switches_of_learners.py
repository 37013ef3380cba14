"""Switches of a learner: half precision, compiled losses, activations computed again. What they must not change, they
do not."""

import numpy as np
import pytest
import torch
from test_same_weights import COMMON, SETTINGS, env_of

from shoal import GRPO, PPO, ApeX, Supervised, runtime
from shoal.algorithms import ALGORITHMS
from shoal.envs import resolve
from shoal.rl import Callback, FlatAdam, ModelSpec, build_model
from shoal.rl.learn.shards import Descent
from shoal.rl.learner_settings import LearnerSettings
from shoal.runtime import InputError


def descent(**settings):
    """Of a layer on the rows x [7, 3] towards y, and the layer."""
    draws = np.random.default_rng(0)
    layer = torch.nn.Linear(3, 1)
    flat, gradients = torch.tensor(draws.normal(size=4), dtype=torch.float32), torch.zeros(4)
    for start, parameter in ((0, layer.weight), (3, layer.bias)):
        part = slice(start, start + parameter.numel())
        parameter.data, parameter.grad = flat[part].view_as(parameter), gradients[part].view_as(parameter)
    made = Descent(LearnerSettings(**settings))
    made.optimizers["model"] = FlatAdam(flat, gradients)
    batch = {"x": torch.tensor(draws.normal(size=(7, 3)), dtype=torch.float32)}

    def loss_of(rows):
        said = layer(rows["x"])
        return said.square().mean(), {"dtype": said.new_zeros(1) + said.element_size(), "said": said.detach()}

    told = made.differentiate(batch, loss_of)
    return gradients.clone(), told


def test_bfloat16_is_the_forward_pass_alone():
    (wanted, full), (found, half) = descent(), descent(precision="bfloat16")
    assert half["dtype"].item() == 2
    assert full["dtype"].item() == 4
    assert {value.dtype for value in half.values()} == {torch.float32}
    assert found.dtype == torch.float32
    assert not torch.equal(found, wanted)
    torch.testing.assert_close(found, wanted, rtol=0.03, atol=0.02)
    sharded, told = descent(precision="bfloat16", gradient_shards=3)
    torch.testing.assert_close(sharded, found, rtol=0.03, atol=0.02)
    assert torch.equal(told["said"], half["said"])


def test_activations_that_are_computed_again_give_the_same_gradient():
    spec = resolve("copy-4", None)
    env = spec.make()
    model = build_model(
        ModelSpec("language_model", env.observation_space, env.action_space, {"width": 32, "layers": 3}), seed=1
    )
    tokens = torch.arange(24).reshape(2, 12) % model.tokens.size
    computed, gradients = [], []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda *_: computed.append(1))
    for keeps in (True, False):
        model.keeps_activations = keeps
        model.flat_gradients.zero_()
        computed.clear()
        model(tokens).square().mean().backward()
        assert len(computed) == (3 if keeps else 6)
        gradients.append(model.flat_gradients.clone())
    assert torch.equal(*gradients)
    assert gradients[0].abs().sum() > 0


def test_what_cannot_be_switched_is_refused(monkeypatch):
    for name, value, algorithm, env, message in (
        ("precision", "bfloat16", ApeX, "CartPole-v1", "precision is 'bfloat16', but must be 'float32' with apex"),
        ("compile", True, ApeX, "CartPole-v1", "compile is True, but must be False with apex"),
        ("precision", "half", PPO, "CartPole-v1", "precision is 'half'"),
        (
            "gradient_checkpointing",
            True,
            PPO,
            "CartPole-v1",
            "gradient_checkpointing is True, but must be False with ppo",
        ),
    ):
        with pytest.raises(InputError, match=message):
            algorithm(env, **{name: value})
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(InputError, match=r"there is no C\+\+ compiler .*apt-get install g\+\+"):
        PPO("CartPole-v1", compile=True)


def trained(name, learners, **changes):
    settings = {"preset": "none", **COMMON, **SETTINGS[name], "n_epochs": 2, "gradient_shards": 4, **changes}
    runtime.shutdown()
    runtime.init(engine="serial" if learners == 1 else "native", num_cpus=4)
    with ALGORITHMS[name](env_of(name), learners=learners, **settings) as training:
        return training.train(2 * 12 * 32).weights_sha256


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, within compile
@pytest.mark.parametrize("switch", [{"precision": "bfloat16"}, {"compile": True}])
def test_one_hash_for_any_learners_with_it(switch):
    plain, one = trained("ppo", 1), trained("ppo", 1, **switch)
    assert plain != one
    assert trained("ppo", 2, **switch) == one


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, within compile
@pytest.mark.parametrize("switch", [{"precision": "bfloat16"}, {"compile": True}])
def test_networks_learn_with_it(switch):
    draws = np.random.default_rng(0)
    features = draws.normal(size=(400, 3)).astype(np.float32)
    rows = features, (features[:, 0] + features[:, 1] > 0).astype(int)
    settings = {"rounds_per_iteration": 50, "batch_size": 64, "gradient_shards": 2, "learning_rate": 0.01, **switch}
    hashes = []
    for engine, learners in (("serial", 1), ("native", 2)):
        with runtime.init(engine=engine, num_cpus=4), Supervised(rows, learners=learners, **settings) as fit:
            hashes.append(fit.train(100).weights_sha256)
            assert fit.evaluate()["accuracy"] > 0.9
    assert len(set(hashes)) == 1


@pytest.mark.slow
def test_ratios_in_bfloat16_are_1_where_the_learner_computes_both_policies():
    told = []

    class Note(Callback):
        def on_iteration_end(self, training, report):
            told.append(report.metrics["train/approx_kl"])

    settings = {"n_envs": 32, "samples": 8, "batch_size": 32, "preset": "none", "precision": "bfloat16"}
    with runtime.init(engine="serial"):
        for recompute in ("none", "same_shape"):
            with GRPO("copy-4", recompute=recompute, **settings) as training:
                training.train(32, callbacks=Note())
    assert told[0] > 1e-6
    assert told[1] == 0


@pytest.mark.slow
def test_a_language_model_trains_to_the_same_bits_with_its_activations_computed_again():
    hashes = []
    with runtime.init(engine="serial"):
        for again in (False, True):
            settings = {"n_envs": 32, "samples": 8, "batch_size": 16, "preset": "none"}
            with GRPO("copy-4", gradient_checkpointing=again, **settings) as training:
                hashes.append(training.train(64).weights_sha256)
    assert len(set(hashes)) == 1
