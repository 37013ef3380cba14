"""Policies as programs of torch alone: they act as the policy does, in a process that has nothing of this package."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.envs import codec
from shoal.rl import Policy
from shoal.runtime import InputError

BOX = spaces.Box(-2, 2, (3,), np.float32)
PARTS = spaces.Dict(
    seen=BOX,
    at=spaces.Tuple([spaces.Discrete(4, start=2), spaces.MultiBinary(2)]),
    picture=spaces.Box(0, 255, (12, 12, 3), np.uint8),
    action_mask=spaces.MultiBinary(5),
)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def samples(space, count):
    space.seed(3)
    found = codec(space)
    rows = np.empty((count, *found.shape), found.dtype)
    for index in range(count):
        drawn = space.sample()
        if isinstance(drawn, dict):
            drawn["action_mask"][index % 5] = 1
        rows[index] = found.pack(drawn)
    return rows


def as_tensors(space, rows):
    if not isinstance(space, spaces.Dict):
        return torch.tensor(rows)
    parts = {"seen": rows["seen"], "picture": rows["picture"], "action_mask": rows["action_mask"]}
    parts |= {f"at/{place}": rows["at"][place] for place in rows["at"].dtype.names}
    return {path: torch.tensor(part.copy()) for path, part in parts.items()}


@pytest.mark.parametrize(
    ("model", "observations", "actions"),
    [
        slow("q_network", PARTS, spaces.Discrete(5, start=-1)),
        ("gaussian_actor_q", BOX, spaces.Box(-1, 3, (2,), np.float64)),
        slow("actor_critic", BOX, spaces.Discrete(5)),
        slow("actor_critic", BOX, spaces.Box(-0.001, np.array([0.002, 1], np.float32), (2,), np.float32)),
        slow("actor_critic", spaces.Discrete(4, start=1), spaces.MultiDiscrete([2, 3])),
        slow("actor_critic", spaces.Box(0, 255, (40, 40, 3), np.uint8), spaces.MultiBinary(3)),
    ],
)
def test_actions_are_the_policys(tmp_path, model, observations, actions):
    policy = Policy(observations, actions, model=model, seed=1)
    program = torch.export.load(policy.export(tmp_path / "policy.pt2")).module()
    for count in (1, 7):
        rows = samples(observations, count)
        wanted = policy.act(codec(observations).unpack(rows), deterministic=True)
        found = program(as_tensors(observations, rows)).numpy()
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["policy.pt2"]


@pytest.mark.slow
def test_a_process_without_this_package_acts(tmp_path):
    policy = Policy(BOX, spaces.Discrete(5), seed=1)
    policy.export(tmp_path / "policy.pt2")
    text = (
        "import sys, torch; sys.modules['shoal'] = None\n"
        "print(torch.export.load('policy.pt2').module()(torch.ones(2, 3)).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(policy.act(np.ones((2, 3)), deterministic=True).tolist())


def test_what_cannot_be_exported(tmp_path):
    remembers = Policy(BOX, spaces.Discrete(2), policy_kwargs={"memory": "gru"})
    with pytest.raises(InputError, match="a policy that remembers cannot be exported"):
        remembers.export(tmp_path / "policy.pt2")
    with pytest.raises(InputError, match="actions of several parts"):
        Policy(BOX, spaces.Dict(a=spaces.Discrete(2), b=BOX)).export(tmp_path / "policy.pt2")
    with pytest.raises(InputError, match=r"is called 'policy.onnx', but what torch.export.load reads ends in .pt2"):
        Policy(BOX, spaces.Discrete(2)).export(tmp_path / "policy.onnx")
    assert not list(tmp_path.iterdir())
