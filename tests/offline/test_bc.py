"""Behavioural cloning: its mathematics by hand, and a whole offline training: run folder, resume, evaluation."""

import json
import math
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from datasets import episode, write_dataset
from gymnasium import spaces

from shoal import BC, evaluate, runtime
from shoal.algorithms.bc import log_likelihood
from shoal.cli.main import main
from shoal.envs import SpaceMismatchError
from shoal.rl import ModelSpec, build_model
from shoal.runtime import InputError

pytestmark = pytest.mark.usefixtures("datasets")

CART = gymnasium.make("CartPole-v1")
SPACES = CART.observation_space, CART.action_space
SMALL = {"gradient_steps": 20, "batch_size": 16, "policy_kwargs": {"net_arch": [8]}}


@pytest.fixture
def expert():
    """Pushes the cart to where the pole leans: 40 steps in 4 episodes."""
    runtime.init(engine="serial")
    episodes = []
    for seed in range(4):
        made = episode(*SPACES, 10, seed=seed, terminated=False)
        made.observations[:] = np.random.default_rng(seed).normal(size=(11, 4)).astype(np.float32)
        made.actions[:] = made.observations[:-1, 2] > 0
        episodes.append(made)
    return write_dataset("cart/expert-v0", episodes, *SPACES)


def test_the_likelihood_by_hand():
    """Logits 0 and log 3: P(1) = 3/4. A Gaussian of mean 1 and σ = 2 at 2: −½ (½)² − log 2 − ½ log 2π."""
    model = build_model(ModelSpec("actor_critic", spaces.Discrete(2), spaces.Discrete(2), {"net_arch": []}))
    with torch.no_grad():
        model.pi.layers[-1].weight.zero_()
        model.pi.layers[-1].bias.copy_(torch.tensor([0.0, math.log(3)]))
    rows = model.encode(np.array([0, 1]))
    found = log_likelihood(model, {"observations": rows, "actions": torch.tensor([1, 0])})
    assert found.exp().tolist() == pytest.approx([0.75, 0.25])
    box = spaces.Box(-5, 5, (1,), np.float32)
    kwargs = {"net_arch": [], "log_std_init": math.log(2)}
    model = build_model(ModelSpec("actor_critic", spaces.Discrete(2), box, kwargs))
    with torch.no_grad():
        model.pi.layers[-1].weight.zero_()
        model.pi.layers[-1].bias.fill_(1.0)
    found = log_likelihood(model, {"observations": rows, "actions": torch.tensor([[2.0], [1.0]])})
    normal = -math.log(2) - 0.5 * math.log(2 * math.pi)
    assert found.tolist() == pytest.approx([-0.125 + normal, normal])


def test_it_is_maximum_likelihood():
    """One state, actions 0 and 1 at 3 to 1: the policy's probabilities become those frequencies."""
    runtime.init(engine="serial")
    one, choice = spaces.Discrete(1), spaces.Discrete(2)
    made = episode(one, choice, 40)
    made.actions[:] = np.arange(40) % 4 == 0
    write_dataset("one/state-v0", [made], one, choice)
    with BC(dataset="one/state-v0", learning_rate="lin_0.05", batch_size=2048, gradient_steps=50) as bc:
        bc.train(100)
        outputs = bc.policy.model.outputs(bc.policy.model.encode(np.array([0])))
    assert outputs.softmax(-1)[0, 1].item() == pytest.approx(0.25, abs=0.01)


def test_it_needs_no_rewards(expert):
    """BC of a dataset with other rewards is the same, bit for bit."""
    other = [episode(*SPACES, 10, seed=seed, terminated=False, rewards=np.arange(10) * 7) for seed in range(4)]
    same = []
    for made, seed in zip(other, range(4), strict=True):
        made.observations[:] = np.random.default_rng(seed).normal(size=(11, 4)).astype(np.float32)
        made.actions[:] = made.observations[:-1, 2] > 0
        same.append(made)
    write_dataset("cart/paid-v0", same, *SPACES)
    hashes = set()
    for name in (expert, "cart/paid-v0"):
        with BC(dataset=name, **SMALL) as bc:
            hashes.add(bc.train(40).weights_sha256)
    assert len(hashes) == 1


def test_it_learns_trains_without_an_environment_and_goes_on_bit_for_bit(expert, tmp_path):
    """Also with a dataset larger than memory, and with workers that nobody needs."""
    for name, size in (("whole", 1000), ("streamed", 15)):
        with BC(dataset=expert, buffer_size=size, seed=1, **SMALL) as straight:
            before = straight.policy.weights_sha256()
            hash_of_all = straight.train(40).weights_sha256
            metrics = straight.settings()["dataset"]
        assert before != hash_of_all
        assert (metrics["episodes"], metrics["steps"]) == (4, 40)
        with BC(dataset=expert, buffer_size=size, seed=1, workers=3, **SMALL) as half:
            half.train(20)
            half.save(tmp_path / name)
        with BC.load(tmp_path / name) as rest:
            assert rest.timesteps == 20
            assert rest.train(20).weights_sha256 == hash_of_all
    states = np.random.default_rng(9).normal(size=(200, 4)).astype(np.float32)
    with BC(dataset=expert, seed=1, **SMALL | {"gradient_steps": 100, "learning_rate": 0.01}) as bc:
        bc.train(100)
        agreed = bc.policy.act(states, deterministic=True) == (states[:, 2] > 0)
    assert agreed.mean() > 0.8


def test_normalization_is_by_the_whole_dataset(expert):
    """Before the first update: mean and deviation over all observations, each counted once."""
    with BC(dataset=expert, normalize="obs", **SMALL) as bc:
        model = bc.policy.model
        seen = np.concatenate([read.observations for read in bc.dataset.read(range(4))])
        encoded = model.encode(seen)
        assert encoded.mean(0).tolist() == pytest.approx([0] * 4, abs=1e-5)
        assert encoded.std(0, correction=0).tolist() == pytest.approx([1] * 4, abs=1e-4)
        before = model.normalizer.get_parameter(next(name for name, _ in model.normalizer.named_parameters())).clone()
        bc.train(20)
        assert torch.equal(
            before, bc.policy.model.normalizer.get_parameter(next(iter(dict(model.normalizer.named_parameters()))))
        )
    with pytest.raises(InputError, match=r"normalize is 'reward', but must be obs or none with an offline algorithm"):
        BC(dataset=expert, normalize="reward")


def test_a_dataset_that_does_not_fit_is_refused_with_both(expert, tmp_path):
    with pytest.raises(SpaceMismatchError) as caught:
        BC("Pendulum-v1", dataset=expert)
    told = "dataset 'cart/expert-v0' has the observation space Box(4,) float32"
    assert told in str(caught.value)
    assert "environment 'Pendulum-v1' has Box(3,) float32 in [-8…, 8…]" in str(caught.value)
    with BC(dataset=expert, **SMALL) as bc:
        bc.train(20)
        bc.save(tmp_path / "run")
    write_dataset("cart/other-v0", [episode(*SPACES, 3)], *SPACES)
    with pytest.raises(InputError, match=r"another dataset \(name 'cart/expert-v0', episodes 4, steps 40\) than"):
        BC.load(tmp_path / "run", dataset="cart/other-v0")


def test_what_offline_training_does_not_have(expert):
    with pytest.raises(InputError, match=r"bc does not work with a memory.*: a2c,.* ppo, which learn in an env"):
        BC(dataset=expert, policy_kwargs={"memory": "lstm"})
    with BC(dataset=expert, **SMALL) as bc, pytest.raises(InputError, match=r"eval_freq.*eval_stop_return"):
        bc.train(20, stop_return=475)


@pytest.mark.slow
def test_the_command_writes_a_run_folder_that_resumes_and_evaluates(expert, tmp_path, monkeypatch, capsys):
    runtime.shutdown()
    monkeypatch.chdir(tmp_path)
    small = ["--gradient-steps", "20", "--batch-size", "16", "--eval-freq", "20", "--eval-episodes", "2"]
    command = ["train", "bc", "--dataset", expert, "--engine", "serial", *small]
    assert main([*command, "--total-timesteps", "40"]) == 0
    folder = Path("runs/bc-CartPole-v1-1")
    assert (folder / "learning_curve.png").exists()
    assert "evaluation's mean return" in capsys.readouterr().err
    assert main(["train", "--resume", str(folder), "--total-timesteps", "80", "--engine", "serial"]) == 0
    resumed = json.loads((folder / "result.json").read_text())
    assert (resumed["timesteps"], resumed["solved"]) == (80, None)
    assert main([*command, "--total-timesteps", "80", "--run-dir", "straight"]) == 0
    assert json.loads(Path("straight/result.json").read_text())["weights_sha256"] == resumed["weights_sha256"]
    assert len(Path("straight/evaluations.jsonl").read_text().splitlines()) == 4
    assert main(["evaluate", str(folder), "--episodes", "2"]) == 0
    assert evaluate(folder, episodes=2).episodes == 2
    assert main(["train", "bc", "CartPole-v1", "--engine", "serial"]) == 2
    assert "no dataset is given: name one with dataset=… (--dataset)" in capsys.readouterr().err


@pytest.mark.slow
def test_seeds_are_summed_up_by_their_last_evaluations(expert, tmp_path, monkeypatch, capsys):
    runtime.shutdown()
    monkeypatch.chdir(tmp_path)
    small = ["--gradient-steps", "20", "--batch-size", "16", "--eval-freq", "20", "--eval-episodes", "2"]
    command = ["train", "bc", "--dataset", expert, "--engine", "serial", *small, "--total-timesteps", "40"]
    assert main([*command, "--seeds", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    last = [
        json.loads(path.read_text().splitlines()[-1]) for path in sorted(Path("runs").glob("*/*/evaluations.jsonl"))
    ]
    assert list(result["episode_return_means"].values()) == [told["mean_return"] for told in last]
    assert Path("runs/bc-dataset-1/learning_curves.png").exists()


def test_the_last_iteration_takes_the_gradient_steps_that_are_left(expert):
    """25 are 20 and 5, counted as such; and those that follow are another 5."""
    with BC(dataset=expert, **SMALL) as bc:
        bc.train(25)
        assert (bc.timesteps, bc.state.iteration) == (25, 2)
        bc.train(5)
        assert (bc.timesteps, bc.state.iteration) == (30, 3)
        with pytest.raises(TypeError, match=r"train has no argument 'callback'. Here it is callbacks"):
            bc.train(5, callback=None)
