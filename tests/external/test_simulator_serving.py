"""A served policy answers simulators by the protocol that they trained with."""

import numpy as np
import pytest
from gymnasium import spaces

from shoal import runtime
from shoal.envs import EpisodeLostError, SimulatorClient
from shoal.rl import Policy, serve
from shoal.runtime import InputError

BOX = spaces.Box(-1.0, 1.0, (4,), np.float32)
SEEN = np.random.default_rng(0).uniform(-1, 1, (6, 4)).astype(np.float32)


@pytest.fixture(autouse=True)
def _serial():
    runtime.init(engine="serial")


def connected(served, **options):
    return SimulatorClient(served.grpc.address, token=served.grpc.token, **options)


def test_it_acts_as_the_policy_does():
    policy = Policy(BOX, spaces.Box(-2, 2, (3,), np.float32), seed=1)
    with serve(policy, grpc="0", max_batch_size=4) as served, connected(served, observation_space=BOX) as client:
        episode = client.start()
        for step, seen in enumerate(SEEN):
            action = episode.act(seen, float(step > 0))
            assert action.dtype == np.float32
            np.testing.assert_allclose(action, policy.act(seen, deterministic=True), rtol=1e-4, atol=1e-6)
        episode.log(SEEN[0], np.zeros(3, np.float32), 1.0)
        episode.end(SEEN[0], 1.0, truncated=True)
        with pytest.raises(EpisodeLostError, match="it ended at step 7"):
            episode.act(SEEN[0])


def test_what_lies_beyond_the_bounds_is_answered_and_drawn_actions_differ():
    policy = Policy(BOX, spaces.Box(-2, 2, (3,), np.float32), seed=1)
    with serve(policy, grpc="0") as served, connected(served, explore=True) as client:
        episode = client.start()
        first, second = episode.act(SEEN[0] * 100), episode.act(SEEN[0] * 100)
        assert (first != second).any()
        episode.end(SEEN[0], truncated=True)


def test_a_policy_with_memory_remembers_for_each_session_also_what_it_did_not_choose():
    policy = Policy(BOX, spaces.Box(-100, 100, (2,), np.float32), policy_kwargs={"memory": "lstm"}, seed=1)
    with serve(policy, grpc="0", max_batch_size=4) as served, connected(served) as client:
        memory, wanted = None, []
        for seen in SEEN:
            action, memory = policy.act_with_memory(seen, memory, deterministic=True)
            wanted.append(action)
        one, other = client.start(), client.start()
        for step, seen in enumerate(SEEN):
            np.testing.assert_allclose(one.act(seen), wanted[step], rtol=1e-4, atol=1e-5)
            if step < 5:
                other.log(seen, np.zeros(2, np.float32))
        np.testing.assert_allclose(other.act(SEEN[5]), wanted[5], rtol=1e-4, atol=1e-5)
        assert served.health()["sessions"] == 2
        one.end(SEEN[0], terminated=True)
        assert served.health()["sessions"] == 1
        other.end(SEEN[0], terminated=True)


def test_its_end_is_told_and_tokens_are_wanted():
    policy = Policy(BOX, spaces.Discrete(2), seed=1)
    served = serve(policy, grpc="0", token="mine")
    assert served.grpc.token == "mine"
    with pytest.raises(InputError, match="served over gRPC already"):
        served.listen_for_simulators("0")
    with connected(served) as client:
        episode = client.start()
        episode.act(SEEN[0])
        served.close()
        with pytest.raises(EpisodeLostError):
            episode.act(SEEN[0])
    assert served.grpc is None
