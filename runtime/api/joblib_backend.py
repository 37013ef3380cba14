"""joblib's parallel calls as tasks of the runtime, so that what scikit-learn does in parallel runs on all its CPUs.

joblib cuts a parallel call into batches of about 0.2 s; each is a task here. It hears of a batch's end, and hands the
next one over, in a thread of its own: what the runtime calls when a value is there must be short.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from importlib.util import find_spec
from queue import SimpleQueue
from threading import Thread, current_thread
from typing import Any
from weakref import ref as weak_ref

from threadpoolctl import threadpool_limits

from ..core.arguments import as_int
from ..core.engine import current_engine
from ..core.refs import ObjectRef
from ..core.values.serialization import dump_whole, loads
from ..exceptions import InputError
from .cluster import cluster_resources, preload
from .remote import remote
from .verbs import cancel, get, put

if find_spec("joblib") is not None:
    from joblib import parallel_config, register_parallel_backend
    from joblib.parallel import AutoBatchingMixin, FallbackToBackend, ParallelBackendBase, SequentialBackend
else:  # whoever calls `joblib` is told

    class AutoBatchingMixin:  # type: ignore[no-redef]
        """Stands for joblib's."""

    class ParallelBackendBase:  # type: ignore[no-redef]
        """Stands for joblib's."""


NAME = "shoal"
"""Of the backend, for `joblib.parallel_config`."""

#: Nested calls become tasks once more; what is nested deeper runs in its task, as everywhere with joblib.
_DEEPEST = 1

_arrays: ContextVar[tuple[Any, ...]] = ContextVar("arrays that came beside a batch")


@contextmanager
def joblib(n_jobs: int = -1, *, inner_max_num_threads: int | None = None) -> Iterator[None]:
    """Run joblib's parallel calls, and so scikit-learn's, as tasks within the block.

        with runtime.joblib():
            GridSearchCV(SVC(), grid).fit(X, y)

    Arrays of joblib's `max_nbytes` (1 MB) or more go into the object store once for each parallel call, and tasks read
    them there, read-only as joblib's memory maps are. A parallel call within a task makes tasks, too; the one
    that waits lends its CPU. Exceptions come as they were raised; one, as Ctrl-C, cancels the tasks that are left.

    Args:
        n_jobs: how many tasks at a time where an estimator doesn't say; -1: as many as the runtime has CPUs.
        inner_max_num_threads: threads of BLAS and OpenMP in each task; default: those of the workers, one.

    Raises:
        InputError: joblib is not installed, or a number that cannot be.
    """
    if find_spec("joblib") is None:
        raise InputError("runtime.joblib() needs joblib, which is not installed: pip install joblib")
    jobs, threads = as_int(n_jobs), as_int(inner_max_num_threads)
    if not jobs:
        raise InputError(f"joblib: n_jobs={n_jobs!r}: want how many tasks at a time, or -1 for one on each CPU")
    if inner_max_num_threads is not None and (threads is None or threads < 1):
        raise InputError(f"joblib: inner_max_num_threads={inner_max_num_threads!r}: want an integer of at least 1")
    # Workers that are made from now on find imported what this process has.
    preload("joblib", *(name for name in list(sys.modules) if name.startswith("sklearn.") and name.count(".") == 1))
    register_parallel_backend(NAME, RuntimeBackend)
    with parallel_config(backend=NAME, n_jobs=jobs, inner_max_num_threads=threads):
        yield


class RuntimeBackend(AutoBatchingMixin, ParallelBackendBase):
    """What joblib asks of a backend, by tasks. One lives as long as a `joblib.Parallel`."""

    supports_inner_max_num_threads = True
    supports_timeout = True

    def __init__(self, nesting_level: int | None = None, inner_max_num_threads: int | None = None, **ignored: Any):
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._pending: set[ObjectRef] = set()
        self._ended: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._shared: dict[int, tuple[weak_ref, ObjectRef]] = {}
        self._thread: Thread | None = None
        self._max_nbytes: int | None = None

    def __reduce__(self) -> Any:
        return RuntimeBackend, (self.nesting_level, self.inner_max_num_threads)

    @property
    def supports_retrieve_callback(self) -> bool:
        """Whether results are taken as they come. In a task they are waited for in `get`, which lends the CPU."""
        return not self.nesting_level

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many tasks at a time `n_jobs` are: below 0, the runtime's CPUs and one more, less that many."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(1, int(cluster_resources().get("CPU", 1)) + 1 + n_jobs)

    def configure(self, n_jobs: int = 1, parallel: Any = None, *, max_nbytes: int | None = None, **ignored: Any) -> int:
        """Prepare for the calls of a `joblib.Parallel`; return how many tasks it may have at a time."""
        jobs = self.effective_n_jobs(n_jobs)
        if jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel, self._max_nbytes = parallel, max_nbytes
        return jobs

    def start_call(self) -> None:
        """Start the thread that tells joblib of ends."""
        self._ended = SimpleQueue()
        self._thread = Thread(target=_call_each, args=(self._ended,), name="shoal: joblib", daemon=True)
        self._thread.start()

    def stop_call(self) -> None:
        """End that thread, and forget the arrays: they may change before the next call."""
        self._shared.clear()
        self._ended.put(None)
        if self._thread is not None and self._thread is not current_thread():
            self._thread.join()
        self._thread = None

    def terminate(self) -> None:
        """Forget how long batches took."""
        self.reset_batch_stats()

    def submit(self, func: Any, callback: Callable[[ObjectRef], None] | None = None) -> ObjectRef:
        """Run a batch as a task."""
        arrays: list[ObjectRef] = []
        payload, inside = dump_whole(func, partial(self._reduce, arrays))
        job = _BATCH.remote(payload, inside, self.inner_max_num_threads, *arrays)
        self._pending.add(job)
        current_engine().when_ready(job, partial(self._ended.put, partial(self._end, job, callback)))
        return job

    def _reduce(self, arrays: list[ObjectRef], value: Any) -> Any:
        """How a large array travels: as its place among the arguments; None for all else."""
        numpy = sys.modules.get("numpy")
        if self._max_nbytes is None or numpy is None or type(value) is not numpy.ndarray:
            return None
        if value.nbytes < self._max_nbytes or value.dtype.hasobject:
            return None
        key = id(value)
        if key not in self._shared:
            # Held as long as somebody holds the array: each task may have one of its own.
            forget = partial(self._forget, key)
            self._shared[key] = weak_ref(value, forget), put(value)
        arrays.append(self._shared[key][1])
        return _array, (len(arrays) - 1,)

    def _forget(self, key: int, gone: weak_ref) -> None:
        if key in self._shared and self._shared[key][0] is gone:
            del self._shared[key]

    def _end(self, job: ObjectRef, callback: Callable[[ObjectRef], None] | None) -> None:
        self._pending.discard(job)
        if callback is not None:
            callback(job)

    def retrieve_result_callback(self, out: ObjectRef) -> Any:
        """Return the results of a batch that has ended, or raise what it raised."""
        return get(out)

    def retrieve_result(self, out: ObjectRef, timeout: float | None = None) -> Any:
        """Wait for the results of a batch."""
        return get(out, timeout=timeout)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel the tasks that have not ended."""
        for job in list(self._pending):
            cancel(job)
        self._pending.clear()

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """What parallel calls within a task run on."""
        level = (self.nesting_level or 0) + 1
        if level > _DEEPEST:
            return SequentialBackend(nesting_level=level), None
        return RuntimeBackend(level, self.inner_max_num_threads), None


def _call_each(actions: SimpleQueue[Callable[[], None] | None]) -> None:
    while (action := actions.get()) is not None:
        action()


def _array(index: int) -> Any:
    return _arrays.get()[index]


def run_batch(payload: bytes, inside: list[ObjectRef], threads: int | None, *arrays: Any) -> Any:
    """Call a batch; `inside` keeps the references that its pickle holds."""
    before = _arrays.set(arrays)
    try:
        batch = loads(payload)
    finally:
        _arrays.reset(before)
    if threads is None:
        return batch()
    with threadpool_limits(threads):
        return batch()


_BATCH = remote(name="joblib batch")(run_batch)
