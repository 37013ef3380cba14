"""Actors of Ray: made, found by their names, called and ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import ray
from ray import exceptions as theirs
from ray.util import list_named_actors

from ..core.engine import ActorId, ActorState, Arguments, CallsActors, Function, MakesActors
from ..core.options import ActorOptions, MethodOptions
from ..core.results import name_taken, too_many_calls
from . import functions
from . import translation as their
from .translation import held, wrapped

# Ray's numbers of ActorTableData.ActorState; the others are those of actors that have not been made yet.
_STATES: dict[int | None, ActorState] = {2: "alive", 3: "restarting", 4: "dead"}


class RayActors(MakesActors, CallsActors):
    """The engine's actors; `MakesActors` and `CallsActors` tell what the methods do.

    Args:
        remote: returns what Ray has made of a class.
        check_feasible: raises InfeasibleError for what can never run.
        closing: closes the streams of methods.
    """

    def __init__(
        self,
        remote: Callable[..., Any],
        check_feasible: Callable[[str, ActorOptions], None],
        closing: their.Closing,
    ) -> None:
        self._remote, self._check_feasible, self._closing = remote, check_feasible, closing

    def create(
        self, cls: Function, arguments: Arguments, options: ActorOptions, methods: Mapping[str, MethodOptions]
    ) -> ActorId:
        given = their.options(options, cls.name)
        self._check_feasible(f"actor {cls.name}", options)
        groups = dict(options.concurrency_groups)
        limits = {"concurrency_groups": groups} if groups else {}
        made = self._remote((cls.id, str(groups)), lambda: functions.actor_class(cls.target, methods), **limits)
        try:
            handle = their.call(made.options(**given).remote, arguments)
        except ValueError as error:
            if options.name is None or self.find(options.name, options.namespace) is None:
                raise
            raise name_taken(options.name) from error
        actor_id = handle._actor_id.binary()
        return ActorId.of(actor_id, wrapped(handle, actor_id), cls, methods, options)

    def call(self, actor: ActorId, method: str, arguments: Arguments, options: MethodOptions) -> list[Any]:
        name = f"{actor.class_name}.{method}"
        try:
            call = getattr(held(actor.lifetime), method).options(**their.options(options, name))
            return their.results(their.call(call.remote, arguments), options.num_returns, self._closing)
        except theirs.PendingCallsLimitExceeded as error:
            raise too_many_calls(name, actor.max_pending_calls) from error

    def kill(self, actor: ActorId, no_restart: bool) -> None:
        ray.kill(held(actor.lifetime), no_restart=no_restart)

    def state(self, actor: ActorId) -> ActorState:
        state = held(actor.lifetime)._get_local_state()
        return _STATES.get(state, "alive")

    def find(self, name: str, namespace: str | None) -> ActorId | None:
        try:
            handle = ray.get_actor(name, namespace)
        except ValueError:
            return None
        actor = functions.actor(handle)
        return replace(actor, lifetime=wrapped(handle, actor.id))

    def names(self) -> list[tuple[str, str]]:
        return sorted((row["namespace"], row["name"]) for row in list_named_actors(all_namespaces=True))
