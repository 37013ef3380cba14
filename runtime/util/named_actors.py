"""Actors that have names."""

from __future__ import annotations

from typing import Literal, overload

from ..core.engine import current_engine


@overload
def list_named_actors(all_namespaces: Literal[False] = False) -> list[str]: ...


@overload
def list_named_actors(all_namespaces: Literal[True]) -> list[dict[str, str]]: ...


def list_named_actors(all_namespaces: bool = False) -> list[str] | list[dict[str, str]]:
    """Return the names of the living actors in this job's namespace, sorted.

    Args:
        all_namespaces: return those of all namespaces, as dictionaries with "namespace" and "name".
    """
    engine = current_engine()
    if all_namespaces:
        return [{"namespace": namespace, "name": name} for namespace, name in engine.actors.names()]
    return [name for namespace, name in engine.actors.names() if namespace == engine.whereabouts.namespace]
