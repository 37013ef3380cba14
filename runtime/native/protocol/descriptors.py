"""File descriptors, of which a process may be left without: its limit is raised as far as it may raise that itself."""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
#: What an OSError says where no descriptor is left: to this process, or to the whole system.
NONE_LEFT = (errno.EMFILE, errno.ENFILE)


def opening(open_one: Callable[[], T]) -> T:
    """Return what `open_one` returns; where no descriptor is left for that, raise this process's limit and try again.

    Not before: programs that use `select` cannot work with numbers from 1024 on.

    Raises:
        OSError: as `open_one`; one of `NONE_LEFT` if the limit is as high as the system allows, or does not help.
    """
    while True:
        try:
            return open_one()
        except OSError as error:
            if error.errno != errno.EMFILE or not _raise_limit():
                raise


def _raise_limit() -> bool:
    """Double the limit, up to what is allowed; False if that is reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * soft if hard == resource.RLIM_INFINITY else min(2 * soft, hard)
    if wanted <= soft:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return True
