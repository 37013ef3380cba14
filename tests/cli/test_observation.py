"""`shoal status`, `shoal list` …: looking into a running program from outside."""

import json
import os
import re
import signal
import subprocess
import sys

import psutil
import pytest
from conftest import WORKERS_NEED, leaving_nothing_behind, wait_until

from shoal import runtime
from shoal.cli.main import main
from shoal.runtime import state


@pytest.fixture(scope="module")
def session():
    with leaving_nothing_behind():
        runtime.init(engine="native", num_cpus=1, preload=WORKERS_NEED)
        yield runtime.nodes()[0].session


@runtime.remote
def square(x):
    return x * x


@runtime.remote
class Late:
    pass


def test_status(session, capsys):
    ref = runtime.put(b"x" * 1000)
    assert main(["status", "--session", session]) == 0
    shown = capsys.readouterr().out
    assert f"session {session}" in shown
    assert "CPU 0 of 1 used" in shown
    assert f"{os.getpid()}" in shown
    assert "no task is running or waiting" in shown
    assert "objects: 1, 1.0 KB" in shown
    assert main(["status", "--session", session, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nodes"][0]["session"] == session
    del ref


def test_watching_into_a_pipe_shows_one_status_below_the_other(session):
    command = [sys.executable, "-m", "shoal.cli.main", "status", "--watch", "--every", "0.1", "--session", session]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        seen = 0
        while seen < 2:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            seen += f"session {session}" in line
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_list(session, capsys):
    refs = [square.options(name="listed").remote(i) for i in range(3)]
    runtime.get(refs)
    assert main(["list", "tasks", "--session", session, "--filter", "name=listed", "--filter", "state!=FAILED"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("FINISHED") == 3
    assert refs[0].hex() in shown
    assert main(["list", "workers", "--filter=worker_type=DRIVER", "--format", "json", "--session", session]) == 0
    assert [row["pid"] for row in json.loads(capsys.readouterr().out)] == [os.getpid()]
    assert main(["list", "tasks", "--limit", "1", "--filter", "name=listed", "--session", session]) == 0
    assert "1 of 3 rows are shown" in capsys.readouterr().err
    for what in ("actors", "objects", "nodes", "placement-groups", "waits"):
        assert main(["list", what, "--session", session]) == 0


def test_a_list_in_a_terminal_leaves_out_what_is_empty_and_shows_the_end_of_ids(session, capsys, monkeypatch):
    ref = square.options(name="shown").remote(2)
    runtime.get(ref)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    assert main(["list", "tasks", "--session", session, "--filter", "name=shown"]) == 0
    [titles, row] = capsys.readouterr().out.splitlines()
    assert titles.split() == ["task", "id", "name", "state", "worker", "pid"]
    assert row.split()[:3] == [ref.hex()[-10:], "shown", "FINISHED"]
    assert state.list_tasks(filters=("name", "=", "shown"))[0].task_id == ref.hex()


def test_processes_that_are_being_made_are_shown_without_a_pid(session, capsys):
    fork_server = psutil.Process(state.list_nodes()[0].pid).children()[0].pid
    os.kill(fork_server, signal.SIGSTOP)
    try:
        late = Late.remote()
        wait_until(lambda: any(row.pid is None for row in state.list_workers()))
        assert main(["list", "workers", "--session", session, "--filter", "pid=None"]) == 0
        assert capsys.readouterr().out.splitlines()[1].split() == ["ACTOR", "Late"]
        assert main(["status", "--session", session]) == 0
        assert re.search(r"^ +Late +0% +0 B *$", capsys.readouterr().out, re.MULTILINE)
    finally:
        os.kill(fork_server, signal.SIGCONT)
    del late


def test_memory(session, capsys):
    ref = runtime.put(b"x" * 1_000_000)
    assert main(["memory", "--session", session]) == 0
    assert "1.0 MB  shared memory" in capsys.readouterr().out
    del ref


def test_story(session, capsys):
    ref = square.remote(3)
    runtime.get(ref)
    assert main(["story", ref.hex()[-10:], "--session", session]) == 0
    assert "square was submitted by" in capsys.readouterr().out


def test_timeline(session, capsys, tmp_path):
    runtime.get(square.remote(3))
    assert main(["timeline", str(tmp_path / "trace.json"), "--session", session]) == 0
    assert "square" in [event["name"] for event in json.loads((tmp_path / "trace.json").read_text())]
    assert re.search(r"[1-9]\d* spans written", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list"], "nothing to list is given"),
        (["list", "task"], "cannot list 'task'. Did you mean 'tasks'?"),
        (["list", "tasks", "--filter"], "--filter wants a value"),
        (["list", "tasks", "--filter", "RUNNING"], "'RUNNING' is no condition"),
        (["list", "tasks", "--filter", "stat=RUNNING"], "no field 'stat'. Did you mean 'state'"),
        (["list", "tasks", "--limit", "0"], "limit=0"),
        (["status", "--every", "0"], "--every is 0"),
        (["status", "--session", "none"], "no session 'none' is running"),
        (["story"], "no id is given"),
        (["story", "abcabc"], "nothing is known of 'abcabc'"),
        (["timeline"], "no file is given"),
        (["timeline", "/none/trace.json"], "cannot write '/none/trace.json': No such file"),
        (["memory", "--session", "none"], "no session 'none' is running"),
    ],
)
def test_bad_input(session, arguments, message, capsys):
    own = [] if "--session" in arguments else ["--session", session]
    assert main([*arguments, *own]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_without_a_running_program(monkeypatch, capsys):
    monkeypatch.setattr(runtime.state, "sessions", list)
    assert main(["status"]) == 2
    assert "no program of this user that uses Shoal is running" in capsys.readouterr().err
