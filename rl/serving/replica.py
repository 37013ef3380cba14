"""One replica of a served policy: an actor that turns batches of observations into actions."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...envs import codec, stream
from ..data.memories import Memory, joined, rows_of
from ..lazy import load
from ..runs.checkpoint import MODEL
from ..supervised.fitted import FittedModel
from ..supervised.saved import model_from_files
from ..threads import limit_threads, limit_torch_threads
from .queueing import Reply


class PolicyReplica:
    """Actor class; it imports torch for a policy, so it is constructed in a process of its own.

    Every forward pass has exactly `max_batch_size` rows: a row's bits depend on the size of the batch (measured: 1 row
    against 8 differ in the last digits), not on the other rows' content, so an answer doesn't depend on who else asked
    at the same moment. The price, measured for one row padded to 32: 55 µs instead of 27 with two layers of 64 units,
    235 instead of 40 with two of 256; a call of the actor costs about 150 beside that.
    """

    def __init__(self, files: Mapping[str, bytes], *, index: int, max_batch_size: int, seed: int, threads: int) -> None:
        """Load the policy.

        Args:
            files: a saved policy, or model of a table, name to content: it reaches every machine, whatever disks hold.
            index: number of this replica.
            max_batch_size: rows of every forward pass.
            seed: actions that are drawn come from a stream of (seed, "serving", index).
            threads: threads of torch and BLAS.
        """
        self._threads = threads
        self._policy = model_from_files(files, "what is served") if MODEL in files else self._load_policy(files)
        self._stream = stream(seed, "serving", index)
        seen, self._actions = codec(self._policy.observation_space), codec(self._policy.action_space)
        self._batch = np.empty((max_batch_size, *seen.shape), seen.dtype)
        self._padding = seen.filler()  # must be observations, too
        self._batch[:] = self._padding
        self._memories = self._policy.initial_memory(max_batch_size)
        # torch prepares its kernels now, not in a first request
        self.act(self._batch[:1].copy(), self._policy.initial_memory(1), deterministic=True)

    def _load_policy(self, files: Mapping[str, bytes]) -> Any:
        limit_threads(self._threads)
        return load("policy_from_files")(files)

    def describe(self) -> dict[str, Any]:
        """Return the version of the weights, the process id, and the memory [1, …] with which an episode begins (None
        without one); it also says that the replica is alive."""
        version, initial = self._policy.version, self._policy.initial_memory(1)
        return {"version": version, "pid": os.getpid(), "initial_memory": initial}

    def act(self, observations: np.ndarray, memory: Memory | None = None, *, deterministic: bool) -> Reply:
        """Choose actions.

        Args:
            observations: [rows, …], at most `max_batch_size` of them; records of a nested space.
            memory: what is remembered, [rows, …]; None if the policy has no memory.
            deterministic: the most likely action instead of a drawn one.

        Returns:
            actions [rows, …], records of a nested space.
        """
        if not isinstance(self._policy, FittedModel):
            limit_torch_threads(self._threads)
        rows = len(observations)
        self._batch[:rows] = observations
        self._batch[rows:] = self._padding  # an earlier batch's rows could be ones that no finite action comes of
        padding = rows_of(self._memories, slice(rows, None))
        before = None if memory is None or padding is None else joined([memory, padding])
        chosen, after = self._policy.act_with_memory(
            self._batch, before, deterministic=deterministic, noise_stream=self._stream
        )
        actions = np.empty((len(self._batch), *self._actions.shape), self._actions.dtype)
        self._actions.put(actions, chosen)
        return Reply(actions[:rows].copy(), self._policy.version, rows_of(after, slice(0, rows)))
