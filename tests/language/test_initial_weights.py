"""`initial`: a training that begins with the weights of another one."""

import numpy as np
import pytest

from shoal import PPO, runtime
from shoal.algorithms import GRPO, SFT, TokenPPO
from shoal.runtime import InputError

SMALL = {"n_envs": 2, "n_steps": 8, "batch_size": 8, "preset": "none"}
TEXTS = {"tokenizer": "characters", "context": 16, "width": 16, "heads": 2, "layers": 1}
ANSWERS = {"n_envs": 8, "group_size": 4, "samples": 4, "batch_size": 8, "max_new_tokens": 3, "preset": "none"}


@pytest.fixture
def run(tmp_path):
    runtime.init(engine="serial")
    with PPO("CartPole-v1", **SMALL) as ppo:
        ppo.train(16)
        ppo.save(tmp_path / "run")
        return tmp_path / "run", ppo.policy.get_weights()


def test_any_training_may_begin_with_a_run_of_the_same_network(run):
    folder, weights = run
    with PPO("CartPole-v1", initial=str(folder), seed=7, **SMALL) as ppo:
        assert np.array_equal(ppo.policy.get_weights(), weights)
        ppo.train(16)
        assert not np.array_equal(ppo.policy.get_weights(), weights)


def test_another_network_and_what_is_no_run_are_refused(run, tmp_path):
    folder, _ = run
    for given, message in (
        (
            {"policy_kwargs": {"net_arch": [8]}},
            r"initial is .* another model: policy_kwargs: {}, wanted {'net_arch': \[8\]}$",
        ),
        ({"initial": object()}, "initial is <object .* but must be the folder of a run, checkpoint or saved policy"),
        ({"normalize": "obs"}, "statistics would begin anew"),
        ({"initial": str(tmp_path / "none")}, "there is no run or policy at"),
    ):
        with pytest.raises(InputError, match=message):
            PPO("CartPole-v1", **{"initial": folder} | given, **SMALL)
    with pytest.raises(
        InputError, match=r"observation space: Box\(4,\) .*, wanted Box\(6,\) .*; action space: Discrete"
    ):
        PPO("Acrobot-v1", initial=folder, **SMALL)
    with pytest.raises(InputError, match="holds no language model"):
        GRPO("copy-2", initial=str(folder), **ANSWERS)


def test_a_value_head_comes_and_goes_and_is_learned_beside_adapters(run, tmp_path):
    with SFT("copy-2", policy_kwargs=TEXTS, examples=8, batch_size=2, gradient_steps=2) as sft:
        sft.save(tmp_path / "sft")
        weights = sft.policy.get_weights()
    given = ANSWERS | {"initial": str(tmp_path / "sft")}
    with TokenPPO("copy-2", **given, policy_kwargs={"lora": {"rank": 2}}) as ppo:
        begun = dict(ppo.policy.model.named_parameters())
        assert np.array_equal(ppo.policy.get_weights()[: len(weights)], weights)
        begun = {name: value.detach().clone() for name, value in begun.items()}
        ppo.train(16)
        ppo.save(tmp_path / "ppo")
        moved = {n for n, value in ppo.policy.model.named_parameters() if not np.array_equal(value.detach(), begun[n])}
    assert "value.bias" in moved
    assert moved
    assert all(name.startswith(("adapters.", "value.")) for name in moved)
    with GRPO("copy-2", **ANSWERS, initial=str(tmp_path / "ppo")) as grpo:
        assert not any(name.startswith("value.") for name, _ in grpo.policy.model.named_parameters())
        grpo.train(8)
