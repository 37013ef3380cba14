"""A league in the run folder.

RUN/league/SHA256/       a snapshot, a saved policy as any other: it can be evaluated, served, and begun with
RUN/league/table.json    ratings and games, the strongest first, as of the last checkpoint
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime import InputError, get, put
from ..league import LATEST, League
from .checkpoint import read_policy
from .files import write_json, write_summed

LEAGUE = "league"


def write_league(run: str | Path, league: League, files_of: Callable[[np.ndarray, int], dict[str, bytes]]) -> None:
    """Write the snapshots that are not there yet, and the table. `files_of` makes a saved policy of flat weights and
    their version."""
    if not league.opponents:
        return
    folder = Path(run) / LEAGUE
    for opponent in league.opponents:
        snapshot = folder / opponent.sha256
        if not (snapshot / "SHA256SUMS").exists():
            snapshot.mkdir(parents=True, exist_ok=True)
            write_summed(snapshot, files_of(get(league.weights[opponent.sha256]), opponent.version))
    entries: list[dict[str, Any]] = [{"policy": LATEST, "rating": round(league.rating, 1)}]
    for opponent in league.opponents:
        lost = opponent.games - opponent.won - opponent.drawn
        counts = {"games": opponent.games, "won": opponent.won, "drawn": opponent.drawn, "lost": lost}
        told = {"policy": opponent.sha256, "timesteps": opponent.timesteps, "rating": round(opponent.rating, 1)}
        entries.append(told | counts)
    write_json(folder / "table.json", {"table": sorted(entries, key=lambda entry: -entry["rating"])})


def read_league(run: Path, entries: dict[str, Any]) -> League:
    """The league that a checkpoint of a run describes, with the snapshots' weights. InputError if one is missing, or is
    not what its name says."""
    weights = {}
    for opponent in entries["opponents"]:
        sha256 = opponent["sha256"]
        saved = read_policy(run / LEAGUE / sha256)
        found = saved.layout.sha256(saved.weights)
        if found != sha256:
            raise InputError(f"the snapshot {str(run / LEAGUE / sha256)!r} is damaged: its weights have hash {found}")
        weights[sha256] = put(saved.weights)
    return League.from_json(entries, weights)
