"""What workers print: on the driver's screen, in log files, in errors; and that it never grows without end."""

import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

import pytest
from conftest import screen, shoal_processes, wait_until

from shoal import runtime
from shoal.runtime.native.driver.printer import Printer
from shoal.runtime.native.node.output import LogFile, OutputReader, Pipe, file_name
from shoal.runtime.native.node.session import KEPT_SESSIONS, SessionFolder, new_session
from shoal.runtime.native.protocol import messages as m
from shoal.runtime.native.protocol.connection import Connection


def run(source, tmp_path, **variables):
    """Run a driver with its logs in `tmp_path`."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"SHOAL_LOG_DIRECTORY": str(tmp_path)} | variables,
    )


SPEAKERS = """
    import sys
    from shoal import runtime
    runtime.init(num_cpus=1, preload=[])
    @runtime.remote
    class Speaker:
        def speak(self):
            print("all say this")
            print("trouble", file=sys.stderr)
            sys.stdout.write("half a line")
            sys.stdout.flush()
    speakers = [Speaker.remote() for _ in range(3)]
    runtime.get([speaker.speak.remote() for speaker in speakers])
    runtime.shutdown()
"""


# On the screen --------------------------------------------------------------------------------------------------------


def test_what_many_print_is_shown_once_with_their_number(tmp_path):
    done = run(SPEAKERS, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len([line for line in lines if line.endswith("all say this")]) == 1
    assert len([line for line in lines if "all say this [repeated 2x across processes]" in line]) == 1
    assert all(re.match(r"\(Speaker pid=\d+\) ", line) for line in lines)
    assert "trouble" in done.stderr


def test_each_line_is_shown_if_that_is_wanted(tmp_path):
    done = run(SPEAKERS, tmp_path, SHOAL_DEDUP_LOGS="0")
    for text in ("all say this", "half a line"):
        assert len([line for line in done.stdout.splitlines() if line.endswith(text)]) == 3


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_quiet_workers_are_not_shown_but_logged(tmp_path, how):
    if how == "argument":
        done = run(SPEAKERS.replace("preload=[]", "preload=[], log_to_driver=False"), tmp_path)
    else:
        done = run(SPEAKERS, tmp_path, SHOAL_LOG_TO_DRIVER="0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    logs = list(tmp_path.glob("session-*/logs/worker-Speaker-*"))
    assert len(logs) == 6
    assert {path.read_text() for path in logs} == {"all say this\nhalf a line", "trouble\n"}


def test_workers_print_utf_8_in_any_locale(tmp_path):
    done = run(
        r"""
        import sys
        from shoal import runtime
        @runtime.remote
        def speak():
            print("gr\u00fc\u00df \udcc3")
        runtime.init(num_cpus=1, preload=[])
        runtime.get(speak.remote())
        runtime.shutdown()
        """,
        tmp_path,
        LC_ALL="POSIX",
        PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
    )
    assert done.returncode == 0, done.stderr
    [log] = tmp_path.glob("session-*/logs/worker-*.out")
    assert log.read_text("utf-8") == "gr\u00fc\u00df \\udcc3\n"


def test_actors_with_a_repr_are_marked_with_it(tmp_path):
    done = run(
        """
        from shoal import runtime
        @runtime.remote
        class Named:
            def __init__(self, name):
                self.name = name
            def __repr__(self):
                return f"Named({self.name})"
            def speak(self):
                print("hello")
        runtime.get(Named.remote("Ada").speak.remote())
        runtime.shutdown()
        """,
        tmp_path,
    )
    assert re.fullmatch(r"\(Named\(Ada\) pid=\d+\) hello\n", done.stdout)


def test_progress_bars_show_their_last_state(capsys):
    printer = Printer(lambda seconds, action: None)
    printer.show(m.Output("w pid=1", "\r 10%\r 50%\r100%\n", False))
    assert capsys.readouterr().out == "(w pid=1) 100%\n"


def test_a_flood_fills_neither_node_nor_driver(tmp_path):
    done = run(
        """
        import os, psutil, sys
        from shoal import runtime
        runtime.init(num_cpus=1, preload=[])
        @runtime.remote
        def flood():
            line = b"x" * 99 + b"\\n"
            for _ in range(300):
                os.write(1, line * 1000)
        runtime.get(flood.remote())
        node = psutil.Process().children()[0]
        print("MiB", max(node.memory_info().rss, psutil.Process().memory_info().rss) >> 20, file=sys.stderr)
        runtime.shutdown()
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(re.search(r"MiB (\d+)", done.stderr).group(1)) < 150
    [*logs] = tmp_path.glob("session-*/logs/*")
    assert sum(path.stat().st_size for path in logs) < 3 * 2**20


# Parts ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pipe():
    read, write = os.pipe2(os.O_NONBLOCK)
    yield Pipe(read, False), write
    os.close(read)


def test_a_pipe_gives_whole_lines_and_the_half_one_at_the_end(pipe):
    pipe, write = pipe
    assert pipe.read() == b""
    os.write(write, b"one\ntw")
    assert pipe.read() == b"one\n"
    os.write(write, b"o\nthr")
    assert pipe.read() == b"two\n"
    os.close(write)
    assert pipe.read() == b"thr"
    assert pipe.read() is None


def test_a_line_without_end_is_cut(pipe):
    pipe, write = pipe
    for _ in range(2):
        os.write(write, b"x" * 40_000)
        got = pipe.read()
    assert got == b"x" * 80_000
    os.close(write)


def test_a_log_file_begins_anew_and_keeps_the_one_before(tmp_path):
    path = tmp_path / "logs" / "a.out"
    log = LogFile(str(path), most=10)
    assert not path.exists()
    for text in (b"first line\n", b"second line\n", b"third\n"):
        log.write(text)
    log.close()
    assert path.read_bytes() == b"third\n"
    assert (tmp_path / "logs" / "a.out.1").read_bytes() == b"second line\n"


def test_a_log_file_that_cannot_be_written_says_so_once(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    log = LogFile(str(tmp_path / "file" / "a.out"))
    log.write(b"x")
    log.write(b"y")
    assert capsys.readouterr().err.count("cannot be written") == 1


def test_names_of_log_files_are_harmless():
    assert file_name("Outer.<locals>/Actor[3]", 7, True) == "worker-Outer._locals_Actor[3]-7.err"


def test_what_a_driver_cannot_take_is_left_out_and_counted():
    ours, theirs = socket.socketpair()
    driver, reader = Connection(ours), Connection(theirs)
    shown = OutputReader(driver, "/logs")
    text = "x" * 999 + "\n"
    for _ in range(5000):
        shown.show(m.Output("w", text, False))
    received = []
    while not received or received[-1].text == text:
        received += reader.receive() or ()
        driver.flush()
        shown.resume()
    whole = [output for output in received if output.text == text]
    [notice] = [output.text for output in received if output.text != text]
    assert re.match(rf"{5000 - len(whole)} lines are left out here.*look into /logs", notice)
    driver.close()
    reader.close()


def test_what_waits_is_passed_on_at_the_end():
    ours, theirs = socket.socketpair()
    driver, reader = Connection(ours), Connection(theirs)
    shown = OutputReader(driver, "/logs")
    for _ in range(500):
        shown.show(m.Output("w", "x" * 999 + "\n", False))
    received = []
    theirs.setblocking(False)
    thread = threading.Thread(target=lambda: shown.finish(time.monotonic, 10))
    thread.start()
    wait_until(lambda: received.extend(reader.receive() or ()) or len(received) == 500)
    thread.join()
    driver.close()
    reader.close()


# Sessions -------------------------------------------------------------------------------------------------------------


def test_only_the_latest_sessions_are_kept_and_never_a_living_ones_removed(tmp_path):
    living = SessionFolder(new_session(str(tmp_path))[1])
    for i in range(KEPT_SESSIONS + 3):
        folder = SessionFolder(new_session(str(tmp_path))[1])
        path = pathlib.Path(folder.folder)
        (path / "logs").mkdir()
        (path / "logs" / "node.log").write_text(str(i))
        folder.close()
    assert len(list(tmp_path.glob("session-*"))) <= KEPT_SESSIONS + 2
    assert os.path.isdir(living.folder)
    living.close()
    assert not os.path.exists(living.folder)


def test_a_session_that_printed_nothing_leaves_no_folder(tmp_path):
    runtime.init(engine="native", num_cpus=1, preload=[], log_directory=str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1
    runtime.shutdown()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(runtime.InputError, match=r"log_directory=.*no folder can be made there"):
        runtime.init(engine="native", log_directory=str(tmp_path / "file"))


# Starting -------------------------------------------------------------------------------------------------------------


def test_a_node_that_cannot_start_shows_its_own_error(monkeypatch, tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'this interpreter is broken' >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(
        runtime.exceptions.NodeDiedError, match=r"did not start: exit code 3; it said:\n.*this interpreter is broken"
    ):
        runtime.init(engine="native")


def test_the_fork_servers_words_reach_the_driver():
    with screen() as shown:
        runtime.init(engine="native", num_cpus=1, preload=["no_such_module"])
        wait_until(lambda: "no_such_module" in shown.getvalue())
        runtime.shutdown()
        assert "(fork server pid=" in shown.getvalue()


def test_the_death_of_the_node_is_told_with_its_signal(native):
    [node] = [process for process in shoal_processes() if process.cmdline()[0] == "shoal: node"]
    node.kill()
    with pytest.raises(
        runtime.exceptions.NodeDiedError, match=r"has died: signal 9 \(SIGKILL\). Start the runtime again"
    ):
        runtime.get(runtime.remote(os.getpid).remote(), timeout=30)


def test_a_link_of_somebody_else_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.delenv("SHOAL_LOG_DIRECTORY")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ours = tmp_path / f"shoal-{os.getuid()}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ours.symlink_to(elsewhere)
    with pytest.raises(runtime.InputError, match="is no folder but a link"):
        new_session(None)
    assert not list(elsewhere.iterdir())
    ours.unlink()
    assert new_session(None)[1].startswith(str(ours))
    ours.chmod(0o777)
    with pytest.raises(runtime.InputError, match="others may write into"):
        new_session(None)


def test_only_folders_of_this_user_are_removed(tmp_path):
    """In a folder that many use, others may leave what is named alike: even a pipe, which nobody writes to."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "session-0").symlink_to(elsewhere)
    os.mkfifo(tmp_path / "session-1")
    for i in range(KEPT_SESSIONS + 3):
        os.mkdir(tmp_path / f"session-2{i}")
    SessionFolder(new_session(str(tmp_path))[1]).close()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["elsewhere", "session-0", "session-1", *(f"session-2{i}" for i in range(3, KEPT_SESSIONS + 3))]
