"""Secrets for commands: from a file or the environment, never an argument, which every user of the machine can read."""

import os

from ..runtime import InputError

_MOST_CHARACTERS = 4096


def read_token(path: str | None, variable: str) -> str | None:
    """Return the token in the file at `path`, else in the environment variable; None if there is neither.

    Raises:
        InputError: the file cannot be read, or holds nothing.
    """
    if path is None:
        return os.environ.get(variable) or None
    try:
        with open(path, encoding="utf-8") as file:
            token = file.read(_MOST_CHARACTERS + 1).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token-file {path}: {getattr(error, 'strerror', None) or error}") from None
    if len(token) > _MOST_CHARACTERS:
        raise InputError(f"--token-file {path}: it holds more than {_MOST_CHARACTERS:,} characters, which no token has")
    if not token:
        raise InputError(f"--token-file {path}: the file is empty")
    return token
