"""The contract of what nobody asks for: failures that nobody reads are mentioned once, and half lines are shown."""

import pytest
from conftest import wait_until

from shoal import runtime
from shoal.runtime.core.values.packed_exceptions import pack_error, pack_exception
from shoal.runtime.core.values.unread import IGNORE, UnreadFailures

pytestmark = pytest.mark.engines("native", "serial", reason="Ray mentions them itself")


@runtime.remote(max_retries=0)
def fail(words):
    raise ValueError(words)


@runtime.remote
def take(value):
    return value


def _mentioned(capsys, words):
    seen = []

    def look():
        runtime.put(None)  # references that are gone are counted at the next call
        seen.append(capsys.readouterr().err)
        return words in "".join(seen)

    wait_until(look)
    return "".join(seen)


def test_a_failure_that_nobody_reads_is_mentioned_once(engine, capfd):
    first = fail.remote("kept for a while")
    runtime.wait([first])
    fail.remote("forgotten at once")
    _mentioned(capfd, "ValueError: forgotten at once")
    del first
    text = _mentioned(capfd, "ValueError: kept for a while")
    assert text.count("ValueError: kept for a while") == 1
    assert IGNORE in text


def test_a_failure_that_somebody_reads_is_not_mentioned(engine, capfd):
    def read():
        refs = [fail.remote("read"), fail.remote("beside it")]
        passed = take.remote(fail.remote("passed on"))
        for ref in (refs, passed):
            with pytest.raises(ValueError, match=r"read|beside it|passed on"):
                runtime.get(ref)
        assert isinstance(refs[1].future().exception(), ValueError)

    read()

    @runtime.remote
    def other():
        raise KeyError("the last one")

    other.remote()
    assert "ValueError" not in _mentioned(capfd, "the last one")


def test_it_can_be_switched_off_and_leaves_out_our_own(monkeypatch, capsys):
    payload = pack_exception(ValueError("x"), "f", "here")
    UnreadFailures().drop(pack_error(runtime.ActorDiedError("killed")))
    UnreadFailures().drop(pack_exception(runtime.TaskCancelledError("f was cancelled while it ran"), "f", "here"))
    monkeypatch.setenv(IGNORE, "1")
    UnreadFailures().drop(payload)
    assert capsys.readouterr().err == ""
    monkeypatch.delenv(IGNORE)
    UnreadFailures().drop(payload)
    UnreadFailures().drop(pack_error(runtime.WorkerCrashedError("killed by signal 11")))
    assert "f failed (here)" in (text := capsys.readouterr().err)
    assert "killed by signal 11" in text


@pytest.mark.parametrize("error", [False, True])
def test_a_line_that_is_not_ended_is_shown(processes, capfd, error):
    @runtime.remote
    def say(text):
        import sys

        print(text, end="", file=sys.stderr if error else sys.stdout)

    def said():
        out, err = capfd.readouterr()
        seen.append(err if error else out)
        return "progress 1 2 3" in "".join(seen)

    seen = []
    runtime.get(say.remote("begun\rprogress 1 2 3"))
    wait_until(said)
    assert "begun" not in "".join(seen)
