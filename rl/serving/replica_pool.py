"""The replicas of a served policy, and a thread for each: it takes a batch when its replica is free, hands answers out.

Where a replica is lost and replaced (`replicas.py`), its batch goes back to the queue, for another one.
"""

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...runtime import ActorHandle, is_initialized, remote
from ..data.memories import Memory, joined, rows_of
from .queueing import MOST_ATTEMPTS, Reply, Request, RequestQueue, ServerClosedError
from .replica import PolicyReplica
from .replicas import HEARTBEAT_SECONDS, LOST, Replicas


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
        self._lock = threading.Lock()
        self._counts = {"requests": 0, "batches": 0}
        self._replicas = Replicas(self._start, replicas, answer_timeout)
        described = self._replicas.described
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
            return {**self._replicas.health(), "version": self._version, **self._counts}

    def close(self) -> None:
        """End the replicas once the queue, which is closed, is empty; harmless a second time."""
        for thread in self._threads:
            thread.join()
        self._replicas.close()

    def _start(self, index: int) -> ActorHandle:
        actor_class = remote(max_restarts=-1)(PolicyReplica)
        return actor_class.remote(self._files, index=index, **self._replica_settings)

    # A replica's thread -----------------------------------------------------------------------------------------

    def _work(self, index: int) -> None:
        """Serve batches with one replica until the queue is closed and empty."""
        while (batch := self._queue.take(HEARTBEAT_SECONDS)) is not None:
            if not batch and not is_initialized():
                continue  # a call would start a runtime anew
            try:
                if batch:
                    self._hand_out(batch, self._answer(index, batch))
                else:
                    self._replicas.ask(self._replicas.actors[index].describe.remote())
            except Exception as error:  # whatever it is, it belongs to those who asked; this thread must live on
                self._give_back(batch, error)
                if isinstance(error, LOST) and not self._replace(index, error):
                    return

    def _answer(self, index: int, batch: list[Request]) -> Reply:
        observations, memory = batch[0].observations, batch[0].memory
        if len(batch) > 1:
            observations = np.concatenate([request.observations for request in batch])
            if memory is not None:
                memory = joined([request.memory for request in batch if request.memory is not None])
        if not is_initialized():
            raise ServerClosedError("the runtime was shut down. Serve the policy again")
        call = self._replicas.actors[index].act.remote(observations, memory, deterministic=batch[0].deterministic)
        reply: Reply = self._replicas.ask(call)
        return reply

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
        lost = isinstance(error, LOST)
        again = []
        for request in batch:
            request.attempts += 1
            if request.attempts >= MOST_ATTEMPTS or (len(batch) == 1 and not lost):
                request.answer.set_exception(error)
            else:
                again.append(request)
        self._queue.put_back(again)

    def _replace(self, index: int, error: Exception) -> bool:
        """Have a lost replica replaced; return whether there is one."""
        reason = self._replicas.replace(index, error, lambda: not self._queue.closed)
        if reason is not None and not self._queue.closed and not self._replicas.alive:
            self._queue.close(reason, drop=True)
        return reason is None
