"""Served policies between spaces with parts, by handle and over HTTP."""

import json

import numpy as np
import pytest
from gymnasium import spaces
from test_http import ask

from shoal import runtime
from shoal.cli.serve import example_body
from shoal.rl import Policy, serve

SEEN = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (2, 2, 3), np.uint8),
        "arm": spaces.Tuple([spaces.Box(-9, 9, (2,), np.float32), spaces.Discrete(3, start=5)]),
    }
)
TAKEN = spaces.Dict(
    {"move": spaces.Box(-1, 1, (2,), np.float32), "press": spaces.Tuple([spaces.Discrete(2), spaces.MultiBinary(3)])}
)
MASKED = spaces.Dict({"action_mask": spaces.MultiBinary(4), "x": spaces.Box(-1, 1, (1,), np.float32)})
ONE = {"camera": np.full((2, 2, 3), 7).tolist(), "arm": [[0.5, -2], 6]}
BATCH = {"camera": np.zeros((3, 2, 2, 3)).tolist(), "arm": [[[0, 0], [1, 1], [2, 2]], [5, 6, 7]]}


@pytest.fixture(autouse=True)
def _serial():
    runtime.init(engine="serial")


def act(served, observation):
    reply = ask(served, "POST", "/act", json={"observation": observation})
    return reply.status_code, reply.json()


def same(first, second):
    """Whether two answers are the same, but for the last bits, which depend on the size of the batch."""
    texts = [json.dumps(answer, default=lambda leaf: np.round(leaf, 4).tolist()) for answer in (first, second)]
    return texts[0] == texts[1]


def test_objects_and_lists_go_in_and_come_out():
    policy = Policy(SEEN, TAKEN, seed=2)
    with serve(policy, max_batch_size=2) as served:
        assert TAKEN.contains(served.act(ONE))
        assert same(served.act(ONE), policy.act(ONE, deterministic=True))
        assert same(served.act(BATCH), policy.act(BATCH, deterministic=True)), "in two parts"
        status, answer = act(served, ONE)
        assert status == 200
        chosen = served.act(ONE)
        assert answer["action"] == {"move": chosen["move"].tolist(), "press": [int(chosen["press"][0]), [1, 0, 0]]}
        body = json.loads(example_body(SEEN))
        assert body["observation"]["arm"] == [[0, 0], 5]
        assert act(served, body["observation"])[0] == 200


@pytest.mark.parametrize(
    ("observation", "text"),
    [
        (ONE | {"camera": np.full((2, 2, 3), 300).tolist()}, "observation['camera'][0, 0, 0] = 300"),
        (ONE | {"arm": [[0, 0], 9]}, "observation['arm'][1] = 9"),
        (ONE | {"arm": [[0, 0]]}, "observation['arm'] has 1 parts; wanted 2"),
        ({"arm": [[0, 0], 5]}, "observation lacks 'camera'"),
        (ONE | {"arm": [["0", 0], 5]}, "the observation holds text"),
        (ONE | {"arm": {"0": ": 1"}}, "the observation holds text"),
        (BATCH | {"arm": [[0, 0], 5]}, "all parts must have the same rows"),
        ([1, 2], "observation of type list; wanted a dict"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_path(observation, text):
    with serve(Policy(SEEN, spaces.Discrete(2))) as served:
        status, answer = act(served, observation)
    assert status == 422
    assert text in answer["error"]


def test_masks_count_and_must_allow_something():
    policy = Policy(MASKED, spaces.Discrete(4))
    with serve(policy, max_batch_size=4) as served:
        for allowed in range(4):
            observation = {"action_mask": np.eye(4)[allowed].tolist(), "x": [0]}
            assert served.act(observation) == allowed
            assert served.act(observation, deterministic=False) == allowed
            assert act(served, observation)[1]["action"] == allowed
        status, answer = act(served, {"action_mask": [[1, 0, 0, 0], [0, 0, 0, 0]], "x": [[0], [0]]})
    assert status == 422
    assert "observation['action_mask'] of row 1, which allows no action" in answer["error"]
    with pytest.raises(ValueError, match="of row 0, which allows no action"):
        policy.act({"action_mask": [0, 0, 0, 0], "x": [0]})
