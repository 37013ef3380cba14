"""The replicas of a served policy, and a thread for each: it takes a batch when its replica is free, hands answers out.

A replica is replaced when it dies, and when it does not answer in time (a process that is stopped or hangs says
nothing, so only a time limit finds it); its batch goes back to the queue, for another one. A replica that has nothing
to do is asked every few seconds whether it is there, so that health is true before the next request comes.
"""

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...runtime import ActorHandle, ObjectRef, exceptions, get, is_initialized, kill, remote
from ..data.memories import Memory, joined, rows_of
from .queueing import MOST_ATTEMPTS, Reply, Request, RequestQueue, ServerClosedError
from .replica import PolicyReplica

_LOST = (exceptions.ActorError, exceptions.WorkerCrashedError, exceptions.GetTimeoutError)
# Importing torch takes 2–3 s, on a busy machine several times that.
_START_SECONDS = 60.0
_HEARTBEAT_SECONDS = 5.0


class ReplicaPool:
    """Replica actors that answer what waits in a queue, until it is closed."""

    def __init__(
        self,
        queue: RequestQueue,
        files: Mapping[str, bytes],
        *,
        replicas: int,
        answer_timeout: float | None,
        **replica_settings: int,
    ) -> None:
        """Start the replicas and wait until all are ready.

        Args:
            queue: what they answer.
            files: a saved policy, name to content.
            replicas: number of actors.
            answer_timeout: seconds that one may take for a batch; None: no limit.
            replica_settings: arguments of `PolicyReplica`.

        Raises:
            Exception: whatever loading the policy raises.
        """
        self._queue, self._files, self._replica_settings = queue, files, replica_settings
        self._answer_timeout = answer_timeout
        self._lock = threading.Lock()
        self._counts = {"requests": 0, "batches": 0, "restarts": 0}
        self._last_failure: str | None = None
        self._actors = [self._start(index) for index in range(replicas)]
        self._alive = set(range(replicas))
        described = [get(actor.describe.remote()) for actor in self._actors]
        self._version = max(entry["version"] for entry in described)
        self.initial_memory: Memory | None = described[0]["initial_memory"]
        self._threads = [
            threading.Thread(target=self._work, args=(index,), name=f"shoal-serve-{index}", daemon=True)
            for index in range(replicas)
        ]
        for thread in self._threads:
            thread.start()

    def health(self) -> dict[str, Any]:
        """Return status, version, numbers of replicas, counts and the last failure, as `Served.health` describes."""
        with self._lock:
            alive, wanted = len(self._alive), len(self._actors)
            return {
                "status": "down" if not alive else "ok" if alive == wanted else "degraded",
                "version": self._version,
                "replicas": alive,
                "replicas_wanted": wanted,
                **self._counts,
                "last_failure": self._last_failure,
            }

    def close(self) -> None:
        """End the replicas once the queue, which is closed, is empty; harmless a second time."""
        for thread in self._threads:
            thread.join()
        for actor in self._actors if is_initialized() else []:
            kill(actor)
        with self._lock:
            self._actors.clear()
            self._alive.clear()

    def _start(self, index: int) -> ActorHandle:
        actor_class = remote(max_restarts=-1)(PolicyReplica)
        return actor_class.remote(self._files, index=index, **self._replica_settings)

    # A replica's thread -----------------------------------------------------------------------------------------

    def _work(self, index: int) -> None:
        """Serve batches with one replica until the queue is closed and empty."""
        while (batch := self._queue.take(_HEARTBEAT_SECONDS)) is not None:
            if not batch and not is_initialized():
                continue  # a call would start a runtime anew
            try:
                if batch:
                    self._hand_out(batch, self._answer(index, batch))
                else:
                    self._ask(self._actors[index].describe.remote())
            except Exception as error:  # whatever it is, it belongs to those who asked; this thread must live on
                self._give_back(batch, error)
                if isinstance(error, _LOST) and not self._replace(index, error):
                    return

    def _answer(self, index: int, batch: list[Request]) -> Reply:
        observations, memory = batch[0].observations, batch[0].memory
        if len(batch) > 1:
            observations = np.concatenate([request.observations for request in batch])
            if memory is not None:
                memory = joined([request.memory for request in batch if request.memory is not None])
        if not is_initialized():
            raise ServerClosedError("the runtime was shut down. Serve the policy again")
        return self._ask(self._actors[index].act.remote(observations, memory, deterministic=batch[0].deterministic))

    def _ask(self, call: ObjectRef) -> Any:
        try:
            return get(call, timeout=self._answer_timeout)
        except exceptions.GetTimeoutError:
            raise exceptions.GetTimeoutError(
                f"a replica did not answer within {self._answer_timeout:g} s (answer_timeout)"
            ) from None

    def _hand_out(self, batch: list[Request], reply: Reply) -> None:
        with self._lock:
            self._counts["requests"] += len(batch)
            self._counts["batches"] += 1
            self._version = max(self._version, reply.version)
        first = 0
        for request in batch:
            own = slice(first, first + request.rows)
            request.answer.set_result(Reply(reply.actions[own], reply.version, rows_of(reply.memory, own)))
            first += request.rows

    def _give_back(self, batch: list[Request], error: Exception) -> None:
        """Try the requests of a failed batch again, each alone, so that one of them cannot spoil the others."""
        lost = isinstance(error, _LOST)
        again = []
        for request in batch:
            request.attempts += 1
            if request.attempts >= MOST_ATTEMPTS or (len(batch) == 1 and not lost):
                request.answer.set_exception(error)
            else:
                again.append(request)
        self._queue.put_back(again)

    def _replace(self, index: int, error: Exception) -> bool:
        """Wait for the restarted actor, or start another in its place; return whether there is one."""
        with self._lock:
            self._counts["restarts"] += 1
            self._alive.discard(index)
            self._last_failure = f"replica {index}: {error}".splitlines()[0]
        for attempt in range(2):
            if self._queue.closed:
                return False
            try:
                if attempt == 0 and isinstance(error, exceptions.GetTimeoutError):
                    kill(self._actors[index], no_restart=False)
                elif attempt:
                    self._actors[index] = self._start(index)
                get(self._actors[index].describe.remote(), timeout=_START_SECONDS)
            except Exception as failure:  # of whatever kind: recorded as the reason why nobody answers
                reason = f"replica {index} of the served policy is gone and did not come back: {failure}"
                continue
            with self._lock:
                self._alive.add(index)
            return True
        with self._lock:
            last = not self._alive
        if last:
            self._queue.close(reason, drop=True)
        return False
