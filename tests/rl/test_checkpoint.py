import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal

import numpy as np
import pytest
from conftest import wait_until
from gymnasium import spaces

from shoal.rl import ModelSpec, load_algorithm_name, policy_metadata
from shoal.rl.models.layout import ParameterLayout
from shoal.rl.runs.checkpoint import (
    drop_newer,
    find_checkpoint,
    find_run,
    list_checkpoints,
    policy_files,
    read_policy,
    read_training,
    training_files,
    write_checkpoint,
    write_policy,
)
from shoal.rl.runs.files import SUMS, exchange, with_sums
from shoal.runtime import InputError

SPEC = ModelSpec("actor_critic", spaces.Box(-1, 1, (3,)), spaces.Discrete(2))
LAYOUT = ParameterLayout({"pi.weight": (2, 3), "pi.bias": (2,)})


FILES = ("policy.json", "policy.safetensors", "training.json", "training.safetensors", SUMS)


def files_of_policy(seed=0):
    return policy_files({**SPEC.to_json(), "version": 1}, LAYOUT, weights(seed))


def weights(seed):
    return np.arange(8, dtype=np.float32) + seed


def save(run, timesteps, seed=0, keep=3):
    training = training_files({"algorithm": "ppo", "timesteps": timesteps}, {"moments": np.arange(6.0) + seed})
    return write_checkpoint(run, timesteps, files_of_policy(seed) | training, keep)


def write_with_sums(folder, **changed):
    """Write files into a checkpoint as if they had been saved like that."""
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.name != SUMS} | changed
    for name, content in with_sums(files).items():
        (folder / name).write_bytes(content)


def test_the_newest_checkpoint_of_a_run_is_read(tmp_path):
    save(tmp_path, 100, seed=1)
    save(tmp_path, 2000, seed=2)
    assert find_checkpoint(tmp_path).name == "000000002000"
    assert np.array_equal(read_policy(tmp_path).weights, weights(2))
    assert np.array_equal(read_policy(tmp_path / "checkpoints" / "000000000100").weights, weights(1))
    document, arrays = read_training(tmp_path)
    assert document["algorithm"] == load_algorithm_name(tmp_path) == "ppo"
    assert arrays["moments"].tolist() == [2, 3, 4, 5, 6, 7]
    assert policy_metadata(tmp_path)["version"] == 1


def test_only_the_newest_are_kept(tmp_path):
    for timesteps in range(5):
        save(tmp_path, timesteps, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["000000000003", "000000000004"]


def test_saving_again_replaces_and_leaves_nothing_else(tmp_path):
    save(tmp_path, 5, seed=1)
    save(tmp_path, 5, seed=2)
    assert np.array_equal(read_policy(tmp_path).weights, weights(2))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000000000005"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_saving_again_where_a_file_system_cannot_exchange(tmp_path, monkeypatch, exchanges):
    def cannot(one, other):
        raise OSError(22, "Invalid argument")

    if not exchanges:
        monkeypatch.setattr("shoal.rl.runs.checkpoint.exchange", cannot)
    test_saving_again_replaces_and_leaves_nothing_else(tmp_path)


def test_two_folders_exchange_their_names(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "file").read_text() == "b"
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "a", tmp_path / "none")


def replace_without_end(run, saved):
    for seed in itertools.count():
        save(run, 5, seed % 7)
        saved.value += 1


@pytest.fixture
def saving_process(tmp_path):
    """A process that replaces one checkpoint again and again, and how often it has."""
    processes = multiprocessing.get_context("fork")
    saved = processes.Value("L", 0)
    process = processes.Process(target=replace_without_end, args=(tmp_path / "run", saved))
    process.start()
    wait_until(lambda: saved.value)
    yield process, saved
    process.kill()
    process.join()


def test_at_no_moment_is_a_replaced_checkpoint_missing(tmp_path, saving_process):
    target = tmp_path / "run" / "checkpoints" / "000000000005"
    while saving_process[1].value < 30:
        os.stat(target)  # fails if the name is free at that moment


def test_what_a_kill_left_is_removed_by_the_next_write(tmp_path):
    save(tmp_path, 5)
    left = tmp_path / "checkpoints" / ".writing-abc"
    left.mkdir()
    (left / "policy.json").write_text("{")
    assert read_policy(tmp_path)
    save(tmp_path, 6)
    assert sorted(path.name for path in left.parent.iterdir()) == ["000000000005", "000000000006"]


def test_a_writer_that_is_killed_leaves_whole_checkpoints(tmp_path, saving_process):
    os.kill(saving_process[0].pid, signal.SIGKILL)
    saving_process[0].join()
    run = tmp_path / "run"
    assert [path.name for path in list_checkpoints(run)] == ["000000000005"]
    assert read_training(run)
    save(run, 6)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["000000000005", "000000000006"]


def save_many(run, first, start):
    start.wait()
    for timesteps in range(first, first + 40, 2):
        save(run, timesteps)


def test_two_processes_that_save_take_turns(tmp_path):
    processes = multiprocessing.get_context("fork")
    start = processes.Event()
    writers = [processes.Process(target=save_many, args=(tmp_path, first, start)) for first in (0, 1)]
    for writer in writers:
        writer.start()
    start.set()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(list_checkpoints(tmp_path)) == 3
    for checkpoint in list_checkpoints(tmp_path):
        assert read_training(checkpoint)


def test_a_write_that_fails_leaves_the_older_one(tmp_path, monkeypatch):
    save(tmp_path, 5)

    def fails(folder, files):
        (folder / "policy.json").write_text("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shoal.rl.runs.checkpoint.write_summed", fails)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 6)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000000000005"]
    assert read_policy(tmp_path)


def flip(content, chance):
    position = chance.randrange(len(content) * 8)
    return (
        content[: position // 8] + bytes([content[position // 8] ^ (1 << position % 8)]) + content[position // 8 + 1 :]
    )


@pytest.mark.parametrize("seed", range(4))
def test_no_damage_is_loaded(tmp_path, seed):
    """Forty random damages of one file each: a flipped bit, a lost end, the same file of another checkpoint, another
    file of the same one, a missing file."""
    chance = random.Random(seed)
    first, second = save(tmp_path / "run", 100, seed=1), save(tmp_path / "run", 200, seed=2)
    for case in range(40):
        shutil.copytree(first, tmp_path / "damaged")
        name = chance.choice(FILES)
        file = tmp_path / "damaged" / name
        content = file.read_bytes()
        other = chance.choice([second / name, first / chance.choice([other for other in FILES if other != name])])
        damages = [flip(content, chance), content[: chance.randrange(len(content))], other.read_bytes(), None]
        damage = damages[chance.choices(range(4), (6, 3, 3, 1))[0]]
        if damage is None:
            file.unlink()
        else:
            file.write_bytes(damage)
        for read in (read_policy, read_training, policy_metadata, load_algorithm_name):
            with pytest.raises(InputError, match=r"damaged|lacks the file|no run or policy") as caught:
                read(tmp_path / "damaged")
            assert name in str(caught.value) or SUMS in str(caught.value) or "no run" in str(caught.value), (case, name)
        shutil.rmtree(tmp_path / "damaged")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is empty"),
        (lambda path: (path / "other").mkdir(parents=True), r"no policy.json and no checkpoints/"),
        (lambda path: path.write_text("x"), "is a file"),
    ],
)
def test_a_folder_without_a_run_is_refused(tmp_path, prepare, message):
    prepare(tmp_path / "run")
    for read in (read_policy, read_training, policy_metadata):
        with pytest.raises(InputError, match=message):
            read(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *itertools.product(["policy.safetensors", "training.json", "training.safetensors"], ["cut", "empty"]),
        *itertools.product(["policy.safetensors", "training.safetensors"], ["missing"]),
        *itertools.product(["policy.json"], ["cut", "empty"]),
    ],
)
def test_damaged_files_are_named(tmp_path, name, damage):
    save(tmp_path, 1)
    save(tmp_path, 2)
    file = find_checkpoint(tmp_path) / name
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    if damage == "missing":
        file.unlink()
    with pytest.raises(InputError) as caught:
        (read_policy if name.startswith("policy") else read_training)(tmp_path)
    assert name in str(caught.value)
    assert damage != "cut" or "damaged or cut off" in str(caught.value)


def test_a_damaged_checkpoint_names_the_older_one(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    save(tmp_path, 3)
    for timesteps in (2, 3):
        (tmp_path / "checkpoints" / f"{timesteps:012d}" / "training.safetensors").write_bytes(b"")
    for read in (read_policy, read_training):
        with pytest.raises(InputError, match=r"training.safetensors.*The previous good checkpoint is .*000000000001'"):
            read(tmp_path)
    (tmp_path / "checkpoints" / "000000000001" / SUMS).write_bytes(b"")
    with pytest.raises(InputError, match="no other checkpoint that is good"):
        read_policy(tmp_path)


def test_another_format_and_missing_entries_are_named(tmp_path):
    folder = save(tmp_path, 1)
    document = json.loads((folder / "policy.json").read_text())
    for changed, message in (
        (document | {"format": 99}, "format 99"),
        ({name: document[name] for name in document if name != "action_space"}, "lacks the entry 'action_space'"),
        ([], "format 'list'"),
    ):
        write_with_sums(folder, **{"policy.json": json.dumps(changed).encode()})
        with pytest.raises(InputError, match=message):
            read_policy(tmp_path)


def test_the_checksums_are_those_of_sha256sum(tmp_path):
    import subprocess

    folder = save(tmp_path, 1)
    assert subprocess.run(["sha256sum", "--strict", "-c", SUMS], cwd=folder, check=False).returncode == 0


def test_a_policy_alone_cannot_be_trained_on(tmp_path):
    write_policy(tmp_path / "policy", files_of_policy(3))
    assert read_policy(tmp_path / "policy").weights.tolist() == weights(3).tolist()
    with pytest.raises(InputError, match=r"no training.json"):
        read_training(tmp_path / "policy")


def test_a_policy_and_a_run_do_not_hide_each_other(tmp_path):
    save(tmp_path / "run", 1)
    with pytest.raises(InputError, match="is the folder of a run"):
        write_policy(tmp_path / "run", files_of_policy())
    write_policy(tmp_path / "policy", files_of_policy())
    with pytest.raises(InputError, match="is the folder of a saved policy"):
        save(tmp_path / "policy", 1)


def test_what_can_be_resumed(tmp_path):
    run = tmp_path / "run"
    first, second = save(run, 1), save(run, 2)
    with pytest.raises(InputError, match=r"is no run: it holds what a program has saved"):
        find_run(run)
    (run / "config.json").write_text("{}")
    assert find_run(run) == (run, second)
    assert find_run(str(first)) == (run, first)
    write_policy(tmp_path / "policy", files_of_policy())
    with pytest.raises(InputError, match=r"'.*policy' is a saved policy: `shoal evaluate`"):
        find_run(tmp_path / "policy")
    shutil.copytree(first, tmp_path / "copy")
    with pytest.raises(InputError, match="is no run: it holds what a program has saved"):
        find_run(tmp_path / "copy")


def test_what_is_given_instead_of_a_run_is_named(tmp_path):
    run = tmp_path / "runs" / "a"
    first = save(run, 1)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text("{}")
    for given, message in (
        (first / "policy.safetensors", rf"it is a file. Name the folder '{run}'"),
        (run / "checkpoints", rf"the checkpoints of a run. Name the run, '{run}'"),
        (run.parent, r"it holds runs. Name one: a$"),
        (tmp_path / "new", "the run there has no checkpoint"),
    ):
        with pytest.raises(InputError, match=message):
            find_checkpoint(given)


def test_later_checkpoints_go_only_if_damaged_or_told_so(tmp_path):
    for timesteps in (1, 2, 3):
        save(tmp_path, timesteps)
    with pytest.raises(InputError, match=r"a later checkpoint than the one of 1 steps that was loaded: 000000000002"):
        drop_newer(tmp_path, 1, good_ones=False)
    (tmp_path / "checkpoints" / "000000000003" / "training.json").unlink()
    drop_newer(tmp_path, 2, good_ones=False)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["000000000001", "000000000002"]
    drop_newer(tmp_path, 1, good_ones=True)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["000000000001"]
