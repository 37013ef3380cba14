"""The policies of several agents, served together: a handle for each, HTTP for all at one address.

    POST   /policies/NAME/act                    as POST /act of one policy; NAME is a policy's or an agent's
    DELETE /policies/NAME/sessions/SESSION
    GET    /health                               {"status": …, "policies": {NAME: {"status": …, "agents": […], …}}}

Each has replicas, a queue and sessions of its own, so that none waits for another's.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

import numpy as np

from ...envs import OWN, codec, is_central
from ...runtime import InputError, nearest
from ..data.memories import Memory
from ..models.joint_acting import JointActing
from ..models.joint_spec import JointSpec
from .http import HttpServer, listen_for_observations
from .http_app import UnknownPolicyError
from .served import Answer, Served
from .shown import in_a_line

_WORST_FIRST = ("down", "degraded", "ok")


class ServedPolicies(JointActing):
    """Handle of the served policies of a run, made by `serve`; safe to use from many threads. Close it, or use it in a
    `with`. It acts in the joint environment as a `JointPolicy` does, so that `evaluate` takes it.

    Attributes:
        policies: handle of each policy, by name.
        http_address: URL of the HTTP server; None without one.
    """

    def __init__(self, policies: Mapping[str, Served], spec: JointSpec) -> None:
        super().__init__(spec)
        self.policies = dict(policies)
        self.http_address: str | None = None
        self._http: HttpServer | None = None

    # Asking -----------------------------------------------------------------------------------------------------

    def policy(self, name: str) -> Served:
        """Return the handle of a policy, by its name or an agent's; InputError if there is none."""
        found = self.policies.get(self.spec.mapping.get(name, name))
        if found is None:
            raise InputError(f"there is no policy or agent {name!r}. {nearest(name, self._by_name())}")
        return found

    def _by_name(self) -> dict[str, Served]:
        return self.policies | {agent: self.policies[name] for agent, name in self.spec.mapping.items()}

    def _initial(self, name: str, rows: int) -> Memory | None:
        return self.policies[name].initial_memory(rows)

    def _choose(
        self, name: str, rows: np.ndarray, acts: np.ndarray, memory: Memory | None, *, deterministic: bool
    ) -> tuple[np.ndarray, Memory | None]:
        served = self.policies[name]
        taken = codec(served.action_space)
        actions = np.zeros((len(rows), *taken.shape), taken.dtype)
        if not acts.any():
            return actions, memory
        own = rows[OWN] if is_central(self.spec.policies[name].observation_space) else rows
        asked = codec(served.observation_space).unpack(own[acts])
        before = None if memory is None else {key: leaf[acts] for key, leaf in memory.items()}
        chosen, after = served.act_with_memory(asked, before, deterministic=deterministic)
        answered = np.empty((int(acts.sum()), *taken.shape), taken.dtype)
        taken.put(answered, chosen)
        actions[acts] = answered
        kept = None if memory is None else {key: np.array(leaf) for key, leaf in memory.items()}
        for key, leaf in (after or {}).items():
            assert kept is not None
            kept[key][acts] = leaf
        return actions, kept

    # What HTTP needs --------------------------------------------------------------------------------------------

    def submit(
        self, observations: Any, *, deterministic: bool = True, session: str | None = None, episode_start: bool = False
    ) -> Future[Answer]:
        """Raise UnknownPolicyError: a request names a policy."""
        raise UnknownPolicyError(f"there are several policies, {', '.join(self.policies)}: POST /policies/NAME/act")

    def end_session(self, session: str) -> None:
        """Forget a session of each policy; harmless if there is none of that name."""
        for served in self.policies.values():
            served.end_session(session)

    def health(self) -> dict[str, Any]:
        """Return what each policy's `Served.health` does, and its agents, by name under `policies`; and the worst
        `status`."""
        agents = self.spec.agents
        each = {name: served.health() | {"agents": agents[name]} for name, served in self.policies.items()}
        worst = min((state["status"] for state in each.values()), key=_WORST_FIRST.index)
        return {"status": worst, "policies": each}

    # Life -------------------------------------------------------------------------------------------------------

    def listen(self, address: str, *, token: str | None = None) -> str:
        """Start the HTTP server at "HOST:PORT", as `Served.listen`; return its URL."""
        if self._http is not None:
            raise InputError(f"these policies are served over HTTP already, at {self.http_address}")
        most = max(served.most_numbers for served in self.policies.values())
        self._http = listen_for_observations(self, address, token=token, most_numbers=most, policies=self._by_name())
        self.http_address = self._http.url
        return self._http.url

    def close(self) -> None:
        """Stop listening, answer what waits, and end the replicas; harmless a second time."""
        if self._http is not None:
            self._http.close()
            self._http, self.http_address = None, None
        for served in self.policies.values():
            served.close()

    def __repr__(self) -> str:
        return in_a_line(self, {"status": self.health()["status"], "policies": [*self.policies]})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
