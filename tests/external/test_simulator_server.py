"""Whatever simulators send, they get a status and a message, and the others go on."""

import contextlib
import importlib.util
import re
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
from gymnasium import spaces

from shoal.envs import (
    Endpoint,
    EpisodeLostError,
    ServerGoneError,
    SimulatorAnswer,
    SimulatorClient,
    SimulatorError,
    SimulatorHub,
)
from shoal.envs.external.client import OPTIONS as CLIENT_OPTIONS
from shoal.envs.external.server import OPTIONS as SERVER_OPTIONS
from shoal.envs.external.server import SimulatorServer
from shoal.envs.external.values import encode
from shoal.envs.proto import shoal_simulators_pb2 as messages
from shoal.runtime import InputError

OBSERVATIONS = spaces.Dict({"seen": spaces.Box(-1, 1, (2,), np.float32), "action_mask": spaces.MultiBinary(3)})
ACTIONS = spaces.Discrete(3)
GOOD = {"seen": np.zeros(2, np.float32), "action_mask": np.ones(3, np.int8)}


class Answering:
    """A server whose every action is 2, of version 7."""

    def __init__(self, **options):
        self.hub, self.endpoint = SimulatorHub(**options), Endpoint.at("0", token="secret")
        self.server = SimulatorServer(self.hub, self.endpoint, OBSERVATIONS, ACTIONS)
        self.turns, self._stop = [], False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._stop:
            turn = self.hub.next(0.05)
            if turn is not None:
                self.turns.append(turn)
                if turn.request.kind != "end":
                    self.hub.answer(turn.session, SimulatorAnswer(np.array([2]), 7))

    def client(self, **options):
        return SimulatorClient(self.endpoint.address, **{"token": "secret"} | options)

    def close(self):
        self._stop = True
        self._thread.join()
        self.server.close("the test is over", 0.0)


@pytest.fixture
def answering():
    made = Answering()
    yield made
    made.close()


@pytest.fixture
def client(answering):
    with answering.client() as made:
        yield made


@contextlib.contextmanager
def refused(code, match, kind=SimulatorError):
    with pytest.raises(kind, match=match) as caught:
        yield
    assert caught.value.code == code


def plays_well(client):
    episode = client.start()
    assert episode.act(GOOD) == 2
    episode.log(GOOD, 1, 0.5)
    assert episode.version == 7
    episode.end(GOOD, 1.0, terminated=True)
    return True


def test_an_episode(answering, client):
    assert plays_well(client)
    [_, logged, ended] = [turn.transition for turn in answering.turns]
    assert (logged.action, logged.reward) == ([2], 0.5)
    assert (ended.action, ended.reward, ended.logged, ended.terminated) == ([1], 1.0, True, True)
    np.testing.assert_array_equal(ended.observation["action_mask"], [[1, 1, 1]])


def test_many_sessions_at_once_over_one_connection(client):
    def play():
        for _ in range(3):
            played.append(plays_well(client))

    played = []
    running = [threading.Thread(target=play) for _ in range(8)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert played == [True] * 24


BAD_OBSERVATIONS = [
    ({"seen": np.zeros(3, np.float32)}, r"observation\['seen'\] is of shape \(3\); Box\(2,\) .* wants \(2,\)"),
    ({"seen": np.zeros(2)}, r"observation\['seen'\] has dtype 'float64'; .* wants 'float32'"),
    ({"seen": np.float32([0, np.nan])}, r"observation\['seen'\]\[1\] = nan; .* wants a number from -1"),
    ({"seen": np.float32([0, 5])}, r"observation\['seen'\]\[1\] = 5.0; .* wants a number from -1.0 to 1.0"),
    ({"action_mask": np.zeros(3, np.int8)}, "which allows no action: end the episode there"),
    ({"action_mask": np.full(3, 2, np.int8)}, r"observation\['action_mask'\]\[0\] = 2"),
    ({"more": 1}, "observation has the parts 'action_mask', 'more', 'seen'; wanted are 'action_mask', 'seen'"),
]


@pytest.mark.parametrize(("change", "message"), BAD_OBSERVATIONS)
def test_an_observation_that_cannot_be_costs_its_episode_only(client, change, message):
    other = client.start()
    episode = client.start()
    with refused("INVALID_ARGUMENT", message):
        episode.act(GOOD | change)
    with refused("NOT_FOUND", "it was refused: .*Begin another one", EpisodeLostError):
        episode.act(GOOD)
    assert other.act(GOOD) == 2
    assert plays_well(client)


def test_rewards_outcomes_and_logged_actions_that_cannot_be(client):
    for reward in (float("nan"), float("inf"), 1e300):
        episode = client.start()
        episode.act(GOOD)
        with refused("INVALID_ARGUMENT", "reward is .*; want a finite number"):
            episode.act(GOOD, reward)
    with refused("INVALID_ARGUMENT", "before any action"):
        client.start().act(GOOD, 1.0)
    for action, message in (
        (3, r"action .*3.* lies outside of Discrete\(3\)"),
        (0.5, "whole ones"),
        ([1, 1], r"action is of shape \(2\)"),
    ):
        with refused("INVALID_ARGUMENT", message):
            client.start().log(GOOD, action)
    with refused("INVALID_ARGUMENT", "is one that the observation's mask forbids"):
        client.start().log(GOOD | {"action_mask": np.int8([1, 1, 0])}, 2)
    with pytest.raises(InputError, match=r"terminated=True .* or truncated=True"):
        client.start().end(GOOD)
    session = client.start().session
    with refused("INVALID_ARGUMENT", r"outcome is 9: want TERMINATED \(1\)"):
        client.call("End", messages.EndRequest(session=session, outcome=9))


def test_unknown_sessions_and_acts_after_the_end(client):
    with refused("NOT_FOUND", "there is no session 'me': it never began", EpisodeLostError):
        act(client, "me")
    episode = client.start()
    episode.end(GOOD, terminated=True)
    with refused("NOT_FOUND", "it ended at step 0", EpisodeLostError):
        episode.act(GOOD)
    episode = client.start()
    with refused("FAILED_PRECONDITION", "is at step 0, and was sent step 5"):
        act(client, episode.session, step=5)
    assert episode.act(GOOD) == 2


def act(client, session, step=0):
    client.call("Act", messages.ActRequest(session=session, step=step, observation=encode(GOOD)))


def test_another_protocol_and_other_spaces(answering, client):
    for protocol in (0, 2):
        with refused("FAILED_PRECONDITION", f"speaks protocol {protocol}, and this server 1: use the"):
            client.call("Start", messages.StartRequest(protocol=protocol))
    with (
        answering.client(action_space=spaces.Discrete(4)) as other,
        refused("FAILED_PRECONDITION", r"action_space.n is 4; wanted is 3\. The space that is wanted: Discrete\(3\)"),
    ):
        other.start()
    with (
        answering.client(observation_space=OBSERVATIONS["seen"]) as other,
        refused("FAILED_PRECONDITION", 'observation_space.type is "Box"; wanted is "Dict"'),
    ):
        other.start()
    with answering.client(observation_space=OBSERVATIONS, action_space=ACTIONS) as other:
        assert plays_well(other)


def test_tokens(answering):
    with answering.client(token="wrong") as other, refused("UNAUTHENTICATED", "not this server's"):
        other.start()
    with grpc.insecure_channel(answering.endpoint.address) as channel:
        start = channel.unary_unary("/shoal.simulators.v1.Simulators/Start")
        with pytest.raises(grpc.RpcError) as caught:
            start(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "authorization: Bearer TOKEN" in caught.value.details()
    with pytest.raises(InputError, match="the token has 2 characters"):
        answering.client(token="ä ")


def raw(answering, method, data):
    with grpc.insecure_channel(answering.endpoint.address) as channel:
        call = channel.unary_unary(method)
        with pytest.raises(grpc.RpcError) as caught:
            call(data, timeout=10, metadata=[("authorization", "Bearer secret")])
    return caught.value.code().name, caught.value.details()


def test_bytes_methods_and_lengths_that_cannot_be(answering, caplog):
    service = "/shoal.simulators.v1.Simulators"
    assert raw(answering, f"{service}/Act", b"\xff\xff\xff") == (
        "INVALID_ARGUMENT",
        "3 bytes that are no ActRequest of shoal_simulators.proto",
    )
    for method in (f"{service}/Dance", "/shoal.simulators.v2.Simulators/Act", "/else"):
        code, message = raw(answering, method, b"")
        assert code == "UNIMPLEMENTED"
        assert "this server has Start, Act, Log, End of shoal.simulators.v1.Simulators" in message
    code, _ = raw(answering, f"{service}/Act", bytes(100_000))
    assert code == "RESOURCE_EXHAUSTED"
    assert "Traceback" not in caplog.text
    with answering.client() as client:
        assert plays_well(client)


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_thousand_bad_requests_leave_the_others_going(answering, count):
    good, stop = [], threading.Event()

    def play():
        with answering.client() as own:
            while not stop.is_set():
                good.append(plays_well(own))

    playing = threading.Thread(target=play)
    playing.start()
    with answering.client() as client:
        for number in range(count):
            change, _ = BAD_OBSERVATIONS[number % len(BAD_OBSERVATIONS)]
            if number % 2:
                with contextlib.suppress(SimulatorError):
                    client.start().act(GOOD | change)
            else:
                client.start()  # and never come back
    stop.set()
    playing.join()
    assert len(good) > 3
    assert answering.hub.refused >= count // 2
    assert answering.hub.sessions <= answering.hub.limit


def test_one_that_waits_is_told_of_the_end_and_one_that_comes_too_late_too():
    made = Answering()
    made._stop = True
    made._thread.join()
    with made.client(connect_timeout=0.05) as client:
        episode, told = client.start(), []

        def wait():
            try:
                episode.act(GOOD)
            except ServerGoneError as error:
                told.append(str(error))

        waiting = threading.Thread(target=wait)
        waiting.start()
        while not made.hub._asking:
            assert waiting.is_alive()
        made.close()
        waiting.join()
        assert told == ["the test is over (ABORTED)"]
        with pytest.raises(EpisodeLostError):
            episode.act(GOOD)
        with pytest.raises(ServerGoneError, match="no server answered"):
            client.start()


def test_a_deadline_loses_nothing():
    made = Answering()
    made._stop = True
    made._thread.join()
    with made.client(timeout=0.05) as client:
        episode = client.start()
        with pytest.raises(SimulatorError) as caught:
            episode.act(GOOD)
        assert caught.value.code == "DEADLINE_EXCEEDED"
        turn = made.hub.next(5)
        made.hub.answer(turn.session, SimulatorAnswer(np.array([1]), 1))
        assert episode.act(GOOD) == 1  # the same step again
        assert made.hub.next(0) is None
    made.close()


def test_grpc_knows_each_option():
    """One that it does not know is ignored, silently."""
    library = Path(importlib.util.find_spec("grpc._cython.cygrpc").origin).read_bytes()
    known = set(re.findall(rb"grpc\.[a-z0-9_.]+(?=\0)", library))
    given = {name for name, _ in (*SERVER_OPTIONS, *CLIENT_OPTIONS)} | {"grpc.max_receive_message_length"}
    assert {name for name in given if name.encode() not in known} == set()


def test_an_episode_begins_although_the_connection_breaks_meanwhile(monkeypatch):
    made = Answering()
    with made.client() as client:
        call, broken = client.call, [EpisodeLostError("UNAVAILABLE", "Socket closed")]

        def first_broken(*arguments, **options):
            if broken:
                raise broken.pop()
            return call(*arguments, **options)

        monkeypatch.setattr(client, "call", first_broken)
        assert client.start().act(GOOD) is not None
        assert broken == []
    made.close()


def test_no_server():
    endpoint = Endpoint.at("0", token="secret")
    with (
        SimulatorClient(endpoint.address, token="secret", connect_timeout=0.05) as client,
        refused("UNAVAILABLE", "no server answered within 0.05 s", ServerGoneError),
    ):
        client.start()


def test_an_address_in_use_is_refused(answering):
    with pytest.raises(InputError, match="cannot listen at"):
        Endpoint.at(answering.endpoint.address, token="secret")
    with pytest.raises(InputError, match="cannot listen for simulators at"):
        SimulatorServer(SimulatorHub(), answering.endpoint, OBSERVATIONS, ACTIONS)


def test_where_the_token_comes_from(monkeypatch, caplog):
    monkeypatch.delenv("SHOAL_SIMULATOR_TOKEN", raising=False)
    first, second = Endpoint.at("0"), Endpoint.at("0")
    assert first.token != second.token
    assert first.token in caplog.text
    assert first.token not in repr(first)
    with pytest.raises(InputError, match="set SHOAL_SIMULATOR_TOKEN"):
        SimulatorClient(first.address)
    monkeypatch.setenv("SHOAL_SIMULATOR_TOKEN", "mine")
    caplog.clear()
    assert Endpoint.at("0").token == "mine"
    assert "mine" not in caplog.text
    SimulatorClient(first.address).close()


def test_damaged_messages_never_get_further_than_a_refusal(answering, caplog):
    numbers = np.random.default_rng(0)
    metadata = [("authorization", "Bearer secret")]
    codes, played = set(), 0
    with answering.client() as client, grpc.insecure_channel(answering.endpoint.address) as channel:
        calls = {name: channel.unary_unary(f"/shoal.simulators.v1.Simulators/{name}") for name in ("Act", "Log", "End")}
        for number in range(200):
            name = ("Act", "Log", "End")[number % 3]
            fields = {"Log": {"action": encode(1)}, "End": {"outcome": messages.TERMINATED}}.get(name, {})
            kind = {"Act": messages.ActRequest, "Log": messages.LogRequest, "End": messages.EndRequest}[name]
            whole = kind(session=client.start().session, observation=encode(GOOD), **fields).SerializeToString()
            damaged = bytearray(whole)
            for _ in range(1 + number % 4):
                damaged[numbers.integers(len(damaged))] = numbers.integers(256)
            try:
                calls[name](bytes(damaged), timeout=10, metadata=metadata)
                played += 1
            except grpc.RpcError as error:
                codes.add(error.code().name)
        assert plays_well(client)
    assert {"INVALID_ARGUMENT", "NOT_FOUND"} <= codes <= {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"}
    assert played < 200
    assert "Traceback" not in caplog.text
