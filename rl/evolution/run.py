"""What a search runs on: tasks of the runtime, and two objects in its store that all of them read.

    driver ──▶ play, play, …      a share of the generation each, `workers` at a time        ──▶ returns
           ──▶ a tree of sums     Σ c_i ε_i over the directions, from the shared noise table ──▶ one array
           ──▶ the next weights, put into the store

There is no actor. A task whose process dies is run again by the runtime, and gives the same.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ... import runtime
from ...envs import Episode
from ...runtime import InputError, ObjectRef, exceptions, get
from ..agents import initial_weights
from ..collect.channel import Channel
from ..data.moments import ObservationMoments
from ..initial_weights import named_weights
from ..lazy import load
from ..learn.log import LearnerLog, Piece
from ..models.joint_spec import AnySpec, JointSpec
from ..models.layout import ParameterLayout
from ..models.spec import ModelSpec
from ..run import CLOSE_SECONDS, RETRIES, Run, note_on_deaths
from ..threads import limit_threads
from ..training_state import TrainingState
from .aggregation import tree_sum
from .noise import SearchSpace, noise_table
from .simulation import Order, Part, Share, Simulation, play

TASKS: dict[str, Any] = {"max_retries": RETRIES}

logger = logging.getLogger("shoal")


@dataclass(frozen=True)
class Generation:
    """What the policies of one generation returned."""

    directions: np.ndarray
    """Where in the noise table each pair's ε begins, [pairs] int64."""
    returns: np.ndarray
    """[policies, pairs, 2, episodes of each] float64: of θ + σε, then of θ − σε, for each policy that is searched."""
    lengths: np.ndarray
    """Steps of these episodes, [pairs, 2, episodes of each] int64."""
    episodes: list[Episode]
    """Those of θ itself."""
    moments: tuple[dict[str, Any], ...]
    """Statistics of what the perturbed policies saw, by policy, in the order of shares."""
    times: dict[str, float]

    @property
    def timesteps(self) -> int:
        """Environment steps in them."""
        return int(self.lengths.sum()) + sum(episode.length for episode in self.episodes)


def describe_model(spec: AnySpec, seed: int, threads: int) -> tuple[np.ndarray, ParameterLayout]:
    """Initial flat weights of a model or of several, and their layout: a task, since the driver does not import
    torch."""
    limit_threads(threads)  # also orthogonal weights come from a sum whose bits depend on it
    model = load("JointModel" if isinstance(spec, JointSpec) else "build_model")(spec, seed=seed)
    return model.get_weights(), model.layout


def parts_of_share(share: int, shares: int, pairs: int, *, attempts: int, scores: int, generation: int) -> list[Part]:
    """The episodes of one of `shares`: of every so many-th of the pairs, and of the scores of θ itself.

    All policies of a generation begin in the same states, a generation later in others: environment k is that of
    everybody's k-th episode. So they are compared with each other, not the states that they happened to begin in. The
    scores come after.
    """
    parts = [
        Part(at, sign, attempt, attempt, generation)
        for at, _ in enumerate(range(share, pairs, shares))
        for attempt in range(attempts)
        for sign in (1, -1)
    ]
    return parts + [Part(None, 0, 0, attempts + score, generation) for score in range(share, scores, shares)]


class EvolutionRun(Run):
    """The tasks of one search. Its config is an `EvolutionConfig`."""

    @cached_property
    def _described(self) -> tuple[np.ndarray, ParameterLayout]:
        describe = runtime.remote(describe_model).options(**TASKS)
        found: tuple[np.ndarray, ParameterLayout] = get(
            describe.remote(self._model_spec, self.settings.seed, self.settings.threads)
        )
        return found

    @cached_property
    def space(self) -> SearchSpace:
        """What of the weights is searched."""
        return SearchSpace.of(self._model_spec, self._described[1])

    @property
    def description(self) -> tuple[np.ndarray, ParameterLayout, str]:
        """Initial weights, layout; all is done on the CPU."""
        return self._begun, self._described[1], "cpu"

    @cached_property
    def _begun(self) -> np.ndarray:
        weights, layout = self._described
        begun = weights.copy()
        for own in self.space.policies.values():
            begun[own.weights] = self._algorithm.begin(weights[own.weights], self.config)
        for name, values in self._given(layout).items():
            layout.views(begun)[name][...] = values
        return begun

    def _given(self, layout: ParameterLayout) -> dict[str, np.ndarray]:
        """Parameters that the search begins with, by name, where settings name them."""
        spec = self._model_spec
        given = named_weights(spec, self.settings)
        if isinstance(spec, JointSpec):
            for policy, flat in initial_weights(spec, self.settings).items():
                own = {name: shape for name, shape in layout.shapes.items() if name.startswith(f"{policy}.")}
                given |= ParameterLayout(own).views(flat)
        return given

    @cached_property
    def noise(self) -> ObjectRef:
        """The noise table."""
        size = self.config.noise_table_size
        if size < self.space.width:
            raise InputError(
                f"noise_table_size is {size:,}, but {self.space.width:,} weights are searched: it must hold at least "
                "one perturbation, and should hold many that do not overlap"
            )
        return runtime.put(noise_table(self.settings.seed, size))

    @cached_property
    def shares(self) -> int:
        """Tasks that play a generation: one for each simulation group, and at most one for each pair."""
        shares = min(self.settings.groups, self.config.n_delta)
        if self.settings.workers > shares:
            logger.warning(
                "%d of %d workers stay idle: a generation is played in %d shares. More simulation groups make more: "
                "n_envs is %d, group_size %d",
                self.settings.workers - shares,
                self.settings.workers,
                shares,
                self.settings.n_envs,
                self.settings.environments_per_group,
            )
        return shares

    @cached_property
    def _simulation(self) -> ObjectRef:
        return runtime.put(Simulation(self._spec, self._model_spec, self.settings, self.space, Channel()))

    def initial_state(self) -> TrainingState:
        """With nothing remembered."""
        state = super().initial_state()
        return replace(state, learner=LearnerLog(0, runtime.put({"memory": {}, "moments": {}})))

    def snapshot(self, state: TrainingState) -> tuple[dict[str, Any], tuple[Piece, ...]]:
        """What the search remembers beside the weights."""
        assert state.learner.snapshot is not None
        return {**get(state.learner.snapshot), "replay": None}, ()

    def play(self, state: TrainingState, scale: float) -> Generation:
        """Play the generation that follows `state`: pairs of θ ± `scale` · ε, and θ itself. Raises what the environment
        raised."""
        config, generation, shares, noise = self.config, state.iteration, self.shares, self.noise
        directions = self.space.directions(self.settings.seed, generation, config.n_delta, config.noise_table_size)
        orders = []
        for share in range(shares):
            parts = parts_of_share(
                share,
                shares,
                config.n_delta,
                attempts=config.delta_episodes,
                scores=config.score_episodes,
                generation=generation,
            )
            rounds = -(-len(parts) // min(self.settings.environments_per_group, len(parts)))  # so many steps, at least
            death = self.deaths.of_worker(generation, share, call=0, calls=1, steps=rounds)
            orders.append(Order(generation, share, directions[share::shares], scale, parts, death))
        return _gathered(directions, self._play_all((self._simulation, noise, state.weights.ref), orders))

    def _play_all(self, given: Sequence[ObjectRef], orders: Sequence[Order]) -> list[Share]:
        """Results of tasks that get `given` and an order each, `workers` of them at a time; in the order of orders."""
        task = runtime.remote(play).options(**TASKS)
        waiting = list(reversed(orders))
        running: dict[ObjectRef, int] = {}
        found: dict[int, Share] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.settings.workers:
                    order = waiting.pop()
                    running[task.remote(*given, order)] = order.share
                ready, _ = runtime.wait(list(running), num_returns=1)
                for ref in ready:
                    found[running.pop(ref)] = self._result(ref)
        finally:
            _end(list(running))
        return [found[index] for index in range(len(orders))]

    def _result(self, ref: ObjectRef) -> Share:
        try:
            share: Share = get(ref)
        except exceptions.WorkerCrashedError as error:
            note_on_deaths(error, "episodes", self._spec.id)
            raise
        return share

    def weighted_noise(self, policy: str, directions: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """Σ c_i ε_i over directions, of the part that moves a policy: [its weights searched] float64."""
        own = self.space.policies[policy]
        return tree_sum(self.noise, directions + own.noise.start, coefficients, own.width, TASKS)

    def end_actors(self) -> None:
        """Nothing: there are none, and a task's environments end with it."""


def _end(running: list[ObjectRef]) -> None:
    """End tasks that nobody waits for any more: they close their environments, in 10 s at most."""
    for ref in running:
        runtime.cancel(ref)
    if running:
        _, still = runtime.wait(running, num_returns=len(running), timeout=CLOSE_SECONDS)
        for ref in still:
            runtime.cancel(ref, force=True)
    for ref in running:
        with contextlib.suppress(Exception):  # why they are ended is being raised; their own ends are no news
            get(ref)


def _gathered(directions: np.ndarray, shares: Sequence[Share]) -> Generation:
    """The shares of a generation as one; pair i was played by share i % shares."""
    count, (first, *_) = len(shares), shares
    policies, _, *each = first.returns.shape
    returns, lengths = np.empty((policies, len(directions), *each)), np.empty((len(directions), *each), np.int64)
    for index, share in enumerate(shares):
        returns[:, index::count], lengths[index::count] = share.returns, share.lengths
    episodes = sorted((episode for share in shares for episode in share.episodes), key=lambda found: found.environment)
    return Generation(
        directions=directions,
        returns=returns,
        lengths=lengths,
        episodes=episodes,
        moments=tuple(share.moments for share in shares),
        times={
            "time/environment_seconds": sum(share.environment_seconds for share in shares),
            "time/inference_seconds": sum(share.inference_seconds for share in shares),
            "time/restore_seconds": sum(share.making_seconds for share in shares),
        },
    )


def observed(spec: ModelSpec, so_far: dict[str, Any] | None, new: Sequence[dict[str, Any]]) -> ObservationMoments:
    """Statistics of all observations so far and of a generation's, whose shares are added one after another."""
    moments = ObservationMoments(spec.observation_space)
    if so_far is not None:
        moments.load(so_far)
    for state in new:
        share = ObservationMoments(spec.observation_space)
        share.load(state)
        moments.join(share)
    return moments
