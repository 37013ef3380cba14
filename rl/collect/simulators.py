"""The worker of simulators outside: an actor that they connect to, and that writes what they live through as rollouts.

    collect(group, …) → (rollout, …)          as a `RolloutWorker`'s; but nothing here steps an environment

Simulators take their time, come and go. So a rollout is not so many steps of each, but so many transitions of
whichever run: session by session, each cut off where the rollout ends, as every rollout is cut at its end. Nobody waits
for a slow simulator, and one that vanishes costs the step whose outcome it did not tell.

Who asks for an action when the rollout is full waits for the next weights. What an algorithm that records how its own
policy acted cannot learn from is left out, and cuts a session's steps in two: an action that the simulator chose
itself, and one of older weights, whose outcome came too late for its own rollout (one for each session that runs beside
the one that fills it).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...envs import (
    Endpoint,
    EnvSpec,
    Episode,
    Refusal,
    SimulatorAnswer,
    SimulatorHub,
    SimulatorServer,
    SimulatorTransition,
    SimulatorTurn,
    stream,
)
from ...runtime import method
from ..clock import Clock
from ..data.batch import Batch
from ..data.columns import rollout_columns
from ..data.rollout import Rollout
from ..data.tree import as_array
from ..declaration import Collecting
from ..lazy import load, torch
from ..models.spec import ModelSpec
from ..settings import RunSettings
from ..threads import limit_threads, limit_torch_threads
from .channel import Channel
from .records import finish_rollout
from .rollout_stats import RolloutStats
from .worker import GroupProgress

if TYPE_CHECKING:
    from ..models.model import Model

_POLL_SECONDS = 0.5
_FIRST_SAID, _SAID_EVERY = 10.0, 30.0
"""Seconds without a request after which it is said that no simulator asks, again and again."""

logger = logging.getLogger("shoal")


@dataclass(frozen=True)
class NoState:
    """In the place of a group's state: simulators outside have none to give."""

    def to_arrays(self) -> tuple[dict[str, np.ndarray], None]:
        """Return nothing."""
        return {}, None


@dataclass(frozen=True, slots=True)
class _Acted:
    """What is kept of an action until its outcome is told."""

    actions: np.ndarray
    """As the model gave it."""
    records: Mapping[str, np.ndarray]
    version: int
    """Of the weights that chose it."""


class SimulatorWorker:
    """Actor class; arguments as of `RolloutWorker`, but simulators connect to `endpoint`."""

    def __init__(
        self,
        algorithm: type[Collecting],
        config: Any,
        *,
        spec: EnvSpec,
        model_spec: ModelSpec,
        settings: RunSettings,
        endpoint: Endpoint,
        channel: Channel,
    ) -> None:
        limit_threads(settings.threads)
        self._algorithm, self._config = algorithm, config
        self._model_spec, self._settings, self._channel = model_spec, settings, channel
        self._rows = algorithm.rollout_steps(config) * settings.environments_per_group
        self._columns = rollout_columns(model_spec.observation_space, model_spec.action_space) | algorithm.records(
            model_spec
        )
        self._needs_own_actions = bool(algorithm.records(model_spec))
        self._wanting: list[SimulatorTurn] = []
        self._turns = self._episodes = self._left_out = 0
        self._told_of_logged = False
        self._address, self._hub = endpoint.address, SimulatorHub()
        self._server: SimulatorServer | None = SimulatorServer(
            self._hub, endpoint, model_spec.observation_space, model_spec.action_space, check=settings.check
        )

    @method(num_returns=3)
    def collect(
        self, group: int, progress: GroupProgress, weights: np.ndarray, version: int, clock: Clock
    ) -> tuple[Rollout, NoState, RolloutStats]:
        """Collect `rollout_steps` · `environments_per_group` transitions under these weights: a rollout [T, 1].

        Arguments as of `RolloutWorker.collect`; `group` and `progress` name the random stream.
        """
        limit_torch_threads(self._settings.threads)
        if not self._turns and progress.rollouts:
            logger.warning(
                "simulators outside have no state to give: their episodes in progress are dropped, and new ones begin"
            )
        model = self._model
        model.set_weights(weights)
        generator = stream(self._settings.seed, "actions", group, progress.rollouts)
        fragments = _Fragments(self._columns, self._rows)
        episodes: list[Episode] = []
        inference, begun = 0.0, time.perf_counter()
        with torch.inference_mode():
            while not fragments.full:
                self._wanting += self._take_turns(fragments, episodes, version)
                if self._wanting and not fragments.full:
                    began = time.perf_counter()
                    self._act(model, generator, clock.after(fragments.count), version)
                    inference += time.perf_counter() - began
            waited = time.perf_counter() - begun - inference
            began = time.perf_counter()
            rollout = finish_rollout(self._algorithm, model, fragments.rollout(version), self._config)
        stats = RolloutStats(episodes, waited, inference + time.perf_counter() - began, 0.0, metrics=self._metrics())
        return rollout, NoState(), stats

    def close(self) -> None:
        """Tell the simulators that the training has ended, and stop listening."""
        server, self._server = self._server, None
        if server is not None:
            server.close("the training has ended")

    @cached_property
    def _model(self) -> Model:
        model: Model = load("build_model")(self._model_spec)
        return model

    # Turns ----------------------------------------------------------------------------------------------------------

    def _take_turns(self, fragments: _Fragments, episodes: list[Episode], version: int) -> list[SimulatorTurn]:
        """Take what waits, as far as the rollout has room, and as many as one forward pass acts for; return those that
        ask for an action. Waits for the first."""
        most = self._settings.environments_per_group - len(self._wanting)
        asking: list[SimulatorTurn] = []
        seconds = 0.0 if self._wanting else None
        while len(asking) < most and not fragments.full:
            turn = self._wait_for_turn() if seconds is None else self._hub.next(seconds)
            if turn is None:
                break
            self._turns += 1
            seconds = 0.0
            self._note(turn, fragments, episodes, version)
            if turn.request.kind == "act":
                asking.append(turn)
            elif turn.request.kind == "log":
                self._hub.answer(turn.session, SimulatorAnswer())
        return asking

    def _wait_for_turn(self) -> SimulatorTurn:
        asked = began = time.perf_counter()
        said = began - _SAID_EVERY + _FIRST_SAID
        while True:
            turn = self._hub.next(_POLL_SECONDS)
            if turn is not None:
                return turn
            now = time.perf_counter()
            asked = self._channel.ask(asked, now)
            if now - said > _SAID_EVERY:
                said = now
                logger.warning(
                    "no simulator has asked for an action at %s for %.0f s (%d sessions): the training waits",
                    self._address,
                    now - began,
                    self._hub.sessions,
                )

    def _note(self, turn: SimulatorTurn, fragments: _Fragments, episodes: list[Episode], version: int) -> None:
        """Keep what a turn completes."""
        transition, request = turn.transition, turn.request
        if transition is None:
            return
        acted = self._acted(transition)
        if self._needs_own_actions and (transition.logged or acted.version != version):
            fragments.cut(turn.session)
            self._left_out += 1
            self._tell_of_logged(transition)
        else:
            fragments.add(turn.session, transition, acted)
        if request.kind == "end":
            episodes.append(Episode(0, self._episodes, turn.return_, request.step, 0, self._turns))
            self._episodes += 1

    def _acted(self, transition: SimulatorTransition) -> _Acted:
        if transition.logged:
            return _Acted(self._model.own_actions(transition.action), {}, 0)
        assert isinstance(transition.note, _Acted)
        return transition.note

    def _tell_of_logged(self, transition: SimulatorTransition) -> None:
        if transition.logged and not self._told_of_logged:
            self._told_of_logged = True
            logger.warning(
                "a simulator chose an action itself (Log): %s learns from its own policy's actions only, and leaves "
                "such steps out",
                self._algorithm.name,
            )

    def _act(self, model: Model, generator: np.random.Generator, clock: Clock, version: int) -> None:
        """Answer those who ask for an action, in one forward pass of a group's size whatever their number: so a row's
        bits do not depend on who else asks."""
        asking, self._wanting = self._wanting, []
        size = self._settings.environments_per_group
        rows = [turn.request.observation for turn in asking]
        observations = np.concatenate([*rows, *rows[:1] * (size - len(rows))])
        noise = np.zeros((size, *model.draw_noise(generator, (0,)).shape[1:]), np.float32)
        noise[: len(rows)] = model.draw_noise(generator, (len(rows),))
        acted = self._algorithm.explore(model, model.encode(observations), torch.from_numpy(noise), self._config, clock)
        actions = as_array(acted.actions)
        records = {name: as_array(values) for name, values in acted.records.items()}
        try:
            model.check_finite(observations, action=actions, **records)
        except ValueError as error:
            for turn in asking:
                self._hub.fail(turn.session, Refusal("INTERNAL", str(error)))
            raise
        environment_actions = model.environment_actions(actions)
        for index, turn in enumerate(asking):
            row = slice(index, index + 1)
            note = _Acted(actions[row], {name: values[row] for name, values in records.items()}, version)
            self._hub.answer(turn.session, SimulatorAnswer(environment_actions[row], version), note)

    def _metrics(self) -> dict[str, float]:
        hub = self._hub
        return {
            "simulators/sessions": hub.sessions,
            "simulators/lost_episodes": hub.lost,
            "simulators/refused_requests": hub.refused,
            "simulators/left_out_steps": self._left_out,
        }


class _Fragments:
    """`rows` transitions in the order of their arrival; and as a rollout, session by session."""

    def __init__(self, columns: Mapping[str, Any], rows: int) -> None:
        self._columns, self._rows, self.count = columns, rows, 0
        self._steps = {name: np.empty((rows, *column.shape), column.dtype) for name, column in columns.items()}
        self._of = np.empty(rows, np.int64)
        """The fragment of each row."""
        self._last: list[np.ndarray] = []
        """The observation after the last row of each fragment."""
        self._open: dict[str, int] = {}

    @property
    def full(self) -> bool:
        """Whether there is no room for another transition."""
        return self.count == self._rows

    def add(self, session: str, transition: SimulatorTransition, acted: _Acted) -> None:
        """Keep a transition that follows the last one of its session."""
        row, steps = self.count, self._steps
        if session not in self._open:
            self._open[session] = len(self._last)
            self._last.append(transition.next_observation)
        fragment = self._open[session]
        self._of[row], self._last[fragment] = fragment, transition.next_observation
        steps["observations"][row] = transition.observation[0]
        steps["actions"][row] = acted.actions[0]
        steps["rewards"][row] = transition.reward
        steps["terminations"][row], steps["truncations"][row] = transition.terminated, transition.truncated
        for name, values in acted.records.items():
            steps[name][row] = values[0]
        self.count += 1
        if transition.terminated or transition.truncated:
            self.cut(session)

    def cut(self, session: str) -> None:
        """Have what a session does next not follow what it has done."""
        self._open.pop(session, None)

    def rollout(self, version: int) -> Rollout:
        """A rollout [rows, 1]. The last transition of each fragment that did not terminate counts as truncated: its
        value is that of the observation after it, and nothing flows back over it."""
        order = np.argsort(self._of, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(self._of[order]) != 0, True))
        batch = Batch.allocate(self._columns, self._rows, 1)
        for name, values in self._steps.items():
            batch[name][:, 0] = values[order]
        batch["truncations"][ends, 0] = ~batch["terminations"][ends, 0]
        finals = Batch({"rows": ends, "observations": np.concatenate(self._last)})
        return Rollout(batch, finals, version)
