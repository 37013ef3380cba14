"""The run folder: what it holds, when, and what it refuses."""

import contextlib
import json
import multiprocessing
import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from run_fakes import FakeTraining, report, result

from shoal.envs import Episode
from shoal.rl.runs.checkpoint import list_checkpoints, write_checkpoint
from shoal.rl.runs.learning_curve import draw_learning_curve, episode_curve
from shoal.rl.runs.metrics import read_metrics
from shoal.rl.runs.run_folder import RunFolder, RunFolderError, read_config
from shoal.rl.runs.run_lines import RunLines
from shoal.rl.runs.run_lock import lock_run, unlock_run
from shoal.rl.runs.run_place import check_vacant, claimed_run_dir, default_run_dir
from shoal.runtime import InputError


def events(folder):
    """Read a folder's TensorBoard events back with TensorBoard's own reader: (step, tag, value) of each scalar."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    found = []
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for raw in RawEventFileLoader(str(file)).Load():
            event = Event.FromString(raw)
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    return found


def train(folder, iterations=None):
    iterations = iterations or [report(1, [1.0, 3.0]), report(2, [2.0])]
    training = FakeTraining()
    folder.on_training_start(training, 1000)
    for one in iterations:
        training.iteration, training.timesteps = one.iteration, one.timesteps
        folder.on_iteration_end(training, one)
    return training


def test_a_whole_run(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "a", stop_return=np.float32(475), checkpoint_seconds=np.int64(60))
    assert not folder.path.exists(), "nothing is written before the training starts"
    training = train(folder)
    assert not (folder.path / "result.json").exists()
    folder.on_training_end(training, result())

    config = json.loads((folder.path / "config.json").read_text())
    assert config["env"] == "CartPole-v1"
    assert config["stop_return"] == 475.0
    assert config["total_timesteps"] == 1000
    assert config["machine"]["libraries"]["numpy"] == np.__version__
    assert config["machine"]["cores"] >= 1

    lines = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["timesteps"] for line in lines] == [100, 200]
    assert lines[0]["episode_returns"] == [1.0, 3.0]
    assert lines[0]["episode_return_mean"] == 2.0
    assert lines[1]["time/fps"] == 10.0

    assert events(folder.path) == [(100, "time/fps", 10.0), (200, "time/fps", 10.0)]
    assert (folder.path / "learning_curve.png").read_bytes()[:4] == b"\x89PNG"
    assert (folder.path / "checkpoints" / "000000000200").is_dir()
    written = json.loads((folder.path / "result.json").read_text())
    assert written["solved"] is False
    assert written["weights_sha256"] == "ab"
    assert not list(folder.path.rglob("*.tmp"))


def test_metrics_are_on_disk_after_each_iteration(tmp_path):
    folder = RunFolder(tmp_path / "a")
    train(folder, [report(1)])
    assert len(list(read_metrics(folder.path / "metrics.jsonl"))) == 1
    folder.close()


def test_not_a_number_becomes_null(tmp_path):
    with RunFolder(tmp_path / "a") as folder:
        train(folder, [report(1, **{"train/loss": float("nan")})])
        assert next(read_metrics(folder.path / "metrics.jsonl"))["train/loss"] is None


@pytest.mark.parametrize(("total", "told"), [(-1.25e-7, -1.25e-7), (3.0, 3.0), (float("nan"), None)])
def test_lines_of_episodes_are_what_json_writes(tmp_path, total, told):
    lines = RunLines(tmp_path)
    episodes = [Episode(3, 17, total, 2, 2**31 - 1, 90, b"\x00\xff"), Episode(1, 0, 1.0, 4, 5, 6, None)]
    lines.write(replace(report(7), episodes=episodes))
    lines.close()
    wanted = {
        "iteration": 7, "timesteps": report(7).timesteps, "environment": 3, "index": 17, "seed": 2**31 - 1,
        "return": told, "length": 2, "actions": "AP8=",
    }  # fmt: skip
    assert (tmp_path / "episodes.jsonl").read_text() == json.dumps(wanted) + "\n"


def test_an_interrupted_run_has_a_curve_and_no_result(tmp_path):
    def interrupted():
        with RunFolder(tmp_path / "a") as folder:
            train(folder)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "a" / "learning_curve.png").exists()
    assert events(tmp_path / "a")
    assert not (tmp_path / "a" / "result.json").exists()


def test_an_interrupted_run_frees_its_folder_without_a_with_block(tmp_path):
    folder = RunFolder(tmp_path / "a")
    training = train(folder)
    folder.on_exception(training, KeyboardInterrupt())
    assert (tmp_path / "a" / "learning_curve.png").exists()
    with RunFolder(tmp_path / "a", overwrite=True) as again:
        train(again)
        again.on_exception(training, KeyboardInterrupt())
        with pytest.raises(InputError, match="by another training of this process"):
            train(RunFolder(tmp_path / "a", overwrite=True))  # the block may go on, and save a checkpoint


def test_an_older_run_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert check_vacant(tmp_path) == tmp_path, "it ended before its first iteration did"
    (tmp_path / "metrics.jsonl").write_text("")
    assert check_vacant(tmp_path) == tmp_path
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"holds config.json, metrics.jsonl\): replace it with --overwrite"):
        RunFolder(tmp_path)
    (tmp_path / "checkpoints" / "000000000100").mkdir(parents=True)
    with pytest.raises(InputError, match=r"exists already .*--resume .*--overwrite"):
        RunFolder(tmp_path)


def test_overwrite_removes_what_a_run_wrote_and_nothing_else(tmp_path):
    for name in ("config.json", "result.json", "events.out.tfevents.1", "notes.txt"):
        (tmp_path / name).write_text("old")
    (tmp_path / "checkpoints" / "000000000900").mkdir(parents=True)
    folder = RunFolder(tmp_path, overwrite=True)
    assert (tmp_path / "result.json").exists(), "nothing is replaced before the training starts"
    train(folder)
    assert not (tmp_path / "result.json").exists()
    assert not (tmp_path / "checkpoints").exists()
    assert not (tmp_path / "events.out.tfevents.1").exists()
    assert (tmp_path / "notes.txt").read_text() == "old"
    folder.close()


def test_foreign_files_are_never_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(InputError, match="holds files, but no run"):
        check_vacant(tmp_path, overwrite=True)


def test_an_empty_folder_and_a_file(tmp_path):
    assert check_vacant(tmp_path) == tmp_path
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        check_vacant(tmp_path / "file")


def test_where_nothing_can_be_written_is_said_before_a_training_starts(tmp_path, monkeypatch):
    """/proc takes no files, from root neither; a full disk takes no bytes."""
    with pytest.raises(InputError, match=r"run folder '/proc/a/b' cannot be written: .* \('/proc'\)\. Choose another"):
        RunFolder("/proc/a/b")
    with pytest.raises(InputError, match="cannot be written"):
        default_run_dir("ppo", "A-v0", "/proc/runs")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"Not a directory \('.*/file'\)"):
        RunFolder(tmp_path / "file" / "run")
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: open("/dev/full", "wb", buffering=0))  # noqa: SIM115
    with pytest.raises(InputError, match="No space left on device"):
        RunFolder(tmp_path / "run")
    with pytest.raises(InputError, match="No space left on device"):
        RunFolder(tmp_path, resume=True)
    assert [child.name for child in tmp_path.iterdir()] == ["file"]


def test_resume_keeps_what_the_checkpoint_knows(tmp_path):
    first = RunFolder(tmp_path / "a")
    train(first, [report(1, [1.0]), report(2, [2.0]), report(3, [3.0])])
    first.close()
    with (tmp_path / "a" / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 4, "times')  # killed while it wrote

    again = RunFolder(tmp_path / "a", resume=True)
    training = FakeTraining()
    training.iteration, training.timesteps = 2, 200
    again.on_training_start(training, 1000)
    again.on_iteration_end(training, report(3, [30.0]))
    again.close()
    lines = list(read_metrics(tmp_path / "a" / "metrics.jsonl"))
    assert [line["iteration"] for line in lines] == [1, 2, 3]
    assert lines[2]["episode_returns"] == [30.0]


def test_checkpoints_by_age(tmp_path):
    folder = RunFolder(tmp_path / "a", checkpoint_seconds=0.0)
    train(folder, [report(1), report(2)])
    saved = sorted(path.name for path in (tmp_path / "a" / "checkpoints").iterdir())
    assert saved == ["000000000100", "000000000200"]
    folder.close()


def test_default_run_dir(tmp_path):
    assert default_run_dir("ppo", "CartPole-v1", tmp_path / "runs") == tmp_path / "runs" / "ppo-CartPole-v1-1"
    for name in ("ppo-CartPole-v1-1", "ppo-CartPole-v1-12", "ppo-CartPole-v1-old"):
        (tmp_path / name).mkdir()
    assert default_run_dir("ppo", "CartPole-v1", tmp_path) == tmp_path / "ppo-CartPole-v1-13"
    assert default_run_dir("ppo", "my_envs:ALE/Pong", tmp_path).name == "ppo-my_envs-ALE-Pong-1"


@pytest.mark.parametrize(
    ("files", "stays"),
    [
        ({"config.json": "{}", "metrics.jsonl": ""}, False),
        ({"config.json": "{}", "metrics.jsonl": "", "metrics.csv": "\n"}, False),
        ({}, False),
        ({"config.json": "{}", "metrics.jsonl": "{}\n"}, True),
        ({"config.json": "{}", "metrics.jsonl": "", "reproduce.py": ""}, True),
    ],
)
def test_a_claimed_folder_goes_if_nothing_came_of_its_run(tmp_path, monkeypatch, files, stays):
    monkeypatch.chdir(tmp_path)
    with claimed_run_dir("ppo", "CartPole-v1") as folder:
        assert folder.is_dir()
        for name, content in files.items():
            (folder / name).write_text(content)
    assert folder.exists() == stays


def test_runs_that_start_together_get_folders_of_their_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda _: default_run_dir("ppo", "CartPole-v1", tmp_path), range(40)))
    assert len(set(claimed)) == 40
    assert all(folder.is_dir() for folder in claimed)


def hold_lock(path, held):
    folder = RunFolder(path)
    folder.on_training_start(FakeTraining(), 1000)
    held.set()
    signal.pause()


@pytest.fixture
def holder(tmp_path):
    """Another process that writes the run folder "a"."""
    processes = multiprocessing.get_context("fork")
    held = processes.Event()
    process = processes.Process(target=hold_lock, args=(tmp_path / "a", held))
    process.start()
    assert held.wait(30)
    yield process
    process.kill()
    process.join()


def test_a_folder_that_another_process_writes_is_refused(tmp_path, holder):
    message = rf"'.*a' is being written by process {holder.pid}: .+"
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(InputError, match=message):
            RunFolder(tmp_path / "a", **options)
    with pytest.raises(InputError, match=message):
        check_vacant(tmp_path / "a", overwrite=True)
    with pytest.raises(InputError, match=message):
        write_checkpoint(tmp_path / "a", 1, {}, 1)
    holder.kill()
    holder.join()
    with RunFolder(tmp_path / "a", overwrite=True) as folder:
        train(folder)


def test_many_that_ask_at_once_do_not_take_each_other_for_writers(tmp_path):
    (tmp_path / ".lock").write_text("{}")  # left by a kill
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: check_vacant(tmp_path), range(400)))


def test_a_lock_goes_from_one_to_the_next(tmp_path):
    """Each writes the number it finds plus one: none of them is lost."""
    file = tmp_path / "number"
    file.write_text("0")

    def count_once(_):
        while True:
            try:
                lock_run(tmp_path)
            except InputError:
                continue
            file.write_text(str(int(file.read_text()) + 1))
            unlock_run(tmp_path)
            return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count_once, range(100)))
    assert file.read_text() == "100"
    assert not (tmp_path / ".lock").exists()


def test_the_lock_of_another_folder_of_that_name_is_left_alone(tmp_path):
    lock_run(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".lock").write_text("of another")
    unlock_run(tmp_path / "a")
    assert (tmp_path / "a" / ".lock").read_text() == "of another"


def test_what_another_has_begun_meanwhile_is_not_replaced(tmp_path):
    late = RunFolder(tmp_path / "a")  # there was nothing yet
    with RunFolder(tmp_path / "a") as first:
        train(first)
        with pytest.raises(InputError, match="by another training of this process: close that one first"):
            train(late)
        late.close()
        with pytest.raises(InputError, match="by another training of this process"):
            train(RunFolder(tmp_path / "a", overwrite=True))
    assert not (tmp_path / "a" / ".lock").exists()
    with pytest.raises(InputError, match="exists already"):
        train(late)
    late.close()
    with RunFolder(tmp_path / "a", overwrite=True) as again:
        train(again)


def test_a_child_that_is_forked_does_not_keep_the_lock(tmp_path):
    processes = multiprocessing.get_context("fork")
    stop = processes.Event()
    with RunFolder(tmp_path / "a") as folder:
        train(folder)
        child = processes.Process(target=stop.wait)
        child.start()
    with RunFolder(tmp_path / "a", overwrite=True) as folder:
        train(folder)
    stop.set()
    child.join()


def test_a_run_that_went_on_meanwhile_is_not_resumed_from_before(tmp_path):
    for timesteps in (100, 300):
        write_checkpoint(tmp_path / "a", timesteps, {"policy.json": b"{}"}, keep=3)
    training = FakeTraining()
    training.timesteps = 100
    refused = RunFolder(tmp_path / "a", resume=True)
    with pytest.raises(InputError, match=r"has a later checkpoint than the one of 100 steps that was loaded"):
        refused.on_training_start(training, 1000)
    refused.close()
    with RunFolder(tmp_path / "a", resume=True, overwrite=True) as folder:
        folder.on_training_start(training, 1000)
    assert [path.name for path in list_checkpoints(tmp_path / "a")] == ["000000000100"]


@contextlib.contextmanager
def largest_file(size):
    """Have the system refuse what would make a file larger than `size` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("last", ["metrics", "result"])
def test_what_cannot_be_written_is_told_with_what_is_kept(tmp_path, last):
    folder = RunFolder(tmp_path / "a")
    training = train(folder)
    write_checkpoint(tmp_path / "a", 100, {"policy.json": b"{}"}, keep=3)

    def goes_on():
        with folder:
            if last == "metrics":
                folder.on_iteration_end(training, report(3, [1.0]))
            else:
                folder.on_training_end(training, replace(result(), weights_sha256="a" * 20_000))

    with largest_file(100 if last == "metrics" else 10_000), pytest.raises(RunFolderError) as caught:
        goes_on()
    message = str(caught.value)
    assert "a' cannot be written: File too large" in message
    assert "The last checkpoint is whole: '" in message
    assert f"--resume {tmp_path / 'a'}" in message
    assert not (tmp_path / "a" / ".lock").exists()
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_disk_that_is_full_from_the_start_leaves_nothing_behind(tmp_path):
    folder = RunFolder(tmp_path / "a")
    with largest_file(0), pytest.raises(RunFolderError, match="No checkpoint was saved before"):
        train(folder)
    folder.close()
    assert not list((tmp_path / "a").iterdir())
    with RunFolder(tmp_path / "a") as again:
        train(again)


def test_a_damaged_line_of_the_metrics_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for damaged in ("{", "[]", '{"iteration": 1, "timesteps": "x"}', "\0\0"):
        path.write_text(f'{{"iteration": 1, "timesteps": 1}}\n{damaged}\n{{"iteration": 3, "timesteps": 3}}\n')
        with pytest.raises(InputError, match=r"line 2 of '.*metrics.jsonl' is damaged"):
            list(read_metrics(path))


def test_read_config(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_config(tmp_path / "none")
    with pytest.raises(InputError, match=r"holds no config\.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"env": ')
    with pytest.raises(InputError, match="is damaged"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="holds a list"):
        read_config(tmp_path)
    for entry in ({"total_timesteps": "10"}, {"env": None}, {"stop_return": "high"}):
        config = {"algorithm": "ppo", "env": "A", "total_timesteps": 1, "stop_return": None}
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert read_config(tmp_path) == config
        (tmp_path / "config.json").write_text(json.dumps(config | entry))
        with pytest.raises(InputError, match=f"is damaged: its entry '{next(iter(entry))}'"):
            read_config(tmp_path)


def test_the_curve_by_hand(tmp_path):
    records = [
        {"iteration": 1, "timesteps": 100, "episode_returns": [1.0, 3.0]},
        {"iteration": 2, "timesteps": 200, "episode_returns": []},
        {"iteration": 3, "timesteps": 300, "episode_returns": [5.0]},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    steps, returns, means = episode_curve(path)
    assert steps.tolist() == [50.0, 100.0, 300.0]
    assert returns.tolist() == [1.0, 3.0, 5.0]
    assert means.tolist() == [1.0, 2.0, 3.0]


def test_the_mean_forgets_after_a_hundred_episodes(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"iteration": 1, "timesteps": 1000, "episode_returns": [500.0] + [0.0] * 100}) + "\n")
    means = episode_curve(path)[2]
    assert means[99] == 5.0
    assert means[100] == 0.0


def test_no_episode_no_picture(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    assert not draw_learning_curve(tmp_path / "metrics.jsonl", tmp_path / "curve.png", title="")
    assert not (tmp_path / "curve.png").exists()
