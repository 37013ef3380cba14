"""How many threads the numerical libraries may use: configuration, never a consequence of cores or workers.

The number of threads decides how sums are split, hence their bits; and for small networks more threads are slower (two
that fight for a core made the same training 30 times slower). So every process that computes sets the count, in the
functions that compute: with the serial engine all actors live in the driver's process.
"""

from __future__ import annotations

from threadpoolctl import threadpool_limits


def limit_threads(threads: int) -> None:
    """Let torch, and BLAS and OpenMP as loaded by numpy and others, use `threads` threads each in this process.

    Takes milliseconds (it looks through the loaded libraries): for constructors. `limit_torch_threads` is the cheap
    part.
    """
    limit_torch_threads(threads)
    threadpool_limits(limits=threads)


def limit_torch_threads(threads: int) -> None:
    """Let torch use `threads` threads within an operation, in this process; cheap when it already does."""
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
