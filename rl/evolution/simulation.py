"""The task that plays: a share of a generation's episodes, in environments of its own.

What it returns is a function of its arguments alone, so whichever process runs it, and however often one that died is
replaced, the numbers are the same. Its environments live as long as it does: they are made from new, so that nothing
they carry from one episode into the next can depend on where it ran before, and closed at its end.

    rows of the group       each plays one episode after another, as `_Seats` hands them out: who is done early
                            takes the next policy, so a row never waits for the longest episode but at the end
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...envs import EnvGroup, EnvSpec, Episode, GroupStep, derive_seed, own_generators
from ..chaos import Death
from ..collect.channel import Channel
from ..lazy import load, torch
from ..models.joint_spec import AnySpec
from ..settings import RunSettings
from ..threads import limit_threads
from .noise import SearchSpace

if TYPE_CHECKING:
    from .players import Players


@dataclass(frozen=True)
class Simulation:
    """What all tasks of a training are told; it lies in the object store once."""

    spec: EnvSpec
    model_spec: AnySpec
    settings: RunSettings
    space: SearchSpace
    channel: Channel


@dataclass(frozen=True)
class Part:
    """One episode that is to be played."""

    pair: int | None
    """The direction, in this share, that the policy is moved along; None: it stays as it is."""
    sign: int
    """+1, −1, or 0."""
    attempt: int
    """Which of that policy's episodes."""
    environment: int
    """Logical index of the environment: with `episode` it decides the seed."""
    episode: int


@dataclass(frozen=True)
class Order:
    """What one task is to play."""

    generation: int
    share: int
    """Which of the generation's shares."""
    directions: np.ndarray
    """Where in the noise table each of its pairs' ε begins, [pairs] int64."""
    scale: float
    """σ: the policies are those of θ ± σ ε."""
    parts: Sequence[Part]
    """The episodes."""
    death: Death | None = None
    """Whether the process is to die, and at which step."""


@dataclass(frozen=True)
class Share:
    """What a share of a generation returned."""

    returns: np.ndarray
    """Of the perturbed policies, [policies, pairs, 2, episodes of each] float64: θ + σε first, then θ − σε."""
    lengths: np.ndarray
    """Steps of these episodes, [pairs, 2, episodes of each] int64."""
    episodes: list[Episode]
    """Those of the policy as it is."""
    moments: dict[str, Any]
    """Statistics of what the perturbed policies saw, by policy; empty where observations are not normalized."""
    environment_seconds: float
    inference_seconds: float
    making_seconds: float
    """Spent on making the environments and the model."""


@dataclass
class _Results:
    """What is gathered while a share is played."""

    returns: np.ndarray
    lengths: np.ndarray
    episodes: list[Episode] = field(default_factory=list)

    def note(self, part: Part, episode: Episode, scores: Sequence[float]) -> None:
        """Write down an episode."""
        if part.pair is None:
            self.episodes.append(episode)
            return
        place = part.pair, int(part.sign < 0), part.attempt
        self.returns[:, *place], self.lengths[place] = scores, episode.length


class _Seats:
    """Which policy plays in which row of a group. `weights_of` gives a part's weights."""

    def __init__(
        self, parts: Sequence[Part], rows: int, players: Players, weights_of: Callable[[Part], np.ndarray]
    ) -> None:
        self._waiting = list(reversed(parts))
        self._players, self._weights_of = players, weights_of
        self._before: list[Part | None] = [None] * rows
        self._begun = [(0, 0)] * rows
        self.playing: list[Part | None] = [None] * rows

    def next_episode(self, row: int) -> tuple[int, int]:
        """Seat the next policy in a row that begins an episode: logical indices of environment and episode."""
        self._before[row], self.playing[row] = self.playing[row], None
        if self._waiting:
            part = self.playing[row] = self._waiting.pop()
            self._players.seat(row, self._weights_of(part))
            self._begun[row] = part.environment, part.episode
        return self._begun[row]  # a group steps all its rows: one that is done begins its last episode again

    def ended(self, row: int) -> Part | None:
        """Whose episode has just ended in a row; None: one that does not count."""
        return self._before[row]

    @property
    def perturbed(self) -> np.ndarray:
        """[rows] bool: where a perturbed policy plays."""
        return np.array([part is not None and part.pair is not None for part in self.playing])


def play(simulation: Simulation, noise: np.ndarray, weights: np.ndarray, order: Order) -> Share:
    """Play a share of a generation; `weights` are θ, flat, `noise` is the noise table."""
    settings, parts = simulation.settings, order.parts
    limit_threads(settings.threads)
    if settings.step_timeout is not None:
        simulation.channel.raise_reported(order.share)
    with own_generators(derive_seed(settings.seed, "global generators", order.share, order.generation)):
        began = time.perf_counter()
        rows = min(settings.environments_per_group, len(parts))
        players = load("make_players")(simulation.model_spec, rows, weights)

        def weights_of(part: Part) -> np.ndarray:
            if part.pair is None:
                return weights
            direction = int(order.directions[part.pair])
            return simulation.space.perturbed(weights, noise, direction, part.sign * order.scale)

        seats = _Seats(parts, rows, players, weights_of)
        attempts = 1 + max((part.attempt for part in parts), default=0)
        shape = (len(order.directions), 2, attempts)
        results = _Results(np.zeros((len(simulation.space.policies), *shape)), np.zeros(shape, np.int64))
        with _group(simulation, order.share, rows, seats) as group:
            group.reset()
            making = time.perf_counter() - began
            inference, stepping = _play(players, group, seats, results, death=order.death)
    return Share(results.returns, results.lengths, results.episodes, players.moments(), stepping, inference, making)


def _group(simulation: Simulation, index: int, rows: int, seats: _Seats) -> EnvGroup:
    settings, channel = simulation.settings, simulation.channel
    return EnvGroup(
        simulation.spec,
        size=rows,
        first_index=index * settings.environments_per_group,
        run_seed=settings.seed,
        check=settings.check,
        step_timeout=settings.step_timeout,
        end_process=functools.partial(_end_process, channel, index) if channel.between_processes else None,
        next_episode=seats.next_episode,
        most_action_bytes=settings.recorded_action_bytes,
    )


def _play(
    players: Players, group: EnvGroup, seats: _Seats, results: _Results, *, death: Death | None
) -> tuple[float, float]:
    """Step the group until all have played; seconds spent on inference and in the environments."""
    steps, inference, stepping = 0, 0.0, 0.0
    with torch.inference_mode():
        while any(part is not None for part in seats.playing):
            begin = time.perf_counter()
            observations = group.observations
            players.see(observations, seats.perturbed)
            actions = players.act(observations)
            chosen = time.perf_counter()
            step = group.step(actions)
            stepping += time.perf_counter() - chosen
            _note_ended(step, players, seats, results)
            inference += chosen - begin
            if death is not None:
                death.at(steps)
            steps += 1
    return inference, stepping


def _note_ended(step: GroupStep, players: Players, seats: _Seats, results: _Results) -> None:
    if step.episodes:
        rows = np.flatnonzero(step.terminations | step.truncations).tolist()
        for row, episode in zip(rows, players.episodes(step), strict=True):
            part = seats.ended(row)
            if part is not None:
                results.note(part, episode, players.scores(episode))


def _end_process(channel: Channel, index: int, report: str) -> None:
    """Leave a report for the task's next try, and end: nothing else ends code that does not return."""
    channel.report(index, report)
    os._exit(1)
