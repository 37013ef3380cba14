"""The learner actor of several policies: a learner for each, in one process, seen from outside as one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime import ObjectRef, get, method
from ..chaos import Death, dying
from ..clock import Clock
from ..data.rate_limit import SAMPLED
from ..data.rollout import Rollout
from ..declaration import Learning
from ..learn.actor import LearnerActor
from ..learn.log import LearnerLog
from ..learn.shards import Gather
from ..models.joint_spec import JointSpec, joint_layout, policy_seed
from ..models.layout import ParameterLayout
from ..settings import RunSettings
from .replays import JointReplays

if TYPE_CHECKING:
    from ..learn.optimizers import Share

Rollouts = Mapping[str, Rollout]
"""By policy; of those that learn."""


class JointLearnerActor:
    """Actor class, as `LearnerActor`: a rollout is one for each policy, weights are all policies' in a row.

    A policy of which an iteration's rollouts hold no transition does not learn in it, as one that is frozen never does:
    not a bit of it changes. Where nothing was collected, each learns from what it has. `initial` are flat weights that
    policies begin with, by name.
    """

    def __init__(
        self,
        algorithm: type[Learning],
        config: Any,
        spec: JointSpec,
        settings: RunSettings,
        initial: Mapping[str, np.ndarray],
    ) -> None:
        self._initial = initial
        self._parts: dict[str, LearnerActor] = {}
        for name, own in spec.policies.items():
            its = replace(settings, seed=policy_seed(settings.seed, name))
            self._parts[name] = LearnerActor(algorithm, config, own, its)
        self._learning = tuple(name for name in spec.policies if name not in spec.frozen)
        self._replays = JointReplays({name: self._parts[name] for name in self._learning})
        self._begin_with(initial)

    def describe(self) -> tuple[np.ndarray, ParameterLayout, str]:
        """Flat weights of now, their layout, and the device."""
        described = {name: part.describe() for name, part in self._parts.items()}
        weights, layouts, devices = zip(*described.values(), strict=True)
        return np.concatenate(weights), joint_layout(dict(zip(described, layouts, strict=True))), devices[0]

    @method(num_returns=4)
    def update(
        self,
        rollouts: Sequence[ObjectRef],
        iteration: int,
        clock: Clock,
        snapshot: bool,
        death: Death | None = None,
    ) -> tuple[np.ndarray, dict[str, Any] | None, Any, dict[str, float]]:
        """As `LearnerActor.update`."""
        self._require(iteration)
        waiting = time.perf_counter()
        joined = self._learned_from(get(list(rollouts)))
        started = time.perf_counter()
        metrics: dict[str, float] = {}
        with dying(death):
            for name, part in self._parts.items():
                if name not in joined:
                    part.skip()
                    continue
                _, found = part.learn(joined[name], clock)
                alone = len(self._parts) == 1
                metrics |= found if alone else {f"policies/{name}/{tag}": value for tag, value in found.items()}
                if SAMPLED in found:  # what paces a training is the policy that draws most
                    metrics[SAMPLED] = max(found[SAMPLED], metrics.get(SAMPLED, 0))
        metrics |= self._replays.metrics()
        metrics["time/update_seconds"] = time.perf_counter() - started
        metrics["time/learner_wait_seconds"] = started - waiting
        weights = np.concatenate([part.weights() for part in self._parts.values()])
        if not snapshot:
            return weights, None, None, metrics
        transitions = self._replays.take_new()
        return weights, self._state(), transitions, metrics

    def gather_by(self, gather: Gather) -> None:
        """As `LearnerActor.gather_by`."""
        for part in self._parts.values():
            part.gather_by(gather)

    def share(self, share: Share | None) -> None:
        """As `LearnerActor.share`."""
        for part in self._parts.values():
            part.share(share)

    @method(num_returns=2)
    def snapshot(self, iteration: int, inserted: int) -> tuple[dict[str, Any], Any]:
        """As `LearnerActor.snapshot`."""
        self._require(iteration)
        return self._state(), self._replays.since(inserted)

    def restore(self, log: LearnerLog) -> None:
        """As `LearnerActor.restore`."""
        found, pieces = log.held()
        for name, part in self._parts.items():
            own = None if found is None else found["policies"][name] | {"replay": self._replays.state_of(found, name)}
            part.go_back(log.iteration, own, [piece[name] for piece in pieces if name in piece])
        self._replays.load(found)
        if found is None:
            self._begin_with(self._initial)
        for given in log.inputs:
            joined = self._learned_from(get(list(given.rollouts)))
            for name, part in self._parts.items():
                if name in joined:
                    part.repeat(joined[name], given.clock)
                else:
                    part.skip()

    def _begin_with(self, weights: Mapping[str, np.ndarray]) -> None:
        for name, own in weights.items():
            self._parts[name].begin_with(own)

    def _state(self) -> dict[str, Any]:
        policies = {name: part.state() | {"replay": None} for name, part in self._parts.items()}
        return {"policies": policies, "replay": self._replays.state()}

    def _learned_from(self, rollouts: Sequence[Rollouts]) -> Rollouts:
        """By policy, of those that learn from them: the rollouts of several groups side by side."""
        joined = {name: Rollout.side_by_side([group[name] for group in rollouts]) for name in self._learning}
        return {name: rollout for name, rollout in joined.items() if not rollouts or has_transitions(rollout)}

    def _require(self, iteration: int) -> None:
        for part in self._parts.values():
            part.require(iteration)


def has_transitions(rollout: Rollout) -> bool:
    """Whether an agent of a policy acted at all."""
    return not bool(rollout.steps["resets"].all())
