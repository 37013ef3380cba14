"""Observations and actions with parts: records in arrays, parts for environments and users."""

import numpy as np
import pytest
from gymnasium import spaces
from learning_envs import Parts

from shoal.envs import EnvGroup, as_batch, codec, describe, resolve, space_from_json, space_to_json
from shoal.envs.errors import EnvContractError
from shoal.runtime import InputError

SPACE = spaces.Dict(
    {
        "arm": spaces.Tuple([spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(3, start=5)]),
        "lamp": spaces.MultiBinary(2),
    }
)
ONE = {"arm": (np.array([0.5, -0.5], np.float32), 6), "lamp": np.array([1, 0], np.int8)}


def changed(**parts):
    return ONE | parts


def test_an_element_is_one_record():
    found = codec(SPACE)
    rows = np.empty(2, found.dtype)
    assert found.fits(ONE)
    rows[1] = found.pack(ONE)
    assert rows.itemsize == 2 * 4 + 8 + 2
    again = found.unpack(rows[1])
    assert again["arm"][0].tolist() == [0.5, -0.5]
    assert again["arm"][1] == 6
    assert found.unpack(rows)["lamp"][1].tolist() == [1, 0]
    assert [parts for parts, _ in found.leaves()] == [("arm", "0"), ("arm", "1"), ("lamp",)]
    assert found.row_size == 2 + 3 + 2


def test_survives_json():
    assert space_from_json(space_to_json(SPACE)) == SPACE
    assert describe(SPACE).startswith("Dict('arm': Tuple(0: Box(2,)")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([1], r"observation of type list; wanted a dict"),
        ({"lamp": ONE["lamp"]}, "observation lacks 'arm'"),
        (changed(bell=1), "has a part 'bell' that the space has not"),
        (changed(arm=(1,)), r"observation\['arm'\] has 1 parts; wanted 2"),
        (changed(lamp=np.array([1, 2], np.int8)), r"observation\['lamp'\]\[1\] = 2; observation_space\['lamp'\] "),
        (changed(arm=(np.zeros(3, np.float32), 6)), r"observation\['arm'\]\[0\] of shape \(3,\)"),
        (changed(arm=(np.zeros(2, np.float32), 8)), r"observation\['arm'\]\[1\] = 8; .* an integer from 5 to 7"),
    ],
)
def test_what_is_wrong_names_the_part(wrong, message):
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(codec(SPACE).problem(wrong))
    if "lamp'][1]" not in message:
        with pytest.raises(ValueError, match=message.partition(";")[0].partition(" of shape")[0]):
            as_batch(SPACE, wrong)


def test_batches_of_parts():
    rows, single = as_batch(SPACE, {"arm": [[[0, 0], [1, 1]], [5, 7]], "lamp": [[0, 0], [1, 1]]})
    assert not single
    assert rows["arm"]["1"].tolist() == [5, 7]
    assert as_batch(SPACE, rows)[0] is rows
    assert as_batch(SPACE, ONE)[1]
    with pytest.raises(ValueError, match=r"\['lamp'\] as one, but observation\['arm'\] as a batch of 2"):
        as_batch(SPACE, {"arm": [[[0, 0], [1, 1]], [5, 7]], "lamp": [0, 0]})


def test_a_group_gives_records_and_goes_on_from_its_state():
    action_space = spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float32)])
    spec, found = resolve(Parts, {"action_space": action_space}), codec(action_space)

    def actions(t):
        rows = np.empty(2, found.dtype)
        found.put(rows, ([t % 3, (t + 1) % 3], np.full((2, 2), 0.1 * t)))
        return rows

    with (
        EnvGroup(spec, size=2, first_index=0, run_seed=3) as group,
        EnvGroup(spec, size=2, first_index=0, run_seed=3) as other,
    ):
        assert group.reset()["image"].shape == (2, 9, 8, 1)
        for t in range(4):
            group.step(actions(t))
        other.restore(group.state())
        for t in range(4, 9):
            one, two = group.step(actions(t)), other.step(actions(t))
            assert one.observations.tobytes() == two.observations.tobytes()
            assert one.rewards.tolist() == two.rewards.tolist()


def test_an_observation_that_does_not_fit_is_refused_where_it_happens():
    class Wrong(Parts):
        def step(self, action):
            observation, *rest = super().step(action)
            return observation | {"symbol": 9}, *rest

    with EnvGroup(resolve(Wrong), size=1, first_index=0, run_seed=0) as group:
        group.reset()
        with pytest.raises(EnvContractError, match=r"step\(\) returned observation\['symbol'\] = 9; .* from 1 to 3"):
            group.step(np.array([0]))


def test_parts_of_unknown_kinds_are_refused():
    with pytest.raises(InputError, match=r"observation space Text.*encode the text"):
        codec(spaces.Dict({"word": spaces.Text(3)}), "observation")
