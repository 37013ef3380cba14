"""The policies of several agents, served together."""

import httpx
import numpy as np
import pytest
from agents_envs import Pair, Rounds

from shoal import PPO, evaluate, runtime
from shoal.rl import serve
from shoal.runtime import InputError

PLAIN = (Pair, {"policies": "separate", "centralized_critic": "observations"})
REMEMBERING = (Rounds, {"policies": {"a": "one", "*": "other"}, "policy_kwargs": {"memory": "gru"}})


@pytest.fixture(autouse=True)
def _serial():
    runtime.init(engine="serial")


def policies_of(env, settings):
    """The policies of a training that has not begun, with weights by chance."""
    with PPO(env, preset="none", n_steps=16, batch_size=16, **settings) as ppo:
        joint = ppo.policy
    weights = joint.get_weights()
    joint.set_weights(weights + np.random.default_rng(3).normal(0, 0.5, weights.shape).astype(np.float32), 7)
    return joint


@pytest.mark.parametrize(("env", "settings"), [PLAIN, REMEMBERING], ids=["plain", "remembering, in turns"])
def test_together_they_act_as_the_policies_do(env, settings):
    joint = policies_of(env, settings)
    with serve(joint) as served:
        found = evaluate(served, env, episodes=4, seed=1)
    wanted = evaluate(joint, env, episodes=4, seed=1)
    assert (found.returns, found.agents) == (wanted.returns, wanted.agents)


def test_each_is_asked_by_its_name_or_an_agents():
    joint = policies_of(*REMEMBERING)
    observation = [3, 2]
    with serve(joint, http="127.0.0.1:0") as served, httpx.Client(base_url=served.http_address) as client:

        def ask(path, **more):
            return client.post(path, json={"observation": observation, **more})

        begun = {"session": "s", "episode_start": True}
        for name, policy in (("one", "one"), ("a", "one"), ("b", "other")):
            alone = joint.policy(policy)
            action, _ = alone.act_with_memory(np.float32([observation]), alone.initial_memory(1), deterministic=True)
            assert ask(f"/policies/{name}/act", **begun).json() == {"action": action[0], "version": 7}
        assert served.policy("c") is served.policies["other"]
        assert repr(served).startswith("ServedPolicies(status='ok', policies=['")
        assert ask("/act").json() == {"error": "there are several policies, one, other: POST /policies/NAME/act"}
        for path in ("/policies/another/act", "/policies/another/sessions/s"):
            reply = client.request("DELETE" if "sessions" in path else "POST", path)
            assert (reply.status_code, reply.json()["error"]) == (
                404, "there is no policy 'another'. Did you mean 'other'?"
            )  # fmt: skip
        health = client.get("/health").json()
        assert health["status"] == "ok"
        assert {name: state["agents"] for name, state in health["policies"].items()} == {
            "one": ["a"],
            "other": ["b", "c"],
        }
        assert client.delete("/policies/one/sessions/s").status_code == 200
        assert ask("/policies/one/act", session="s").status_code == 404
        assert ask("/policies/other/act", session="s").status_code == 200  # which has sessions of its own


def test_one_of_them_alone():
    joint = policies_of(*PLAIN)
    with pytest.raises(InputError, match="grpc is for one policy, and there are several, speaker, listener"):
        serve(joint, grpc="127.0.0.1:0")
    with serve(joint, name="listener", http="127.0.0.1:0") as served:
        path = f"{served.http_address}/policies/listener/act"
        assert httpx.post(path, json={"observation": [0, 1, 0, 0]}).status_code == 200
