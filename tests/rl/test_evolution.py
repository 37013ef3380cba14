"""The parts of a search without gradients, by numbers worked out by hand."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from agents_envs import Crowd
from gymnasium import spaces

from shoal import runtime
from shoal.envs import Episode, codec, resolve
from shoal.rl import ModelSpec, build_model
from shoal.rl.data.moments import ObservationMoments
from shoal.rl.evolution.aggregation import LEAF, tree_sum, weighted_noise
from shoal.rl.evolution.noise import SearchSpace, noise_table
from shoal.rl.evolution.players import make_players
from shoal.rl.evolution.population import Population
from shoal.rl.evolution.run import observed, parts_of_share
from shoal.rl.evolution.simulation import Part, _Seats
from shoal.rl.models.joint_model import JointModel
from shoal.rl.models.joint_spec import JointSpec, joint_layout
from shoal.rl.models.layout import ParameterLayout

SPEC = ModelSpec("actor", spaces.Box(-1, 1, (2,)), spaces.Discrete(1), {"net_arch": []}, normalized=True)
LAYOUT = ParameterLayout({"normalizer.means.0": (2,), "normalizer.scales.0": (2,), "pi.layers.0.weight": (1, 2)})


def test_the_noise_table_is_one_and_the_same_for_a_seed():
    table = noise_table(3, 1000)
    assert table.dtype == np.float32
    assert table.tobytes() == noise_table(3, 1000).tobytes()
    assert table.tobytes() != noise_table(4, 1000).tobytes()
    assert abs(table.mean()) < 0.1
    assert abs(table.std() - 1) < 0.1


def test_statistics_of_observations_are_not_searched():
    space = SearchSpace.of(SPEC, LAYOUT)
    assert space.width == 2
    assert space.policies["policy"].weights == slice(4, 6)
    noise = np.array([10, 20, 30], np.float32)
    weights = np.array([0, 0, 1, 1, 5, 6], np.float32)
    assert space.perturbed(weights, noise, 1, 0.5).tolist() == [0, 0, 1, 1, 15, 21]
    assert space.perturbed(weights, noise, 1, -0.5).tolist() == [0, 0, 1, 1, -5, -9]
    assert weights.tolist() == [0, 0, 1, 1, 5, 6]


def test_policies_that_learn_lie_side_by_side_in_a_direction_and_statistics_and_frozen_ones_do_not():
    plain = dataclasses.replace(SPEC, normalized=False)
    spec = JointSpec({"x": SPEC, "y": plain, "z": plain}, {"a": "x", "b": "y", "c": "z", "d": "x"}, frozen=("y",))
    own = ParameterLayout({"pi.layers.0.weight": (1, 2)})
    space = SearchSpace.of(spec, joint_layout({"x": LAYOUT, "y": own, "z": own}))
    found = {name: (one.weights, one.noise) for name, one in space.policies.items()}
    assert found == {"x": (slice(4, 6), slice(0, 2)), "z": (slice(8, 10), slice(2, 4))}
    noise = np.array([9, 1, 2, 3, 4], np.float32)
    assert space.perturbed(np.zeros(10, np.float32), noise, 1, 2.0).tolist() == [0, 0, 0, 0, 2, 4, 0, 0, 6, 8]


def test_each_agent_acts_by_the_weights_of_its_policy_in_its_environment():
    """Three environments with weights of their own, as three `JointModel`s would choose; what those see that act is
    counted."""
    env = resolve(Crowd, {"reborn": True}).make()
    actor = ModelSpec("actor", env.observation_space.agent_spaces["a"], env.action_space["a"], {}, normalized=True)
    spec = JointSpec({"pair": actor, "one": actor}, {"a": "pair", "b": "one", "c": "pair"})
    model, noise = JointModel(spec), noise_table(0, 20_000)
    space, begun = SearchSpace.of(spec, model.layout), model.get_weights()
    weights = [space.perturbed(begun, noise, start, 1.0) for start in (0, 17, 99)]
    players = make_players(spec, 3, weights[0])
    for row, flat in enumerate(weights):
        players.seat(row, flat)
    observations = np.zeros(3, codec(env.observation_space).dtype)
    for row in range(3):
        observations[row] = codec(env.observation_space).pack(env.reset(seed=row)[0])
    found = players.act(observations)
    for row, flat in enumerate(weights):
        model.set_weights(flat)
        for agent, name in spec.mapping.items():
            own = model.models[name]
            with torch.inference_mode():
                outputs = own.outputs(own.encode(observations["agents"][agent][row : row + 1].copy()))
            assert found[agent][row] == own.choose(outputs, None).item()
    players.see(observations, np.array([True, False, True]))  # c is not there at the beginning
    moments = players.moments()
    assert [moments[name][""]["count"] for name in ("pair", "one")] == [2, 2]
    np.testing.assert_allclose(moments["one"][""]["mean"], observations["agents"]["b"][[0, 2]].mean(0))
    assert players.scores(Episode(0, 0, 9.0, 12, 0, 12, agents={"a": 1.0, "b": 3.0, "c": 5.0})) == [6.0, 3.0]


def test_directions_reach_from_the_first_to_the_last_place_in_the_table():
    space = SearchSpace.of(SPEC, LAYOUT)
    starts = space.directions(0, 7, 1000, table_size=5)
    assert set(starts.tolist()) == {0, 1, 2, 3}  # 5 − 2: the last slice ends with the table
    assert starts.tolist() != space.directions(0, 8, 1000, table_size=5).tolist()


def test_a_weighted_sum_of_noise():
    noise = np.array([1, 2, 4, 8], np.float32)
    assert weighted_noise(noise, np.array([0, 2]), np.array([10.0, -1.0]), 2).tolist() == [10 - 4, 20 - 8]


@pytest.mark.parametrize("count", [1, LEAF, LEAF + 1, 5 * LEAF + 3])
def test_the_tree_adds_as_one_sum_does(engine, count):
    noise = noise_table(0, 10_000)
    draw = np.random.default_rng(count)
    directions, coefficients = draw.integers(0, 9_990, count), draw.normal(size=count)
    coefficients[1::3] = 0
    expected = sum(c * noise[d : d + 10].astype(np.float64) for d, c in zip(directions, coefficients, strict=True))
    found = tree_sum(runtime.put(noise), directions, coefficients, 10, {})
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_a_sum_of_nothing(engine):
    assert tree_sum(runtime.put(np.ones(4, np.float32)), np.array([0]), np.zeros(1), 3, {}).tolist() == [0, 0, 0]


@pytest.mark.parametrize("shares", [1, 2, 5])
def test_shares_are_all_of_a_generation_once(shares):
    moved, scores = [], []
    for share in range(shares):
        for part in parts_of_share(share, shares, 5, attempts=2, scores=3, generation=4):
            if part.pair is None:
                scores.append(part.environment)
            else:
                moved.append((range(share, 5, shares)[part.pair], part.sign, part.attempt))
    assert sorted(moved) == sorted(itertools.product(range(5), (1, -1), range(2)))
    assert sorted(scores) == [2, 3, 4]


def test_all_policies_of_a_generation_begin_alike_and_those_of_the_next_one_elsewhere():
    first, second = (parts_of_share(0, 1, 3, attempts=2, scores=2, generation=generation) for generation in (4, 5))
    begins = {(part.environment, part.episode) for part in first if part.pair is not None}
    assert begins == {(0, 4), (1, 4)}
    assert all(part.environment == part.attempt for part in first if part.pair is not None)
    assert [(part.environment, part.episode) for part in first if part.pair is None] == [(2, 4), (3, 4)]
    assert {part.episode for part in second} == {5}


class Placed:
    """Writes down whose weights each row has."""

    def __init__(self, rows):
        self.weights = [None] * rows

    def seat(self, row, flat):
        self.weights[row] = flat


def test_a_row_that_is_done_takes_the_next_policy():
    first, second, third = (Part(pair, 1, 0, pair, 9) for pair in range(3))
    players = Placed(2)
    seats = _Seats([first, second, third], 2, players, lambda part: part.pair)
    assert [seats.next_episode(0), seats.next_episode(1)] == [(0, 9), (1, 9)]
    assert seats.next_episode(1) == (2, 9)
    assert (seats.ended(1), seats.playing, players.weights) == (second, [first, third], [0, 2])
    assert seats.next_episode(0) == (0, 9)  # nobody waits any more: it plays the same again
    assert (seats.ended(0), seats.playing) == (first, [None, third])
    assert seats.next_episode(0) == (0, 9)
    assert seats.ended(0) is None  # which does not count
    assert seats.perturbed.tolist() == [False, True]


@pytest.mark.parametrize("observation", [spaces.Box(-1, 1, (3,)), spaces.Box(0, 255, (36, 36, 1), np.uint8)])
@pytest.mark.parametrize("hidden", [[], [5, 4]])
def test_each_policy_of_a_population_sees_its_own_row(observation, hidden):
    chosen = {"net_arch": hidden}
    if observation.dtype == np.uint8:
        chosen["encoder_kwargs"] = {"features": 6, "channels": [2, 2, 2]}
    model = build_model(ModelSpec("actor", observation, spaces.Discrete(4), chosen))
    draw = np.random.default_rng(0)
    weights = draw.normal(size=(3, model.layout.size)).astype(np.float32)
    population = Population(model, 3)
    for row, flat in enumerate(weights):
        population.set_weights(row, flat)
    rows = np.stack([draw.uniform(0, 1, observation.shape) for _ in range(3)])
    rows = (rows * 255 if observation.dtype == np.uint8 else rows).astype(observation.dtype)
    with torch.inference_mode():
        found = population.outputs(model.encode(rows))
        for row, flat in enumerate(weights):
            model.set_weights(flat)
            torch.testing.assert_close(found[row : row + 1], model.outputs(model.encode(rows[row : row + 1])))


def test_a_population_does_not_choose_what_is_forbidden():
    masked = spaces.Dict([("observation", spaces.Box(-1, 1, (1,))), ("action_mask", spaces.MultiBinary(3))])
    model = build_model(ModelSpec("actor", masked, spaces.Discrete(3), {"net_arch": []}))
    rows = np.zeros(2, [("observation", np.float32, (1,)), ("action_mask", np.int8, (3,))])
    rows["action_mask"] = [[0, 1, 0], [0, 0, 1]]
    with torch.inference_mode():
        chosen = model.choose(Population(model, 2).outputs(model.encode(rows)), None)
    assert chosen.tolist() == [1, 2]


def test_statistics_of_shares_are_those_of_all_their_observations():
    spec = ModelSpec("actor", spaces.Box(-10, 10, (1,)), spaces.Discrete(2), {}, normalized=True)
    states = []
    for values in ([1.0, 3.0], [], [8.0]):
        share = ObservationMoments(spec.observation_space)
        if values:
            share.merge(np.array(values, np.float32).reshape(-1, 1))
        states.append(share.state())
    first = observed(spec, None, states)
    assert first.scales()[""][0].tolist() == [4.0]
    assert first.scales()[""][1] ** -2 == pytest.approx([(9 + 1 + 16) / 3])
    later = observed(spec, first.state(), states[2:])  # another 8: mean 5, squares 16 + 4 + 9 + 9
    assert later.scales()[""][0].tolist() == [5.0]
    assert later.scales()[""][1] ** -2 == pytest.approx([(16 + 4 + 9 + 9) / 4])
