"""How large the object store is, and where objects go that it has no room for."""

import os
import tempfile

from .exceptions import InputError
from .resources import machine_memory

_SHARE = 0.3
_SMALLEST = 16 << 20


def store_settings(memory: int | None, directory: str | None) -> tuple[int, str]:
    """Return the size of the object store in bytes, and the folder for objects that it has no room for.

    Args:
        memory: the size; None: three tenths of the machine's memory.
        directory: the folder, made if it is missing; None: the system's for temporary files.

    Raises:
        InputError: too small or too large a size, or a folder that cannot be written.
    """
    most = machine_memory()
    size = max(int(most * _SHARE), _SMALLEST) if memory is None else memory
    if isinstance(size, bool) or not isinstance(size, int | float) or size != int(size) or size < _SMALLEST:
        raise InputError(f"object_store_memory={memory!r}: want a number of bytes, at least {_SMALLEST:,}")
    if size > most:
        raise InputError(f"object_store_memory={memory!r}: this machine has only {most:,} bytes of memory")
    folder = os.path.abspath(tempfile.gettempdir() if directory is None else directory)
    try:
        os.makedirs(folder, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise InputError(f"object_spilling_directory={directory!r}: {folder} is no folder that can be written")
    return int(size), folder
