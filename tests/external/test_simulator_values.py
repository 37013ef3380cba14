"""Observations and actions as the protocol writes them, and what a simulator may say of its spaces."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from shoal.envs import codec, space_to_json
from shoal.envs.external.space_difference import space_difference
from shoal.envs.external.values import decode, encode, encode_numbers, longest_message, to_row
from shoal.envs.proto.shoal_simulators_pb2 import ActRequest, Array, Items, Parts, Value

BOX = spaces.Box(-1, 1, (2, 3), np.float32)
SPACES = [
    BOX,
    spaces.Box(0, 255, (4, 4, 3), np.uint8),
    spaces.Box(-5, 5, (), np.float64),
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(4),
    spaces.Dict({"b": BOX, "a": spaces.Tuple([spaces.Discrete(2), spaces.MultiBinary(2)])}),
]


@pytest.mark.parametrize("write", [encode, encode_numbers])
@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_an_element_comes_back_as_it_was(space, write):
    space.seed(1)
    element, found = space.sample(), codec(space)
    message = write(element).SerializeToString()
    again = decode(Value.FromString(message), found)
    assert to_row(again, found).tobytes() == to_row(element, found).tobytes()
    assert found.problem(again) is None
    assert len(ActRequest(session="x" * 16, step=1 << 40, reward=1.0).SerializeToString()) + len(message) < (
        longest_message(found) + 100
    )


def test_numbers_and_lists_are_cast_and_need_no_shape():
    array = decode(encode([[1, 2, 3], [4, 5, 6]]), codec(BOX))
    assert array.dtype == np.float32
    assert array.tolist() == [[1, 2, 3], [4, 5, 6]]
    flat = Value(array=Array(numbers=[1, 2, 3, 4, 5, 6]))
    np.testing.assert_array_equal(decode(flat, codec(BOX)), array)
    assert decode(encode(1), codec(spaces.Discrete(2))) == 1


def numbers(*values, shape=()):
    return Value(array=Array(numbers=values, shape=shape))


@pytest.mark.parametrize(
    ("value", "space", "message"),
    [
        (encode(np.zeros(4, np.float32)), BOX, r"observation is of shape \(4\); Box\(2, 3\).*wants \(2, 3\)"),
        (encode(np.zeros((2, 3))), BOX, "has dtype 'float64'; .* wants 'float32' for bytes"),
        (Value(array=Array(dtype="float32", shape=[2, 3], data=b"123")), BOX, "has 3 bytes of data; .* wants 24"),
        (Value(array=Array(dtype="float32", shape=[2, 3], data=bytes(24), numbers=[1])), BOX, "and numbers beside"),
        (numbers(1, 2), BOX, r"is of shape \(\)"),
        (numbers(1, 2, shape=[2, 3]), BOX, "has 2 numbers; .* wants 6"),
        (numbers(shape=[1 << 40] * 30), BOX, r"is of shape \(1099511627776, .*, …\)"),
        (Value(), BOX, "observation is nothing; .* wants an array"),
        (encode({"a": 1}), BOX, "observation is named parts; .* wants an array"),
        (numbers(1.5), spaces.Discrete(3), r"number 0 is 1.5; Discrete\(3\) wants whole ones"),
        (numbers(float("nan")), spaces.Discrete(3), "number 0 is nan"),
        (numbers(300), spaces.Box(0, 255, (), np.uint8), "number 0 is 300"),
        (encode({"b": 1}), SPACES[-1], "observation has the parts 'b'; wanted are 'a', 'b'"),
        (encode((1, 2)), SPACES[-1], "observation is a list of items; .* wants named parts"),
        (encode({"b": np.zeros((2, 3), np.float32), "a": (0,)}), SPACES[-1], r"observation\['a'\] has 1 items"),
        (
            encode({"b": np.zeros((2, 3), np.float32), "a": (0, [0, 0, 0])}),
            SPACES[-1],
            r"observation\['a'\]\[1\] is of shape \(3\)",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_part_and_what_is_wanted(value, space, message):
    with pytest.raises(ValueError, match=message):
        decode(value, codec(space))


def test_what_is_deeper_than_the_space_is_never_read():
    value = Value()
    for _ in range(40):
        value = Value(items=Items(items=[value]))
    with pytest.raises(ValueError, match="observation is a list of items"):
        decode(value, codec(BOX))
    with pytest.raises(ValueError, match="and 95 more"):
        decode(Value(parts=Parts(parts={str(key): value for key in range(100)})), codec(SPACES[-1]))


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_a_space_is_that_which_it_is(space):
    assert space_difference(json.dumps(space_to_json(space)), space, "action") is None


@pytest.mark.parametrize(
    ("said", "space", "message"),
    [
        ('{"type": "Box", "shape": [3]}', BOX, r"observation_space.shape is \[3\]; wanted is \[2, 3\].*Box\(2, 3\)"),
        ('{"type": "Discrete", "n": 3}', BOX, 'observation_space.type is "Discrete"; wanted is "Box"'),
        ('{"type": "Discrete", "n": 4}', spaces.Discrete(3), "observation_space.n is 4; wanted is 3"),
        ("[1]", BOX, r"observation_space is \[1\], which describes no space"),
        ("{", BOX, "which is no JSON; wanted is such as"),
        ("[" * 100_000, BOX, "which is no JSON"),
        ('{"type": "Dict", "spaces": {"a": {}}}', SPACES[-1], r"parts is \[\"a\"\]; wanted is \[\"a\", \"b\"\]"),
        ('{"type": "Dict", "spaces": {"a": {}, "b": {"dtype": "int8"}}}', SPACES[-1], r"\['b'\].dtype is \"int8\""),
        ('{"type": "Dict", "spaces": {"b": {}, "a": {"spaces": [{}]}}}', SPACES[-1], r"\['a'\].spaces is \[{}\]"),
    ],
)
def test_what_a_simulator_says_otherwise_of_its_space_is_told(said, space, message):
    found = space_difference(said, space, "observation")
    assert re.search(message, found), found


def test_what_is_left_out_or_said_otherwise_of_bounds_of_observations_is_no_difference():
    assert space_difference('{"type": "Box", "shape": [2, 3], "low": "-inf"}', BOX, "observation") is None
    assert space_difference('{"type": "Discrete", "n": 3}', spaces.Discrete(3), "action") is None
    assert space_difference('{"low": -1}', BOX, "action") is None
    assert "action_space.low is -2" in space_difference('{"low": -2}', BOX, "action")
    assert "action_space.low" in space_difference('{"low": {"a": 1}}', BOX, "action")


@pytest.mark.slow
def test_the_generated_code_is_that_of_the_protocol(tmp_path):
    folder = Path(__file__).parents[2] / "envs" / "proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(folder), f"--python_out={tmp_path}"]
    subprocess.run([*command, f"--pyi_out={tmp_path}", "shoal_simulators.proto"], check=True)
    for made in tmp_path.iterdir():
        assert made.read_text() == (folder / made.name).read_text(), "run `make proto`"
