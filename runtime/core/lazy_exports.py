"""Names of a package that are imported when somebody asks for them (PEP 562)."""

import ast
import sys
from collections.abc import Callable
from typing import Any

from .held_signals import import_whole


def lazy_exports(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package, with which it has what its own `__init__` imports for type
    checkers (``if TYPE_CHECKING:``) as if it were imported there; each name is imported at its first use.

    So the names stand once, where type checkers and readers look for them.
    """
    module, homes = sys.modules[package], _homes(package)

    def load(name: str) -> Any:
        if name not in homes:
            # With the module, Python adds the nearest name to the message.
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=module)
        home, own_name = homes[name]
        value = getattr(import_whole(home, package), own_name)
        setattr(module, name, value)
        return value

    return load, lambda: sorted({*vars(module), *homes})


def _homes(package: str) -> dict[str, tuple[str, str]]:
    """Name → (module, its name there)."""
    loader: Any = sys.modules[package].__loader__
    homes: dict[str, tuple[str, str]] = {}
    for block in ast.parse(loader.get_source(package)).body:
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING":
            for node in block.body:
                assert isinstance(node, ast.ImportFrom)
                home = "." * node.level + (node.module or "")
                homes |= {alias.asname or alias.name: (home, alias.name) for alias in node.names}
    return homes
