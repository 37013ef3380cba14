"""The sessions of simulators outside as a state machine: requests in, turns out."""

import itertools

import pytest

from shoal.envs.external.refusal import Refusal
from shoal.envs.external.sessions import Request, Sessions, SimulatorAnswer


@pytest.fixture
def sessions():
    names = (f"s{number}" for number in itertools.count())
    return Sessions(limit=2, timeout=10, make_name=lambda: next(names))


def act(step, reward=0.0):
    return Request(kind="act", step=step, reward=reward, observation=f"o{step}")


def log(step, reward=0.0):
    return Request(kind="log", step=step, reward=reward, observation=f"o{step}", action=f"own{step}")


def end(step, reward=0.0, terminated=True):
    return Request(kind="end", step=step, reward=reward, observation=f"o{step}", terminated=terminated)


def take(sessions, now=0.0):
    """Take a turn, and answer it unless it ends the session."""
    turn = sessions.next()
    if turn.request.kind != "end":
        sessions.answer(turn.session, SimulatorAnswer(f"a{turn.request.step}", 3), now, note=f"n{turn.request.step}")
    return turn


def refused(code, call, *arguments):
    with pytest.raises(Refusal) as caught:
        call(*arguments)
    assert caught.value.code == code
    return caught.value.message


def whole(transition):
    return (
        transition.observation,
        transition.action,
        transition.note,
        transition.reward,
        transition.next_observation,
        transition.terminated,
        transition.truncated,
        transition.logged,
    )


def test_an_episode(sessions):
    name = sessions.start(0)
    requests = [act(0), act(1, 1.0), log(2, 2.0), end(3, 4.0)]
    transitions, returns = [], []
    for request in requests:
        assert sessions.ask(name, request, 0) is None
        turn = take(sessions)
        assert (turn.session, turn.request) == (name, request)
        transitions.append(turn.transition)
        returns.append(turn.return_)
    assert transitions[0] is None
    assert [whole(found) for found in transitions[1:]] == [
        ("o0", "a0", "n0", 1.0, "o1", False, False, False),
        ("o1", "a1", "n1", 2.0, "o2", False, False, False),
        ("o2", "own2", "n2", 4.0, "o3", True, False, True),
    ]
    assert returns == [0, 1, 3, 7]
    assert len(sessions) == sessions.lost == 0


def test_a_cut_off_episode_is_truncated(sessions):
    name = sessions.start(0)
    for request in (act(0), end(1, 1.0, terminated=False)):
        sessions.ask(name, request, 0)
        turn = take(sessions)
    assert (turn.transition.terminated, turn.transition.truncated) == (False, True)


def test_turns_come_in_the_order_of_requests_whatever_the_session(sessions):
    one, other = sessions.start(0), sessions.start(0)
    for name in (other, one):
        sessions.ask(name, act(0), 0)
    assert [take(sessions).session, take(sessions).session, sessions.next()] == [other, one, None]


def test_a_request_that_is_sent_again_counts_once(sessions):
    name = sessions.start(0)
    assert sessions.ask(name, act(0), 0) is None
    assert sessions.ask(name, act(0), 0) is None  # it waits
    turn = sessions.next()
    assert sessions.ask(name, act(0), 0) is None  # it is being answered
    sessions.answer(turn.session, SimulatorAnswer("a", 1), 0)
    assert sessions.ask(name, act(0), 0) == SimulatorAnswer("a", 1)
    assert sessions.next() is None
    sessions.ask(name, end(1), 0)
    take(sessions)
    assert sessions.ask(name, end(1), 0) == SimulatorAnswer()


def test_out_of_order(sessions):
    name = sessions.start(0)
    assert "is at step 0, and was sent step 4" in refused("FAILED_PRECONDITION", sessions.ask, name, act(4), 0)
    sessions.ask(name, act(0), 0)
    assert "waits for the answer to step 0" in refused("FAILED_PRECONDITION", sessions.ask, name, act(1), 0)
    assert "was sent step 0" in refused("FAILED_PRECONDITION", sessions.ask, name, end(0), 0)
    take(sessions)
    assert sessions.ask(name, act(1), 0) is None  # nothing of that changed anything


def test_a_reward_before_the_first_action_ends_the_episode(sessions):
    name = sessions.start(0)
    assert "before any action" in refused("INVALID_ARGUMENT", sessions.ask, name, act(0, 1.0), 0)
    assert "it was refused: reward 1" in refused("NOT_FOUND", sessions.ask, name, act(0), 0)
    assert sessions.lost == 1


def test_unknown_and_ended_sessions(sessions):
    assert "it never began" in refused("NOT_FOUND", sessions.ask, "nobody", act(0), 0)
    name = sessions.start(0)
    sessions.ask(name, end(0), 0)
    take(sessions)
    assert "it ended at step 0. Begin another one" in refused("NOT_FOUND", sessions.ask, name, act(1), 0)


def test_one_that_says_nothing_is_gone_but_not_while_it_waits_for_us(sessions):
    silent, waiting = sessions.start(0), sessions.start(0)
    sessions.ask(waiting, act(0), 0)
    assert sessions.expire(9.9) == []
    assert sessions.expire(1000) == [silent]
    assert "no request came for 10 s" in refused("NOT_FOUND", sessions.ask, silent, act(0), 1000)
    take(sessions, 1000)  # from here on it is its turn again
    assert sessions.expire(1009) == []
    assert sessions.expire(1010) == [waiting]
    assert sessions.lost == 2


def test_an_answer_to_one_that_is_gone_goes_nowhere(sessions):
    name = sessions.start(0)
    sessions.ask(name, act(0), 0)
    sessions.next()
    assert sessions.drop(name, "it was refused")
    assert not sessions.answer(name, SimulatorAnswer("a", 1), 0)
    assert not sessions.drop(name, "again")


def test_a_dropped_one_is_not_taken(sessions):
    name = sessions.start(0)
    sessions.ask(name, act(0), 0)
    sessions.drop(name, "it was refused")
    assert sessions.next() is None


def test_where_there_is_no_room_the_least_used_gives_way(sessions):
    busy = sessions.start(0)
    sessions.ask(busy, act(0), 0)
    take(sessions)
    never = sessions.start(0)
    third = sessions.start(1)  # in the place of the one that has never said anything, though it is younger
    assert "it gave way to others" in refused("NOT_FOUND", sessions.ask, never, act(0), 1)
    sessions.ask(third, act(0), 1)
    assert "there are 2 sessions" in refused("RESOURCE_EXHAUSTED", sessions.start, 4)
    sessions.start(6)
    assert "it gave way to others" in refused("NOT_FOUND", sessions.ask, busy, act(1), 6)
