"""The fork server where the system has no room for another process."""

import errno
import resource

import pytest

from shoal.runtime.native.node import forkserver


def no_room(monkeypatch, times):
    """Let `times` forks find no room; return the list of calls, which `forkserver.fork` is told to reap by."""
    calls = []

    def fork():
        calls.append("fork")
        if calls.count("fork") <= times:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return 7

    monkeypatch.setattr(forkserver.os, "fork", fork)
    monkeypatch.setattr(forkserver, "_PAUSE", 0)
    return calls


def test_a_fork_is_tried_again_once_ended_children_are_reaped(monkeypatch):
    calls = no_room(monkeypatch, 2)
    assert forkserver.fork(lambda: calls.append("reap"), patience=60) == 7
    assert calls == ["fork", "reap", "fork", "reap", "fork"]


@pytest.mark.parametrize(("limit", "told"), [(300, "ulimit -u (300 here)"), (-1, "ulimit -u (no limit here)")])
def test_in_vain_it_says_which_limits_there_are(monkeypatch, limit, told):
    no_room(monkeypatch, 10)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    with pytest.raises(OSError, match="no process can be started: Resource temporarily unavailable") as caught:
        forkserver.fork(lambda: None, patience=0)
    assert told in str(caught.value)
    assert caught.value.errno == errno.EAGAIN
