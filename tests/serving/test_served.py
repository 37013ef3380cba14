"""A served policy: same actions as the policy, batches, many threads, failing replicas."""

import json
import os
import signal
import threading

import numpy as np
import pytest
from agents_envs import Pair
from conftest import wait_until
from gymnasium import spaces

from shoal import PPO, runtime
from shoal.rl import Policy, ServerClosedError, serve
from shoal.rl.serving import replica_pool
from shoal.runtime import InputError

BOX = spaces.Box(-1.0, 1.0, (4,), np.float32)


@pytest.fixture(params=["serial", pytest.param("native", marks=pytest.mark.slow)])
def engine(request):
    runtime.init(engine=request.param)
    return request.param


@pytest.fixture(params=["serial", "native"])
def each_engine(request):
    runtime.init(engine=request.param)
    return request.param


def policy(action_space=None, seed=1):
    made = Policy(BOX, action_space or spaces.Discrete(3), seed=seed)
    weights = made.get_weights()
    made.set_weights(weights + np.random.default_rng(seed).normal(0, 0.3, weights.shape).astype(np.float32), 7)
    return made


def observations(rows, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)


def test_the_same_actions_as_the_policy(engine):
    trained, batch = policy(), observations(100)
    with serve(trained, max_batch_size=8, replicas=2) as served:
        assert served.act(batch).tolist() == trained.act(batch, deterministic=True).tolist()
        assert served.act(batch[0]) == trained.act(batch[0], deterministic=True)
        assert served.act(batch[0].tolist()) == served.act(batch[0])
        assert served.answer(batch[0]).version == 7


def test_an_answer_does_not_depend_on_who_else_asked(engine):
    batch = observations(32)
    with serve(policy(spaces.Box(-100.0, 100.0, (3,), np.float32)), max_batch_size=32) as served:
        together = served.act(batch)
        alone = np.stack([served.act(row) for row in batch])
    assert alone.tobytes() == together.tobytes()
    assert len({row.tobytes() for row in alone}) == 32


@pytest.mark.slow
def test_from_many_threads(each_engine):
    trained, batch = policy(), observations(64)
    wanted = trained.act(batch, deterministic=True)
    got = np.full((8, 64), -1)

    def ask(caller, served):
        for row in range(64):
            got[caller, row] = served.act(batch[row])

    with serve(trained, replicas=2, max_batch_size=4, max_waiting=4) as served:
        callers = [threading.Thread(target=ask, args=(caller, served)) for caller in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        health = served.health()
    assert (got == wanted).all()
    assert health["requests"] == 8 * 64
    assert health["batches"] <= 8 * 64
    assert health["status"] == "ok"


def test_drawn_actions_repeat_with_the_seed_and_differ_between_replicas(engine):
    batch = np.zeros((64, 4), np.float32)
    draws = []
    for seed in (0, 0, 1):
        with serve(policy(), seed=seed, max_batch_size=64) as served:
            draws.append(served.act(batch, deterministic=False).tolist())
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]
    assert len(set(draws[0])) > 1


def test_a_wrong_shape_harms_nobody(engine):
    with serve(policy()) as served:
        with pytest.raises(ValueError, match=r"of shape \(3,\); .* wants \(4,\)"):
            served.act([0, 0, 0])
        with pytest.raises(ValueError, match="empty batch"):
            served.act(np.zeros((0, 4)))
        assert served.act([0, 0, 0, 0]) in (0, 1, 2)
        assert repr(served) == "Served(status='ok', replicas=1, version=7)"
    assert repr(served).startswith("Served(status='down', ")


def test_what_would_not_be_finite_is_refused_and_harms_nobody():
    runtime.init(engine="serial")
    trained = Policy(BOX, spaces.Discrete(3), policy_kwargs={"activation": "relu"})
    trained.set_weights(trained.get_weights() * 1e3, 1)
    with serve(trained, max_batch_size=4) as served:
        for value in (np.nan, -np.inf, 1e39):
            with pytest.raises(ValueError, match=r"observation\[1, 0\] = .* wants a finite number"):
                served.act([[0, 0, 0, 0], [value, 0, 0, 0]])
        with pytest.raises(ValueError, match="output for row 2 is not finite"):
            served.act([[0] * 4, [1] * 4, [3e38] * 4])
        assert served.act([0, 0, 0, 0]) in (0, 1, 2), "what filled up an earlier batch is in no later one"


def kill_replica(served, engine, index=0):
    replica = served._pool._replicas.actors[index]
    if engine == "native":
        os.kill(runtime.get(replica.describe.remote())["pid"], signal.SIGKILL)
    else:
        runtime.kill(replica)


@pytest.mark.slow
def test_a_replica_that_dies_comes_back(each_engine):
    trained, batch = policy(), observations(50)
    with serve(trained, max_batch_size=4) as served:
        before = served.act(batch)
        kill_replica(served, each_engine)
        assert served.act(batch).tolist() == before.tolist()
        health = served.health()
    assert health["status"] == "ok"
    assert health["restarts"] >= 1


@pytest.mark.parametrize("replicas", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_replica_that_is_stopped_is_replaced(replicas):
    runtime.init(engine="native")
    with serve(policy(), replicas=replicas, max_batch_size=4, answer_timeout=1.0) as served:
        wanted = served.act(observations(50)).tolist()
        os.kill(runtime.get(served._pool._replicas.actors[0].describe.remote())["pid"], signal.SIGSTOP)
        assert served.act(observations(50)).tolist() == wanted
        wait_until(lambda: served.health()["status"] == "ok" and served.health()["restarts"])
        assert "did not answer within 1 s" in served.health()["last_failure"]
        assert served.act(observations(50)).tolist() == wanted


@pytest.mark.slow
def test_a_replica_that_is_stopped_is_noticed_though_nobody_asks(monkeypatch):
    monkeypatch.setattr(replica_pool, "HEARTBEAT_SECONDS", 0.2)
    runtime.init(engine="native")
    with serve(policy(), answer_timeout=0.3) as served:
        os.kill(runtime.get(served._pool._replicas.actors[0].describe.remote())["pid"], signal.SIGSTOP)
        wait_until(lambda: served.health()["status"] == "down")
        wait_until(lambda: served.health()["status"] == "ok")


@pytest.mark.slow
def test_closing_while_a_replica_is_stopped():
    runtime.init(engine="native")
    with serve(policy(), answer_timeout=0.3) as served:
        os.kill(runtime.get(served._pool._replicas.actors[0].describe.remote())["pid"], signal.SIGSTOP)
        future = served.submit(np.zeros(4))
    with pytest.raises(ServerClosedError):
        future.result(10)


def test_the_others_go_on_when_a_replica_is_lost_for_good(engine, monkeypatch):
    with serve(policy(), replicas=2) as served:
        monkeypatch.setattr(served._pool._replicas, "_start", lambda index: served._pool._replicas.actors[index])
        runtime.kill(served._pool._replicas.actors[0])
        for row in observations(50):
            served.act(row)
        served.act(observations(500))
        assert served.health()["status"] in ("ok", "degraded")


def test_without_a_replica_the_request_fails_and_says_why(engine, monkeypatch):
    with serve(policy()) as served:
        monkeypatch.setattr(served._pool._replicas, "_start", lambda index: served._pool._replicas.actors[index])
        runtime.kill(served._pool._replicas.actors[0])
        with pytest.raises(ServerClosedError, match="replica 0 of the served policy is gone"):
            served.act([0, 0, 0, 0])
        assert served.health()["status"] == "down"


def test_a_batch_that_fails_is_tried_request_by_request(monkeypatch):
    runtime.init(engine="serial")

    class Choosy(replica_pool.PolicyReplica):
        """A replica that cannot stand the number 13."""

        def act(self, observations, state=None, *, deterministic):
            if (observations == 13).any():
                raise ArithmeticError("13")
            return super().act(observations, state, deterministic=deterministic)

    monkeypatch.setattr(replica_pool, "PolicyReplica", Choosy)
    with serve(policy(), batch_wait=60.0, max_batch_size=3) as served:
        futures = [served.submit([value, 0, 0, 0]) for value in (1, 13, 2)]  # full: they travel together
        assert futures[0].result(10).version == 7
        with pytest.raises(ArithmeticError, match="13"):
            futures[1].result(10)
        assert futures[2].result(10).version == 7


def test_the_handle_stays_in_its_process(engine):
    with serve(policy()) as served, pytest.raises(TypeError, match=r"ask it over HTTP \(serve\(…, http="):
        runtime.put(served)


def test_closing(engine):
    served = serve(policy())
    served.close()
    served.close()
    with pytest.raises(ServerClosedError, match="is closed"):
        served.act([0, 0, 0, 0])


def test_after_the_runtime_was_shut_down():
    runtime.init(engine="serial")
    with serve(policy()) as served:
        runtime.shutdown()
        with pytest.raises(ServerClosedError, match="the runtime was shut down"):
            served.act([0, 0, 0, 0])
        assert not runtime.is_initialized()
    assert not runtime.is_initialized()


def test_sources(tmp_path, engine):
    trained = policy()
    trained.save(tmp_path)
    for source in (tmp_path, str(tmp_path)):
        with serve(source) as served:
            assert served.answer([0, 0, 0, 0]).version == 7
    with pytest.raises(InputError, match="does not exist"):
        serve(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is empty"):
        serve(tmp_path / "empty")
    weights = tmp_path / "policy.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match="damaged or cut"):
        serve(tmp_path)
    with pytest.raises(InputError, match="takes a Policy, an algorithm or the folder of a run, not a int"):
        serve(3)


def test_numbers_of_numpy(engine):
    with serve(
        policy(), replicas=np.int64(1), max_batch_size=np.array(4), batch_wait=np.float32(0), seed=np.uint8(3),
        max_waiting=np.int32(8), threads=np.int64(1),
    ) as served:  # fmt: skip
        json.dumps(served.health())


@pytest.mark.parametrize(
    "options", [{"replicas": 0}, {"max_batch_size": -1}, {"replicas": True}, {"batch_wait": -1.0}, {"threads": 1.5}]
)
def test_bad_numbers(options):
    with pytest.raises(InputError, match=rf"{next(iter(options))} is .*, but must be"):
        serve("anywhere", **options)


def test_each_policy_of_a_run_of_several_agents_is_served(tmp_path, engine):
    with PPO(Pair, policies="separate", preset="none", n_steps=16, batch_size=16, n_epochs=1) as ppo:
        ppo.train(128)
        ppo.save(tmp_path / "run")
        joint = ppo.policy
    for name, observation in (("speaker", 2), ("listener", np.eye(4, dtype=np.float32)[1])):
        with serve(tmp_path / "run", name=name) as served:
            assert served.act(observation) == joint.policy(name).act(observation, deterministic=True)
        assert Policy.load(tmp_path / "run", name=name).weights_sha256() == joint.policy(name).weights_sha256()
    with pytest.raises(InputError, match="there is no policy or agent 'speeker'"):
        serve(tmp_path / "run", name="speeker")
