"""PettingZoo's environments by name: `mpe2/simple_spread_v3`, `classic/tictactoe_v3`, or `tictactoe_v3` alone."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...runtime import InputError, nearest
from .joint import JointEnv

FAMILIES = ("mpe2", "classic", "butterfly", "sisl", "atari")
"""Beginnings of ids. Those of mpe2 are modules of that package, all others are in PettingZoo's registry."""
_NAME = re.compile(r"([a-z0-9_]+)[_-]v(\d+)")


def pettingzoo_id(name: str) -> str | None:
    """Return the full id, such as "classic/tictactoe_v3", of a name with or without its family; None if it is none.

    A name without family is looked for in what is installed.
    """
    family, slash, game = name.rpartition("/")
    found = _NAME.fullmatch(game)
    if found is None or (slash and family not in FAMILIES):
        return None
    game = f"{found[1]}_v{found[2]}"
    families = [family] if slash else [known for known in FAMILIES if game in games(known)]
    return f"{families[0]}/{game}" if families else None


@dataclass(frozen=True)
class Game:
    """An environment of PettingZoo's or mpe2's.

    Attributes:
        id: such as "classic/tictactoe_v3".
        entry_point: where it comes from, such as "pettingzoo.classic.tictactoe.tictactoe:env".
        turns: whether its agents can only act one after the other (AEC).
    """

    id: str
    entry_point: str
    turns: bool


def installed_games() -> list[Game]:
    """Return all environments of PettingZoo's own, and of mpe2 where it is installed."""
    import pettingzoo

    together = pettingzoo.parallel_registry
    specs = {**pettingzoo.aec_registry, **together}
    own = [Game(known.replace("-v", "_v"), specs[known].entry_point, known not in together) for known in sorted(specs)]
    return own + [Game(f"mpe2/{name}", f"mpe2.{name}:parallel_env", False) for name in games("mpe2")]


def games(family: str) -> list[str]:
    """Return the names of a family's environments, such as "tictactoe_v3"; none where it is not installed."""
    if family == "mpe2":
        spec = find_spec("mpe2")
        where = list(spec.submodule_search_locations or ()) if spec is not None else []
        files = [path.stem for folder in where for path in sorted(Path(folder).glob("*_v*.py"))]
        return [name for name in files if _NAME.fullmatch(name)]
    import pettingzoo  # 15 ms, which others need not wait for

    ids = sorted({*pettingzoo.parallel_registry, *pettingzoo.aec_registry})
    return [known.partition("/")[2].replace("-v", "_v") for known in ids if known.startswith(f"{family}/")]


class PettingZoo(JointEnv):
    """An environment of PettingZoo's own or of mpe2.

    Args:
        game: its id, such as "mpe2/simple_spread_v3".
        **kwargs: arguments of the environment, such as `max_cycles`.

    Raises:
        InputError: there is no such environment, or it takes no such argument.
        ImportError: a package that it needs is not installed.
    """

    def __init__(self, game: str, **kwargs: Any) -> None:
        family, _, name = game.partition("/")
        if family == "mpe2":
            importlib.import_module(family)  # of which it is said how it is installed
        if family not in FAMILIES or name not in games(family):
            known = [f"{other}/{one}" for other in FAMILIES for one in games(other)]
            raise InputError(f"PettingZoo has no environment {game!r}. {nearest(game, known)}")
        try:
            made = _make(family, name, kwargs)
        except TypeError as error:
            raise InputError(f"environment {game!r}: {error}; its arguments are given by --env-kwargs") from error
        super().__init__(made)


def _make(family: str, name: str, kwargs: dict[str, Any]) -> Any:
    if family == "mpe2":
        return importlib.import_module(f"mpe2.{name}").parallel_env(**kwargs)
    import pettingzoo

    game = f"{family}/{name.replace('_v', '-v')}"
    try:
        return pettingzoo.make("parallel" if game in pettingzoo.parallel_registry else "aec", game, **kwargs)
    except Exception as error:
        if isinstance(error.__cause__, ImportError):  # which says what is missing
            raise error.__cause__ from None
        raise
