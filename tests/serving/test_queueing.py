"""How requests wait, travel together, and come back from a replica that failed."""

import threading

import numpy as np
import pytest

from shoal.rl.serving.queueing import Request, RequestQueue, ServerBusyError, ServerClosedError


class Clock:
    """A clock that stands still unless told."""

    now = 0.0

    def __call__(self):
        return self.now


def request(rows=1, deterministic=True):
    return Request(np.zeros((rows, 4), np.float32), deterministic)


def queue(*requests, max_rows=100, max_batch_size=4, batch_wait=0.0, clock=None):
    made = RequestQueue(max_rows=max_rows, max_batch_size=max_batch_size, batch_wait=batch_wait, clock=clock or Clock())
    for one in requests:
        made.put(one, block=False)
    return made


def test_what_waits_travels_together():
    first, second = request(), request(2)
    made = queue(first, second)
    assert made.rows == 3
    assert made.take() == [first, second]
    assert made.rows == 0


def test_a_batch_is_never_larger_than_the_largest():
    requests = [request(3), request(2), request(2)]
    made = queue(*requests)
    assert made.take() == requests[:1]
    assert made.take() == requests[1:]


def test_a_batch_holds_one_kind():
    greedy, drawn = request(), request(deterministic=False)
    made = queue(greedy, drawn)
    assert made.take() == [greedy]
    assert made.take() == [drawn]


def test_a_full_queue_refuses():
    made = queue(request(4), max_rows=5)
    made.put(request(1), block=False)
    with pytest.raises(ServerBusyError, match="5 observations wait, the most that may is 5"):
        made.put(request(1), block=False)


def test_a_full_queue_lets_the_caller_wait():
    made = queue(request(4), max_rows=4)
    late = request()
    caller = threading.Thread(target=made.put, args=(late,), kwargs={"block": True})
    caller.start()
    made.take()
    caller.join(10)
    assert made.take() == [late]


def test_a_request_larger_than_the_queue_is_served_when_nothing_waits():
    made = queue(max_rows=2)
    made.put(request(4), block=False)
    assert made.rows == 4


def test_given_back_requests_go_first_and_alone():
    requests = [request(), request(), request()]
    made = queue(*requests[:2])
    batch = made.take()
    made.put(requests[2], block=False)
    for one in batch:
        one.attempts += 1
    made.put_back(batch)
    assert [made.take() for _ in range(3)] == [[one] for one in requests]


def test_a_batch_waits_for_more_until_it_is_full():
    clock = Clock()
    made = queue(request(), batch_wait=3600.0, clock=clock)
    taken = []
    taker = threading.Thread(target=lambda: taken.append(made.take()))
    taker.start()
    made.put(request(), block=False)
    assert not taken, "two rows of four, and the wait is not over"
    made.put(request(2), block=False)
    taker.join(10)
    assert [one.rows for one in taken[0]] == [1, 1, 2]


def test_a_batch_waits_no_longer_than_told():
    clock = Clock()
    made = queue(request(), batch_wait=5.0, clock=clock)
    clock.now = 5.0
    assert len(made.take()) == 1


def test_closing_answers_what_waits():
    waiting = request()
    made = queue(waiting)
    made.close("closed")
    with pytest.raises(ServerClosedError, match="closed"):
        made.put(request(), block=True)
    assert made.take() == [waiting]
    assert made.take() is None


def test_dropping_fails_what_waits():
    waiting = request()
    made = queue(waiting)
    made.close("no replica is left", drop=True)
    assert made.take() is None
    with pytest.raises(ServerClosedError, match="no replica is left"):
        waiting.answer.result(0)


def test_closing_wakes_a_waiting_caller():
    made = queue(request(4), max_rows=4)
    failures = []

    def ask():
        try:
            made.put(request(), block=True)
        except ServerClosedError as error:
            failures.append(error)

    caller = threading.Thread(target=ask)
    caller.start()
    made.close("closed")
    caller.join(10)
    assert len(failures) == 1
