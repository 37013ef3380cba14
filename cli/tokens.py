"""Secrets for commands: from a file or the environment, never an argument, which every user of the machine can read."""

import os

from ..runtime import InputError


def read_token(path: str | None, variable: str) -> str | None:
    """Return the token in the file at `path`, else in the environment variable; None if there is neither.

    Raises:
        InputError: the file cannot be read, or holds nothing.
    """
    if path is None:
        return os.environ.get(variable) or None
    try:
        with open(path, encoding="utf-8") as file:
            token = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token-file {path}: {getattr(error, 'strerror', None) or error}") from None
    if not token:
        raise InputError(f"--token-file {path}: the file is empty")
    return token
