"""The rollout worker of several agents: one forward pass for each policy in each step, one rollout for each policy."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from ...envs import Episode, GroupState, GroupStep, JointSpace, Seats, agents_of_episodes, codec, stream
from ...runtime import method
from ..chaos import Death
from ..clock import Clock
from ..collect.records import arrays_of, recorded_columns
from ..collect.rollout_stats import RolloutStats
from ..collect.worker import GroupProgress, LiveGroup, Recorder, RolloutWorker
from ..data.memories import of_policies, of_policy
from ..data.tree import as_array
from ..lazy import load, torch
from ..models.joint_spec import JointSpec
from .turns import Carried, TurnRecorder

_CARRIED = "carried/"


@dataclass
class _Remembered:
    """What a group carries on from one rollout into the next."""

    memory: Any
    """What the models remember, a tree of tensors by "policy/name"; None if they have no memory."""
    carried: dict[str, Carried] = field(default_factory=dict)
    """By policy, actions whose next turn has not come; empty where agents do not take turns."""


@dataclass
class _Part:
    """One policy's share of a rollout."""

    seats: Seats
    model: Any
    acting: Any
    """What `explore` is given in the model's place; the model itself where the policy does not learn."""
    noise: Any
    exploration: Any
    """What `explore` is given in the config's place."""
    recorder: Recorder | TurnRecorder | None
    """None of a policy that does not learn."""
    memory: Any
    opponent: _Opponent | None = None


@dataclass
class _Opponent:
    """An opponent, which acts for all rows but `mine`."""

    model: Any
    noise: Any
    mine: np.ndarray

    def put_actions(self, t: int, observations: np.ndarray, actions: np.ndarray) -> None:
        """Put its actions into those of all rows."""
        outputs = self.model.outputs(self.model.encode(observations))
        chosen = self.model.environment_actions(self.model.choose(outputs, self.noise[t]).numpy())
        actions[~self.mine] = chosen[~self.mine]


class JointWorker(RolloutWorker):
    """Actor class. `collect` gives a dict of rollouts, by policy; `RolloutWorker` has the rest."""

    _model_spec: Any
    _opponent: tuple[str, np.ndarray] | None = None
    _opponent_model: Any = None

    @method(num_returns=3)
    def collect(
        self,
        group: int,
        progress: GroupProgress,
        weights: np.ndarray,
        version: int,
        clock: Clock,
        *,
        opponent: str = "",
        opponent_weights: np.ndarray | None = None,
        death: Death | None = None,
    ) -> tuple[Any, GroupState, RolloutStats]:
        """As `RolloutWorker.collect`. With an opponent's weights, one agent of each environment acts by the policy and
        is learned from, environment e's agent e, counted round; all others act by them."""
        self._opponent = None if opponent_weights is None else (opponent, opponent_weights)
        return super().collect(group, progress, weights, version, clock, death=death)

    @cached_property
    def _model(self) -> Any:
        return load("JointModel")(self._model_spec)

    def _initial_memory(self, size: int) -> _Remembered:
        rows = {name: seats.count for name, seats in self._seats(size).items()}
        return _Remembered(self._model.initial_memory(rows))

    def _saved_memory(self, live: LiveGroup) -> dict[str, np.ndarray]:
        remembered: _Remembered = live.memory
        carried = {
            f"{_CARRIED}{policy}/{name}": array
            for policy, own in remembered.carried.items()
            for name, array in own.items()
        }
        return arrays_of(remembered.memory or {}) | carried

    def _loaded_memory(self, saved: Mapping[str, np.ndarray]) -> _Remembered:
        carried: dict[str, dict[str, np.ndarray]] = {}
        for key in (key for key in saved if key.startswith(_CARRIED)):
            policy, _, name = key.removeprefix(_CARRIED).partition("/")
            carried.setdefault(policy, {})[name] = saved[key]
        memory = {key: torch.tensor(array) for key, array in saved.items() if not key.startswith(_CARRIED)}
        return _Remembered(memory or None, dict(carried))

    def _seats(self, size: int) -> dict[str, Seats]:
        spec: JointSpec = self._model_spec
        return spec.seats(size, critic=True)

    def _roll_out(
        self, model: Any, live: LiveGroup, group: int, version: int, clock: Clock
    ) -> tuple[Any, tuple[list[Episode], float, float]]:
        config, environments = self._config, live.environments
        parts = self._parts(model, live, group)
        space: JointSpace = self._model_spec.observation_space
        joint = np.empty(self._settings.environments_per_group, codec(self._model_spec.action_space).dtype)
        episodes: list[Episode] = []
        inference = stepping = 0.0
        asked = time.perf_counter()
        with torch.inference_mode():
            for t in range(self._algorithm.rollout_steps(config)):
                begin = time.perf_counter()
                before, now = environments.observations, clock.after(t * self._settings.n_envs)
                remembered = [self._act(part, t, before, joint, now) for part in parts.values()]
                chosen = time.perf_counter()
                step = environments.step(joint)
                for part, after in zip(parts.values(), remembered, strict=True):
                    _take_in(part, t, part.seats.step(before, step), after)
                ended = agents_of_episodes(space, step)
                episodes += ended if self._opponent is None else self._told_of_opponent(ended, t + 1)
                inference += chosen - begin
                stepping += time.perf_counter() - chosen
                asked = self._channel.ask(asked, chosen)
                if self._death is not None:
                    self._death.at(t)
            begin = time.perf_counter()
            live.memory = _Remembered(of_policies({name: part.memory for name, part in parts.items()}))
            rollouts = {}
            for name, part in parts.items():
                if isinstance(part.recorder, Recorder):
                    rollouts[name] = part.recorder.finish(part.model, config, version)
                elif part.recorder is not None:
                    rollouts[name], live.memory.carried[name] = part.recorder.finish(
                        part.model,
                        config,
                        version,
                        seen=part.seats.observations(environments.observations),
                        turn=part.seats.of_agents(environments.observations, "acts").astype(np.bool_),
                        memory=part.memory,
                    )
        told = {"group": group, "in_turns": self._model_spec.turns}
        made = {
            name: replace(rollout, **told, agents=len(parts[name].seats.agents)) for name, rollout in rollouts.items()
        }
        return made, (episodes, inference + time.perf_counter() - begin, stepping)

    def _parts(self, model: Any, live: LiveGroup, group: int) -> dict[str, _Part]:
        steps, parts = self._algorithm.rollout_steps(self._config), {}
        self._noise = []
        for name, seats in self._seats(self._settings.environments_per_group).items():
            drawn = stream(self._settings.seed, f"actions of {name}", group, live.rollouts)
            own, opponent = model.models[name], self._opponent_of(name, seats, live, group)
            carried = live.memory.carried.get(name)
            if opponent is not None and carried is not None:  # what waits for an agent that another one acts for now
                carried = {**carried, "pending": carried["pending"] & opponent.mine}
            noise = own.draw_noise(drawn, (steps, seats.count))
            self._noise.append(noise)
            recorder = self._recorder(name, steps, seats.count, carried)
            acting = own if recorder is None else self._algorithm.acting(own)
            parts[name] = _Part(
                seats,
                own,
                acting,
                acting.given(noise),
                self._algorithm.exploration(self._config, self._settings, group, len(seats.agents)),
                recorder,
                of_policy(name, live.memory.memory),
                opponent,
            )
        return parts

    def _opponent_of(self, name: str, seats: Seats, live: LiveGroup, group: int) -> _Opponent | None:
        if self._opponent is None:
            return None
        if self._opponent_model is None:
            self._opponent_model = load("JointModel")(self._model_spec)
        self._opponent_model.set_weights(self._opponent[1])
        model, drawn = (
            self._opponent_model.models[name],
            stream(self._settings.seed, "opponent's actions", group, live.rollouts),
        )
        noise = model.draw_noise(drawn, (self._algorithm.rollout_steps(self._config), seats.count))
        return _Opponent(model, torch.from_numpy(noise), seats.one_each(self._first_index(group)))

    def _told_of_opponent(self, episodes: list[Episode], steps: int) -> list[Episode]:
        """Episodes with whom they were played against, if they began within the `steps` of this rollout so far."""
        assert self._opponent is not None
        names, told = list(self._model_spec.mapping), []
        for episode in episodes:
            seat = names[episode.environment % len(names)]
            whole = episode.length <= steps
            told.append(msgspec.structs.replace(episode, opponent=self._opponent[0], seat=seat) if whole else episode)
        return told

    def _recorder(self, name: str, steps: int, rows: int, carried: Carried | None) -> Recorder | TurnRecorder | None:
        spec: JointSpec = self._model_spec
        if name in spec.frozen:
            return None
        if spec.turns:
            return TurnRecorder(self._algorithm, spec.policies[name], steps, rows, carried)
        own = spec.policies[name]
        columns = recorded_columns(self._algorithm, own, resets=True)
        return Recorder(self._algorithm, own, columns, (steps, rows))

    def _act(self, part: _Part, t: int, before: np.ndarray, joint: np.ndarray, clock: Clock) -> Any:
        """Let a policy act for its agents; returns its memory after that."""
        observations, model, acting = part.seats.observations(before), part.model, part.acting
        rows, memory = acting.recall(acting.encode(observations), part.memory)
        if part.recorder is None:
            actions = as_array(acting.choose(acting.outputs(rows), part.noise[t]))
        else:
            if part.memory is not None:
                part.recorder.remember(t, part.memory)
            acted = self._algorithm.explore(acting, rows, part.noise[t], part.exploration, clock)
            actions = part.recorder.acted(t, observations, acted)
        if actions.dtype.kind == "f":
            model.check_finite(observations, action=actions)
        taken = model.environment_actions(actions)
        if part.opponent is not None:
            part.opponent.put_actions(t, observations, taken)
        part.seats.put_actions(taken, joint)
        return memory

    def _first_index(self, group: int) -> int:
        return group * self._settings.environments_per_group


def _take_in(part: _Part, t: int, step: GroupStep, after: Any) -> None:
    assert step.resets is not None
    if part.opponent is not None:
        step.resets |= ~part.opponent.mine
        if not isinstance(part.recorder, TurnRecorder):
            step.truncations |= ~part.opponent.mine
    held = load("remember")(part.memory, after, ~step.resets)
    if part.recorder is not None:
        part.recorder.stepped(t, step, held)
    if held is not None:
        part.memory = part.model.forget(held, step.terminations | step.truncations)
