"""A served policy: replica actors behind one handle.

    caller's thread ─┐                        ┌─ thread 0 ──▶ PolicyReplica[0]
    caller's thread ─┼─▶ RequestQueue ─batch─▶┤                                  (actors, each in its own process)
    HTTP (http.py) ──┘                        └─ thread 1 ──▶ PolicyReplica[1]

Each replica has one thread, in its `ReplicaPool`, that takes a batch, sends it, and hands the answers out; so a replica
works on one batch at a time, and the next free one takes the next batch. A front end of another kind (gRPC) is one more
caller of `Served.submit`. Weights are replaced between two batches; each answer carries the version that made it.
"""

import math
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ...envs import as_batch
from ...runtime import InputError, as_number, preload
from ..settings import Bounds
from .http import HttpServer
from .queueing import Request, RequestQueue
from .replica_pool import ReplicaPool
from .source import PolicySource, Savable


@dataclass(frozen=True)
class Answer:
    """What a served policy replies.

    Attributes:
        action: one action, or actions [batch, …] for a batch; ready for `env.step`.
        version: version of the weights that chose it.
    """

    action: np.ndarray
    version: int


class Served:
    """Handle of a served policy, made by `serve`; safe to use from many threads. Close it, or use it in a `with`.

    Attributes:
        observation_space: what an observation must be an element of, in shape and dtype.
        action_space: what the actions are elements of.
        http_address: URL of the HTTP server; None without one.
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
        seed: int,
        threads: int,
    ) -> None:
        self.observation_space = source.observation_space
        self.action_space = source.action_space
        self.http_address: str | None = None
        self._http: HttpServer | None = None
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

    # Asking -----------------------------------------------------------------------------------------------------

    def act(self, observations: Any, *, deterministic: bool = True) -> np.ndarray:
        """Return the action for one observation, or actions for a batch of any size; ready for `env.step`.

        Waits while the queue is full: the caller's thread is the back-pressure.

        Args:
            observations: one observation, or a batch [batch, …], as an array or nested lists.
            deterministic: the most likely action; False draws one.

        Raises:
            ValueError: wrong shape (both are named), not numbers, not finite, or outside a discrete space.
            ServerClosedError: the server is closed.
        """
        return self.answer(observations, deterministic=deterministic).action

    def answer(self, observations: Any, *, deterministic: bool = True) -> Answer:
        """Do as `act`, and return the version of the weights, too (of a batch in several parts: the oldest)."""
        batch, single = as_batch(self.observation_space, observations)
        if not len(batch):
            raise ValueError(f"observations are an empty batch (shape {batch.shape}): want at least one")
        parts = [batch[i : i + self._max_batch_size] for i in range(0, len(batch), self._max_batch_size)]
        futures = [self._enqueue(part, deterministic, block=True) for part in parts]
        answers = [future.result() for future in futures]
        actions = answers[0][0] if len(answers) == 1 else np.concatenate([actions for actions, _ in answers])
        return Answer(actions[0] if single else actions, min(version for _, version in answers))

    def submit(self, observations: Any, *, deterministic: bool = True) -> "Future[Answer]":
        """Ask without waiting: for front ends that may not block.

        Args:
            observations: as in `act`, at most `max_batch_size` of them.
            deterministic: as in `act`.

        Raises:
            ValueError: as in `act`, or more observations than a batch may have.
            ServerBusyError: the queue is full; the request was not accepted.
        """
        batch, single = as_batch(self.observation_space, observations)
        if not 1 <= len(batch) <= self._max_batch_size:
            raise ValueError(f"batch has {len(batch)} observations; want 1 to {self._max_batch_size} in one request")
        answered: Future[Answer] = Future()

        def finish(done: "Future[tuple[np.ndarray, int]]") -> None:
            if not answered.set_running_or_notify_cancel():
                return  # who asked has gone
            error = done.exception()
            if error is not None:
                answered.set_exception(error)
            else:
                actions, version = done.result()
                answered.set_result(Answer(actions[0] if single else actions, version))

        self._enqueue(batch, deterministic, block=False).add_done_callback(finish)
        return answered

    def _enqueue(self, batch: np.ndarray, deterministic: bool, *, block: bool) -> "Future[tuple[np.ndarray, int]]":
        request = Request(batch, deterministic)
        self._queue.put(request, block=block)
        return request.answer

    # Life -------------------------------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """Return what `GET /health` shows.

        `status` is "ok", "degraded" (fewer replicas than asked for) or "down"; `replicas` are alive, `waiting` counts
        observations in the queue, `requests`, `batches` and `restarts` count since the start; `last_failure` says why
        a replica was last replaced.
        """
        return self._pool.health() | {
            "waiting": self._queue.rows,
            "uptime_seconds": round(time.monotonic() - self._started, 3),
        }

    def listen(self, address: str, *, token: str | None = None) -> str:
        """Start the HTTP server at "HOST:PORT" (port 0: any free one); return its URL.

        With a `token`, it answers only requests with the header ``Authorization: Bearer TOKEN``.
        """
        if self._http is not None:
            raise InputError(f"this policy is served over HTTP already, at {self.http_address}")
        most_numbers = self._max_batch_size * math.prod(self.observation_space.shape or ())
        self._http = HttpServer(self, address, token=token, most_numbers=most_numbers)
        self.http_address = self._http.url
        return self._http.url

    def close(self) -> None:
        """Stop listening, answer what waits, and end the replicas; harmless a second time."""
        if self._http is not None:
            self._http.close()
            self._http, self.http_address = None, None
        self._queue.close("the served policy is closed")
        self._pool.close()
        self._queue.close("the served policy is closed", drop=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def serve(
    policy: Savable | str | Path,
    *,
    replicas: int = 1,
    http: str | None = None,
    token: str | None = None,
    max_batch_size: int = 32,
    batch_wait: float = 0.0,
    max_waiting: int = 1024,
    answer_timeout: float | None = 10.0,
    seed: int = 0,
    threads: int = 1,
) -> Served:
    """Serve a policy from replica actors behind one handle.

        with serve("runs/cartpole", replicas=2, http="127.0.0.1:8000") as served:
            action = served.act(observation)

    Args:
        policy: a `Policy`, an algorithm, or the folder of a run (its last weights are served).
        replicas: number of actors; each loads the policy, and is restarted when it dies.
        http: "HOST:PORT" (or "PORT", on this machine alone) for ``POST /act`` and ``GET /health``; None: no HTTP.
            Another address than this machine's own is open to whoever can reach it, unless there is a `token`.
        token: what requests over HTTP must bring as ``Authorization: Bearer TOKEN``; None: nothing.
        max_batch_size: most observations in one forward pass; every pass is padded to this size.
        batch_wait: seconds that a batch waits for more requests before it is full. 0 suits small networks: requests
            join while the replicas are busy anyway (measured with 16 threads: 16,000 answers/s; 7,700 with 1 ms).
        max_waiting: most observations that wait; then `act` blocks, and HTTP answers 503.
        answer_timeout: seconds that a replica may take for a batch; then it is replaced, and another one answers.
            None: no limit.
        seed: for actions that are drawn.
        threads: threads of torch in each replica.

    Returns:
        The handle, once all replicas are ready.

    Raises:
        InputError: no such folder, no policy in it, a damaged one, a bad address, or a number that cannot be.
    """
    count = Bounds(whole=True, at_least=1)
    settings = {
        "replicas": count.read("replicas", replicas),
        "max_batch_size": count.read("max_batch_size", max_batch_size),
        "batch_wait": Bounds(at_least=0, at_most=60).read("batch_wait", batch_wait),
        "max_waiting": count.read("max_waiting", max_waiting),
        "answer_timeout": Bounds(above=0, optional=True).read("answer_timeout", _finite(answer_timeout)),
        "seed": Bounds(whole=True, at_least=0).read("seed", seed),
        "threads": count.read("threads", threads),
    }
    source = PolicySource(policy)
    preload("torch")
    served = Served(source, **settings)
    if http is not None:
        try:
            served.listen(http, token=token)
        except BaseException:
            served.close()
            raise
    return served


def _finite(timeout: float | None) -> float | None:
    return None if as_number(timeout) == math.inf else timeout
