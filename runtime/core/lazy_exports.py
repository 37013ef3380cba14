"""Names of a package that are imported when somebody asks for them (PEP 562)."""

import ast
import sys
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from ..exceptions.elsewhere import missing
from .held_signals import import_whole


def lazy_exports(
    package: str, elsewhere: Mapping[str, str] = MappingProxyType({})
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package, with which it has what its own `__init__` imports for type
    checkers (``if TYPE_CHECKING:``) as if it were imported there; each name is imported at its first use.

    So the names stand once, where type checkers and readers look for them. `elsewhere` has sentences on other
    libraries' names, which errors end with.
    """
    module = sys.modules[package]

    def load(name: str) -> Any:
        homes = _homes(package)
        if name not in homes:
            raise missing(package, name, elsewhere)
        home, own_name = homes[name]
        found = import_whole(home, package)
        value = getattr(found, own_name) if own_name else found
        setattr(module, name, value)
        return value

    return load, lambda: sorted({*vars(module), *_homes(package)})


@cache  # not where the package is imported: a starting runtime asks for none of its own
def _homes(package: str) -> dict[str, tuple[str, str]]:
    """Name → (module, its name there; "": the module itself)."""
    loader: Any = sys.modules[package].__loader__
    homes: dict[str, tuple[str, str]] = {}
    for block in ast.parse(loader.get_source(package)).body:
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING":
            for node in block.body:
                assert isinstance(node, ast.ImportFrom)
                dots = "." * node.level
                for alias in node.names:
                    home = (dots + node.module, alias.name) if node.module else (dots + alias.name, "")
                    homes[alias.asname or alias.name] = home
    return homes
