"""Serving a policy with memory: a state for each session, with a limit and an expiry, which no replica takes along."""

import asyncio
import json

import httpx
import numpy as np
import pytest
from conftest import wait_until
from gymnasium import spaces
from learning_envs import Walk

from shoal import runtime
from shoal.rl import Policy, ServerBusyError, SessionInUseError, UnknownSessionError, evaluate, serve
from shoal.rl.serving.http_app import make_app
from shoal.rl.serving.sessions import Sessions

BOX = spaces.Box(-1.0, 1.0, (4,), np.float32)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sessions(clock):
    return Sessions({"h": np.zeros((1, 2), np.float32)}, limit=2, timeout=10, clock=clock)


def filled(value, rows=1):
    return {"h": np.full((rows, 2), value, np.float32)}


def test_a_session_keeps_what_was_given_back(sessions):
    assert sessions.take("a", 3, episode_start=True)["h"].tolist() == [[0, 0]] * 3
    sessions.keep("a", filled(5, rows=3))
    assert sessions.take("a", 3, episode_start=False)["h"].tolist() == [[5, 5]] * 3
    sessions.drop("a")  # its request was not answered: the next one finds the same
    assert sessions.take("a", 3, episode_start=False)["h"].tolist() == [[5, 5]] * 3
    sessions.keep("a", filled(6, rows=3))
    assert sessions.take("a", 1, episode_start=True)["h"].tolist() == [[0, 0]]
    sessions.keep("a", filled(7))
    with pytest.raises(ValueError, match="'a' has 1 observations in each request, not 2"):
        sessions.take("a", 2, episode_start=False)


def test_one_request_after_the_other(sessions):
    sessions.take("a", 1, episode_start=True)
    with pytest.raises(SessionInUseError, match="'a' waits for an answer"):
        sessions.take("a", 1, episode_start=False)
    sessions.take("b", 1, episode_start=True)
    sessions.drop("a")  # its first request was not answered: it never began
    with pytest.raises(UnknownSessionError, match=r"no session 'a'.*Begin it with episode_start"):
        sessions.take("a", 1, episode_start=False)


@pytest.mark.parametrize("name", [None, "", "x" * 201, 7])
def test_names(sessions, name):
    with pytest.raises(ValueError, match="each request names the episode"):
        sessions.take(name, 1, episode_start=True)


def test_limit_and_expiry(sessions, clock):
    for name in "ab":
        sessions.take(name, 1, episode_start=True)
        sessions.keep(name, filled(1))
        clock.now += 4
    with pytest.raises(ServerBusyError, match=r"there are 2 sessions, the most that may be \(max_sessions\)"):
        sessions.take("c", 1, episode_start=True)
    clock.now = 10.5  # a was used at 0, b at 4
    sessions.take("c", 1, episode_start=True)
    sessions.keep("c", filled(1))
    with pytest.raises(UnknownSessionError):
        sessions.take("a", 1, episode_start=False)
    sessions.end("b")
    assert len(sessions) == 1
    sessions.take("d", 1, episode_start=True)  # being answered, it does not expire
    clock.now = 100
    assert len(sessions) == 1
    sessions.keep("d", filled(3))
    assert sessions.take("d", 1, episode_start=False)["h"].tolist() == [[3, 3]]


def remembering(kind="lstm", observation_space=BOX):
    return Policy(observation_space, spaces.Box(-100, 100, (2,), np.float32), policy_kwargs={"memory": kind}, seed=1)


def episode(policy, observations):
    memory, actions = None, []
    for observation in observations:
        action, memory = policy.act_with_memory(observation, memory, deterministic=True)
        actions.append(action)
    return np.stack(actions)


OBSERVATIONS = np.random.default_rng(0).uniform(-1, 1, (5, 3, 4)).astype(np.float32)


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_sessions_side_by_side_act_as_the_policy_does(kind):
    runtime.init(engine="serial")
    policy = remembering(kind)
    with serve(policy, max_batch_size=4) as served:
        found = [
            [served.act(seen[i], session=f"client {i}", episode_start=t == 0) for i in range(3)]
            for t, seen in enumerate(OBSERVATIONS)
        ]
        for i in range(3):
            np.testing.assert_allclose(np.stack(found)[:, i], episode(policy, OBSERVATIONS[:, i]), rtol=1e-4, atol=1e-5)
        assert served.health()["sessions"] == 3
        many = np.repeat(OBSERVATIONS, 3, axis=1)  # nine episodes of one session, in three batches
        for t, seen in enumerate(many):
            together = served.act(seen, session="all", episode_start=t == 0)
        np.testing.assert_allclose(together[::3], np.stack(found)[-1], rtol=1e-4, atol=1e-5)
        again = served.act(OBSERVATIONS[0, 0], session="client 0", episode_start=True)
        np.testing.assert_array_equal(again, found[0][0])
        served.end_session("all")
        with pytest.raises(UnknownSessionError, match="no session 'all'"):
            served.act(many[0], session="all")
        with pytest.raises(ValueError, match="each request names the episode"):
            served.act(OBSERVATIONS[0, 0])


def test_a_served_policy_is_evaluated_as_itself():
    runtime.init(engine="serial")
    policy = Policy(Walk().observation_space, Walk().action_space, policy_kwargs={"memory": "gru"}, seed=1)
    with serve(policy, max_batch_size=6) as served:
        assert evaluate(served, Walk, episodes=6) == evaluate(policy, Walk, episodes=6)


def test_a_policy_without_memory_needs_no_session():
    runtime.init(engine="serial")
    policy = Policy(BOX, spaces.Discrete(3), seed=1)
    with serve(policy) as served:
        assert served.act(OBSERVATIONS[0, 0], session="any") == policy.act(OBSERVATIONS[0, 0], deterministic=True)
        assert "sessions" not in served.health()


@pytest.mark.slow
def test_a_killed_replica_takes_nothing_along():
    runtime.init(engine="native", num_cpus=2)
    policy = remembering()
    with serve(policy, replicas=2, max_batch_size=4) as served:
        found = []
        for t, seen in enumerate(OBSERVATIONS):
            found.append(served.act(seen[0], session="a", episode_start=t == 0))
            wait_until(lambda: served.health()["status"] == "ok")  # both are there again
            runtime.kill(served._pool._replicas.actors[t % 2], no_restart=False)
        np.testing.assert_allclose(found, episode(policy, OBSERVATIONS[:, 0]), rtol=1e-4, atol=1e-5)
    runtime.shutdown()


def test_sessions_over_http():
    runtime.init(engine="serial")
    policy = remembering()

    async def talk(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shoal") as client:

            async def act(**fields):
                body = {"observation": OBSERVATIONS[len(answers), 0].tolist()} | fields
                return await client.post("/act", content=json.dumps(body))

            answers: list = []
            early = await act(session="a/b")
            for t in range(5):
                answers.append((await act(session="a/b", episode_start=t == 0)).json()["action"])
            answers.pop()
            refused = [
                await act(),
                await act(session=3),
                await act(session="x" * 201),
                await act(session="x", episode_start="yes"),
                await act(session="another", episode_start=True),
            ]
            ended = await client.delete("/sessions/a/b")
            return early, answers, refused, ended, await act(session="a/b")

    with serve(policy, max_batch_size=4, max_sessions=1) as served:
        early, answers, refused, ended, late = asyncio.run(talk(make_app(served)))
    assert early.status_code == late.status_code == 404
    assert "no session 'a/b': it never began, or no request came for 600 s" in early.json()["error"]
    np.testing.assert_allclose(answers, episode(policy, OBSERVATIONS[:4, 0]), rtol=1e-4, atol=1e-5)
    assert [answer.status_code for answer in refused] == [422, 422, 422, 422, 503]
    assert "session is 3; want a text of 1 to 200 characters" in refused[1].json()["error"]
    assert 'episode_start is "yes"; want true or false' in refused[3].json()["error"]
    assert (ended.status_code, ended.json()) == (200, {})
