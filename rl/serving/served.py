"""A served policy: replica actors behind one handle.

    caller's thread ─┐                        ┌─ thread 0 ──▶ PolicyReplica[0]
    caller's thread ─┼─▶ RequestQueue ─batch─▶┤                                  (actors, each in its own process)
    HTTP, gRPC ──────┘                        └─ thread 1 ──▶ PolicyReplica[1]

Each replica has one thread, in its `ReplicaPool`, that takes a batch, sends it, and hands the answers out; so a replica
works on one batch at a time, and the next free one takes the next batch. HTTP and gRPC are callers of `Served.submit`.
Weights are replaced between two batches; each answer carries the version that made it.
"""

import math
import time
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn, Self

import numpy as np

from ...envs import Endpoint, MaskGuard, as_batch, codec
from ...runtime import InputError
from ..data.memories import Memory, joined, remembered_before, rows_of
from .http import HttpServer, listen_for_observations
from .queueing import Reply, Request, RequestQueue
from .replica_pool import ReplicaPool
from .sessions import Sessions
from .shown import in_a_line
from .simulators import SimulatorFront
from .source import PolicySource


@dataclass(frozen=True)
class Answer:
    """What a served policy replies.

    Attributes:
        action: one action, or actions [batch, …] for a batch; ready for `env.step`, nested as its space is.
        version: version of the weights that chose it.
    """

    action: Any
    version: int


class Served:
    """Handle of a served policy, made by `serve`; safe to use from many threads. Close it, or use it in a `with`.

    Attributes:
        observation_space: what an observation must be an element of, in shape and dtype.
        action_space: what the actions are elements of.
        http_address: URL of the HTTP server; None without one.
        grpc: where simulators outside connect, with which token; None if they do not.
    """

    def __init__(
        self,
        source: PolicySource,
        *,
        replicas: int,
        max_batch_size: int,
        batch_wait: float,
        max_waiting: int,
        answer_timeout: float | None,
        max_sessions: int,
        session_timeout: float,
        seed: int,
        threads: int,
    ) -> None:
        self.observation_space = source.observation_space
        self.action_space = source.action_space
        self._names = source.names
        self._actions = codec(self.action_space)
        self._masks = MaskGuard(codec(self.observation_space), self._actions)
        self.http_address: str | None = None
        self._http: HttpServer | None = None
        self.grpc: Endpoint | None = None
        self._simulators: SimulatorFront | None = None
        self._max_batch_size = max_batch_size
        self._queue = RequestQueue(max_rows=max_waiting, max_batch_size=max_batch_size, batch_wait=batch_wait)
        self._started = time.monotonic()
        # Errors of loading reach the caller of serve() here, as their own type.
        self._pool = ReplicaPool(
            self._queue,
            source.files,
            replicas=replicas,
            answer_timeout=answer_timeout,
            max_batch_size=max_batch_size,
            seed=seed,
            threads=threads,
        )
        self._sessions = Sessions(self._pool.initial_memory, limit=max_sessions, timeout=session_timeout)

    # Asking -----------------------------------------------------------------------------------------------------

    @property
    def has_memory(self) -> bool:
        """Whether the policy remembers earlier steps of an episode: then each request names a session."""
        return self._pool.initial_memory is not None

    def act(
        self,
        observations: Any,
        *,
        deterministic: bool = True,
        session: str | None = None,
        episode_start: bool = False,
    ) -> Any:
        """Return the action for one observation, or actions for a batch of any size; ready for `env.step`.

        Waits while the queue is full: the caller's thread is the back-pressure.

        Args:
            observations: one observation, or a batch [batch, …], as an array or nested lists; of a nested space, a
                dict or tuple of parts that are all single ones or all batches.
            deterministic: the most likely action; False draws one.
            session: what the episode that a policy with memory acts in is called, a name of the caller's choice; of a
                batch, all episodes together. A policy without memory needs none.
            episode_start: an episode begins, and the session, if there is none of that name.

        Raises:
            ValueError: wrong shape (both are named), not numbers, not finite, outside a discrete space, a mask that
                allows no action, or no session for a policy with memory.
            UnknownSessionError: the session never began, or has expired.
            SessionInUseError: a request of that session is being answered.
            ServerBusyError: there are `max_sessions` sessions already.
            ServerClosedError: the server is closed.
        """
        return self.answer(
            observations, deterministic=deterministic, session=session, episode_start=episode_start
        ).action

    def answer(
        self,
        observations: Any,
        *,
        deterministic: bool = True,
        session: str | None = None,
        episode_start: bool = False,
    ) -> Answer:
        """Do as `act`, and return the version of the weights, too (of a batch in several parts: the oldest)."""
        batch, single = self._batch(observations)
        memory = self._take(session, len(batch), episode_start)
        try:
            reply = self._ask(batch, memory, deterministic)
        except BaseException:
            self._drop(session)
            raise
        self._keep(session, reply.memory)
        return self._answer(reply, single)

    def act_with_memory(
        self, observations: Any, memory: Memory | None = None, episode_start: Any = None, *, deterministic: bool = True
    ) -> tuple[Any, Memory | None]:
        """Act as `Policy.act_with_memory` does: what is remembered is kept by the caller, without a session."""
        batch, single = self._batch(observations)
        before = remembered_before(memory, self.initial_memory(len(batch)), episode_start)
        reply = self._ask(batch, before, deterministic)
        return self._answer(reply, single).action, reply.memory

    def initial_memory(self, rows: int) -> Memory | None:
        """What is remembered at the beginning of `rows` episodes, as of `Policy`; None without a memory."""
        return self._sessions.initial_memory(rows) if self.has_memory else None

    def end_session(self, session: str) -> None:
        """Forget a session, which makes room for another; harmless if there is none of that name."""
        self._sessions.end(session)

    def submit(
        self,
        observations: Any,
        *,
        deterministic: bool = True,
        session: str | None = None,
        episode_start: bool = False,
    ) -> "Future[Answer]":
        """Ask without waiting: for front ends that may not block.

        Args:
            observations: as in `act`, at most `max_batch_size` of them.
            deterministic, session, episode_start: as in `act`.

        Raises:
            ValueError: as in `act`, or more observations than a batch may have.
            UnknownSessionError, SessionInUseError: as in `act`.
            ServerBusyError: the queue is full, or there are too many sessions; the request was not accepted.
        """
        batch, single = self._batch(observations)
        if not 1 <= len(batch) <= self._max_batch_size:
            raise ValueError(f"batch has {len(batch)} observations; want 1 to {self._max_batch_size} in one request")
        answered: Future[Answer] = Future()
        memory = self._take(session, len(batch), episode_start)

        def finish(done: "Future[Reply]") -> None:
            error = done.exception()
            if error is None:
                self._keep(session, done.result().memory)
            else:
                self._drop(session)
            if not answered.set_running_or_notify_cancel():
                return  # who asked has gone
            if error is not None:
                answered.set_exception(error)
            else:
                answered.set_result(self._answer(done.result(), single))

        try:
            self._enqueue(batch, memory, deterministic, block=False).add_done_callback(finish)
        except BaseException:
            self._drop(session)
            raise
        return answered

    def _batch(self, observations: Any) -> tuple[np.ndarray, bool]:
        batch, single = as_batch(self.observation_space, observations)
        self._masks.check(batch)
        if not len(batch):
            raise ValueError(f"observations are an empty batch (shape {batch.shape}): want at least one")
        return batch, single

    def _answer(self, reply: Reply, single: bool) -> Answer:
        return Answer(self._actions.unpack(reply.actions[0] if single else reply.actions), reply.version)

    def _ask(self, batch: np.ndarray, memory: Memory | None, deterministic: bool) -> Reply:
        """Wait for the actions of a batch of any size."""
        parts = [slice(i, i + self._max_batch_size) for i in range(0, len(batch), self._max_batch_size)]
        futures = [self._enqueue(batch[own], rows_of(memory, own), deterministic, block=True) for own in parts]
        replies = [future.result() for future in futures]
        if len(replies) == 1:
            return replies[0]
        memories = [reply.memory for reply in replies if reply.memory is not None]
        return Reply(
            np.concatenate([reply.actions for reply in replies]),
            min(reply.version for reply in replies),
            joined(memories) if memories else None,
        )

    def _enqueue(
        self, batch: np.ndarray, memory: Memory | None, deterministic: bool, *, block: bool
    ) -> "Future[Reply]":
        request = Request(batch, deterministic, memory)
        self._queue.put(request, block=block)
        return request.answer

    def _take(self, session: str | None, rows: int, episode_start: bool) -> Memory | None:
        return self._sessions.take(session, rows, episode_start=episode_start) if self.has_memory else None

    def _keep(self, session: str | None, memory: Memory | None) -> None:
        if memory is not None and session is not None:
            self._sessions.keep(session, memory)

    def _drop(self, session: str | None) -> None:
        if self.has_memory and session is not None:
            self._sessions.drop(session)

    # Life -------------------------------------------------------------------------------------------------------

    @property
    def most_numbers(self) -> int:
        """How many numbers a full batch of observations holds."""
        leaves = codec(self.observation_space).leaves()
        return self._max_batch_size * sum(math.prod(leaf.shape) for _, leaf in leaves)

    def health(self) -> dict[str, Any]:
        """Return what `GET /health` shows.

        `status` is "ok", "degraded" (fewer replicas than asked for) or "down"; `replicas` are alive, `waiting` counts
        observations in the queue, `requests`, `batches` and `restarts` count since the start; `last_failure` says why
        a replica was last replaced.
        """
        return self._pool.health() | {
            "waiting": self._queue.rows,
            **({"sessions": len(self._sessions)} if self.has_memory else {}),
            "uptime_seconds": round(time.monotonic() - self._started, 3),
        }

    def listen(self, address: str, *, token: str | None = None) -> str:
        """Start the HTTP server at "HOST:PORT" (port 0: any free one); return its URL.

        With a `token`, it answers only requests with the header ``Authorization: Bearer TOKEN``.
        """
        if self._http is not None:
            raise InputError(f"this policy is served over HTTP already, at {self.http_address}")
        policies = dict.fromkeys(self._names, self)
        self._http = listen_for_observations(
            self, address, token=token, most_numbers=self.most_numbers, policies=policies
        )
        self.http_address = self._http.url
        return self._http.url

    def listen_for_simulators(self, address: str, *, token: str | None = None) -> Endpoint:
        """Serve simulators outside by gRPC at "HOST:PORT" (port 0: any free one), as a training does; return where.

        Without a `token` they need that of SHOAL_SIMULATOR_TOKEN, else one that is made, and told.
        """
        if self.grpc is not None:
            raise InputError(f"this policy is served over gRPC already, at {self.grpc.address}")
        endpoint = Endpoint.at(address, token, "grpc")
        self._simulators = SimulatorFront(self, endpoint)
        self.grpc = endpoint
        return endpoint

    def close(self) -> None:
        """Stop listening, answer what waits, and end the replicas; harmless a second time."""
        if self._simulators is not None:
            self._simulators.close()
            self._simulators, self.grpc = None, None
        if self._http is not None:
            self._http.close()
            self._http, self.http_address = None, None
        self._queue.close("the served policy is closed")
        self._pool.close()
        self._queue.close("the served policy is closed", drop=True)

    def __repr__(self) -> str:
        told = self.health()
        return in_a_line(self, {name: told[name] for name in ("status", "replicas", "version")})

    def __reduce__(self) -> NoReturn:
        where = "" if self.http_address is None else f", here at {self.http_address}"
        raise TypeError(
            "the handle of a served policy stays in the process that serves it: tasks and other programs ask it over "
            f"HTTP (serve(…, http='127.0.0.1:0'){where})"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
