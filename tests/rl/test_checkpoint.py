import itertools
import json

import numpy as np
import pytest
from gymnasium import spaces

from shoal.envs import space_to_json
from shoal.rl import load_algorithm_name, policy_metadata
from shoal.rl.architecture import Architecture, initial_weights, parameter_layout
from shoal.rl.checkpoint import (
    find_checkpoint,
    list_checkpoints,
    new_checkpoint,
    read_policy,
    read_training,
    write_policy,
    write_training,
)
from shoal.runtime import InputError

SPACES = (spaces.Box(-1, 1, (3,)), spaces.Discrete(2))
LAYOUT = parameter_layout(*SPACES, Architecture())


def save(run, timesteps, seed=0, keep=3):
    observation_space, action_space = map(space_to_json, SPACES)
    metadata = {"observation_space": observation_space, "action_space": action_space, "policy_kwargs": {}, "version": 1}
    with new_checkpoint(run, timesteps, keep) as folder:
        write_policy(folder, metadata, LAYOUT, initial_weights(LAYOUT, Architecture(), seed))
        write_training(folder, {"algorithm": "ppo"}, {"moments": np.arange(6.0)})


def test_the_newest_checkpoint_of_a_run_is_read(tmp_path):
    save(tmp_path, 100, seed=1)
    save(tmp_path, 2000, seed=2)
    assert find_checkpoint(tmp_path).name == "000000002000"
    assert np.array_equal(read_policy(tmp_path).weights, initial_weights(LAYOUT, Architecture(), 2))
    assert np.array_equal(
        read_policy(tmp_path / "checkpoints" / "000000000100").weights, initial_weights(LAYOUT, Architecture(), 1)
    )
    document, arrays = read_training(tmp_path)
    assert document["algorithm"] == load_algorithm_name(tmp_path) == "ppo"
    assert arrays["moments"].tolist() == [0, 1, 2, 3, 4, 5]
    assert policy_metadata(tmp_path)["version"] == 1


def test_only_the_newest_are_kept(tmp_path):
    for timesteps in range(5):
        save(tmp_path, timesteps, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["000000000003", "000000000004"]


def test_saving_again_replaces_and_leaves_nothing_else(tmp_path):
    save(tmp_path, 5, seed=1)
    save(tmp_path, 5, seed=2)
    assert np.array_equal(read_policy(tmp_path).weights, initial_weights(LAYOUT, Architecture(), 2))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000000000005"]


def test_a_write_that_fails_leaves_the_older_one(tmp_path):
    save(tmp_path, 5)

    def fail(folder):
        (folder / "policy.json").write_text("{")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), new_checkpoint(tmp_path, 6, 3) as folder:
        fail(folder)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000000000005"]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is empty"),
        (lambda path: (path / "other").mkdir(parents=True), r"neither a policy.json nor a checkpoint"),
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
    (find_checkpoint(tmp_path) / "policy.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"An older checkpoint is at .*000000000001"):
        read_policy(tmp_path)


def test_weights_that_differ_from_their_hash_are_refused(tmp_path):
    save(tmp_path, 1)
    file = find_checkpoint(tmp_path) / "policy.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(InputError, match="SHA-256"):
        read_policy(tmp_path)


def test_another_format_and_missing_entries_are_named(tmp_path):
    save(tmp_path, 1)
    file = find_checkpoint(tmp_path) / "policy.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps(document | {"format": 99}))
    with pytest.raises(InputError, match="format 99"):
        read_policy(tmp_path)
    del document["action_space"]
    file.write_text(json.dumps(document))
    with pytest.raises(InputError, match="lacks the entry 'action_space'"):
        read_policy(tmp_path)


def test_a_policy_alone_cannot_be_trained_on(tmp_path):
    save(tmp_path, 1)
    checkpoint = find_checkpoint(tmp_path)
    (checkpoint / "training.json").unlink()
    assert read_policy(checkpoint)
    with pytest.raises(InputError, match=r"no training.json"):
        read_training(checkpoint)
