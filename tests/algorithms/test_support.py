"""The table of what works with what: what it calls supported trains, what it refuses is refused with its words."""

import functools
import itertools
import json

import pytest
from datasets import episode, write_dataset
from learning_envs import Drawn

from shoal import runtime
from shoal.algorithms import ALGORITHMS
from shoal.cli.algorithms import run, supported_rows
from shoal.rl import ACTIONS, OBSERVATIONS, combinations, example_observation
from shoal.runtime import InputError

NUMBERS = itertools.count()
TINY_MEMORY = {"units": 4}
SETTINGS = {
    **{name: {"gradient_steps": 16, "batch_size": 4} for name in ("bc", "marwil", "iql", "td3_bc")},
    "cql": {"gradient_steps": 16, "batch_size": 4, "num_actions": 2},
    "ppo": {"n_steps": 16, "batch_size": 16, "n_epochs": 1},
    **{name: {"n_steps": 16} for name in ("a2c", "impala", "appo")},
    "es": {"n_delta": 2, "noise_table_size": 10_000},
    "ars": {"n_delta": 2, "noise_table_size": 10_000},
}
REPLAYED = {"learning_starts": 16, "train_freq": 16, "gradient_steps": 2, "batch_size": 4, "buffer_size": 100}


def dataset(observation_space, action_space):
    """A dataset of a few random steps between two spaces, of a name of its own."""
    played = [episode(observation_space, action_space, 7, seed=seed) for seed in range(2)]
    return write_dataset(f"drawn/played-v{next(NUMBERS)}", played, observation_space, action_space)


def make(cell):
    memory = {} if cell.memory == "none" else {"memory": cell.memory, "memory_kwargs": TINY_MEMORY}
    tiny = {"encoder_kwargs": {"channels": [2, 2, 2], "features": 4}} if cell.observation == "image" else {}
    env_kwargs = {
        "observation_space": example_observation(cell.observation, cell.action, cell.masked),
        "action_space": ACTIONS[cell.action],
    }
    given = {} if ALGORITHMS[cell.algorithm].needs_environment else {"dataset": dataset(*env_kwargs.values())}
    return ALGORITHMS[cell.algorithm](
        Drawn,
        env_kwargs=env_kwargs,
        policy_kwargs={"net_arch": [4], **memory, **tiny},
        n_envs=2,
        **given,
        **SETTINGS.get(cell.algorithm, REPLAYED),
    )


def called(cell):
    mask = "-mask" if cell.masked else ""
    return f"{cell.algorithm}-{cell.observation}-{cell.action}-{cell.memory}{mask}"


@pytest.fixture(autouse=True)
def _serial(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    runtime.init(engine="serial")


@functools.cache
def cells():
    """The whole table; each of pytest's processes would wait half a second for it as it collects."""
    return list(combinations(ALGORITHMS.values()))


def supported():
    return [cell for cell in cells() if cell.refusal is None]


def chosen(**fields):
    (found,) = (cell for cell in cells() if all(getattr(cell, name) == value for name, value in fields.items()))
    return found


FEW = [
    {"algorithm": "ppo", "observation": "Dict", "action": "Tuple", "memory": "gru", "masked": False},
    {"algorithm": "a2c", "observation": "image", "action": "MultiDiscrete", "memory": "none", "masked": True},
    {"algorithm": "dqn", "observation": "Tuple", "action": "Discrete", "memory": "none", "masked": True},
    {"algorithm": "sac", "observation": "MultiBinary", "action": "Discrete", "memory": "none", "masked": True},
    {"algorithm": "td3", "observation": "Dict", "action": "Box", "memory": "none", "masked": False},
    {"algorithm": "bc", "observation": "Dict", "action": "MultiDiscrete", "memory": "none", "masked": True},
    {"algorithm": "es", "observation": "image", "action": "Dict", "memory": "none", "masked": False},
    {"algorithm": "ars", "observation": "Tuple", "action": "Discrete", "memory": "none", "masked": True},
    {"algorithm": "cql", "observation": "Tuple", "action": "Box", "memory": "none", "masked": False},
    {"algorithm": "cql", "observation": "Dict", "action": "Discrete", "memory": "none", "masked": True},
    {"algorithm": "iql", "observation": "Dict", "action": "Discrete", "memory": "none", "masked": True},
]


def trains(cell):
    with make(cell) as algorithm:
        before = (
            algorithm.weights_sha256() if hasattr(algorithm, "weights_sha256") else algorithm.policy.weights_sha256()
        )
        assert algorithm.train(64).weights_sha256 != before


@pytest.mark.parametrize("cell", FEW, ids=lambda cell: "-".join(map(str, cell.values())))
def test_some_supported_cells_train(cell):
    trains(chosen(**cell))


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("action", ACTIONS)
def test_each_supported_cell_trains(algorithm, action):
    for cell in supported():
        if (cell.algorithm, cell.action) == (algorithm, action):
            try:
                trains(cell)
            except Exception as error:
                error.add_note(f"in {called(cell)}")
                raise


@pytest.mark.parametrize(
    ("algorithm", "action", "memory", "masked", "text"),
    [
        ("dqn", "Box", "none", False, r"dqn does not work with action space Box.* work: a2c, appo, ars, (ddpg, )?es, "),
        ("td3_bc", "Discrete", "none", False, r"td3_bc does not work with.* with it work: bc, cql, iql, marwil$"),
        ("sac", "unbounded Box", "none", False, r"finite bounds: declare them.* with it work: a2c,.* ppo"),
        ("td3", "Tuple", "none", False, r"td3 does not work with action space Tuple.*with it work: a2c,.* ppo"),
        ("ppo", "Box", "none", True, r"a mask works with Discrete, MultiDiscrete and MultiBinary"),
        ("es", "Discrete", "lstm", False, r"es does not work with a memory.*Leave it out.*: a2c, appo, impala, ppo$"),
        ("bc", "Discrete", "lstm", False, r"bc does not work with a memory.*: a2c.*, which learn in an environment$"),
    ],
)
def test_some_refused_cells_say_what_works(algorithm, action, memory, masked, text):
    cell = chosen(algorithm=algorithm, observation="Box", action=action, memory=memory, masked=masked)
    with pytest.raises(InputError, match=text) as caught:
        make(cell)
    assert str(caught.value).replace("'Drawn'", "'example'") == cell.refusal


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_refused_cell_is_refused_with_its_words(algorithm):
    for cell in cells():
        if cell.algorithm == algorithm and cell.refusal is not None:
            with pytest.raises(InputError) as caught:
                make(cell)
            assert str(caught.value).replace("'Drawn'", "'example'") == cell.refusal, called(cell)


def test_every_algorithm_takes_every_observation_and_some_action():
    for name in {cell.algorithm for cell in cells() if cell.action in ACTIONS}:
        assert {cell.observation for cell in supported() if cell.algorithm == name} == set(OBSERVATIONS)
    assert {cell.action for cell in supported()} == {*ACTIONS, "Text"}
    assert all(
        name in cell.refusal or "mask" in cell.refusal for cell in cells() if cell.refusal for name in [cell.algorithm]
    )


def test_the_command_prints_it(capsys):
    assert run(["dqn"]) == 0
    printed = capsys.readouterr().out
    assert printed.split()[:7] == ["algorithm", "actions", "observations", "memories", "action", "mask", "agents"]
    assert "dqn" in printed
    assert "yes" in printed
    assert run(["--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(cells())
    with pytest.raises(InputError, match=r"no algorithm 'dqm'\. Did you mean 'dqn'"):
        run(["dqm"])


def test_rows_hold_together_what_works_alike():
    rows = supported_rows(cell for cell in cells() if cell.algorithm == "sac")
    assert [row[1::2] for row in rows] == [("Discrete", "none", "many"), ("Box", "none", "many")]
    assert [row[4] for row in rows] == ["yes", "no"]


def test_language_models_work_between_texts():
    rows = supported_rows(cell for cell in cells() if cell.algorithm in ("grpo", "sft"))
    assert rows == [(name, "Text", "Text", "none", "no", "one") for name in ("sft", "grpo")]
