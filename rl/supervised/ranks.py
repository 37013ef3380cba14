"""XGBoost's ranks on actors, by its own tracker and collective.

XGBoost's model depends on the number of ranks: each contributes a sketch of its rows' quantiles, and sketches merge
approximately. So the number of ranks is a setting, and actors only decide who computes which of them: its collective is
one for each thread, so an actor holds several ranks as threads of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np

from ...runtime import (
    ActorHandle,
    InputError,
    ObjectRef,
    PlacementGroup,
    PlacementGroupSchedulingStrategy,
    engine_name,
    exceptions,
    get,
    kill,
    method,
    nodes,
    remote,
    util,
    wait,
)
from .rounds import ATTEMPTS, History, put_rows
from .table import Table

_COLLECTIVE_SECONDS = 60
_SILENCE = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(lambda line: None)
_STRAGGLER_SECONDS = 5.0
_SPREAD: dict[str, Any] = {"num_cpus": 1, "scheduling_strategy": "SPREAD"}


@dataclass(frozen=True)
class Task:
    """What all ranks do.

    Attributes:
        world: how many there are.
        generation: a new one for all after a loss: quantiles are sketched together, so either all ranks keep what they
            have or none does.
        rounds: how many to add.
        parameters: of XGBoost.
        types: "q" or "c" of each feature.
    """

    world: int
    generation: int
    rounds: int
    parameters: Mapping[str, Any]
    types: tuple[str, ...]


class Meeting:
    """Actor class: where ranks find each other. Apart from them, so that a killed one leaves it whole.

    `address` is this node's, by which the ranks reach it; None: its address in the network.
    """

    def __init__(self, address: str | None) -> None:
        self._tracker: Any = None
        self._address = own_address() if address is None else address

    def begin(self, world: int) -> dict[str, Any]:
        """Start a tracker for `world` ranks; return what each needs to join."""
        from xgboost.core import XGBoostError
        from xgboost.tracker import RabitTracker

        if self._tracker is not None:
            with contextlib.suppress(XGBoostError):  # it tells once more that ranks died
                self._tracker.free()
        self._tracker = RabitTracker(n_workers=world, host_ip=self._address, sortby="task", timeout=_COLLECTIVE_SECONDS)
        self._tracker.start()
        joining: dict[str, Any] = self._tracker.worker_args()
        return joining


class RankHost:
    """Actor class: some of the ranks, each a thread."""

    def __init__(self) -> None:
        self._life = uuid4().hex
        self._matrices: dict[tuple[int, int], tuple[Any, ...]] = {}

    def life(self) -> str:
        """What tells this life of the actor from others, before and after a kill."""
        return self._life

    @method(max_task_retries=0)
    def boost(
        self,
        ranks: Sequence[int],
        task: Task,
        joining: Mapping[str, Any],
        model: bytes | None,
        *arrays: np.ndarray,
    ) -> tuple[bytes, History]:
        """Add rounds to a model, together with the hosts of the other ranks.

        Args:
            ranks: those that run here.
            task: what all do.
            joining: what `Meeting.begin` told.
            model: as UBJ; None begins one.
            arrays: features and labels to learn from, then those that are held out, if any.

        Returns:
            the model as UBJ, and each round's metrics by set and name: the same from each host.
        """
        self._matrices = {key: kept for key, kept in self._matrices.items() if key[1] == task.generation}

        def work(rank: int) -> tuple[bytes, History]:
            import xgboost
            from xgboost.collective import CommunicatorContext

            _tell_errors_only()
            with CommunicatorContext(**joining, dmlc_task_id=f"{rank:06d}", dmlc_timeout=_COLLECTIVE_SECONDS):
                key = rank, task.generation
                if key not in self._matrices:
                    self._matrices[key] = _matrices(rank, task, arrays)
                sets = dict(zip(("train", "eval"), self._matrices[key], strict=False))
                history: History = {}
                booster = xgboost.train(
                    dict(task.parameters),
                    sets["train"],
                    task.rounds,
                    evals=[(matrix, name) for name, matrix in sets.items()],
                    evals_result=history,
                    verbose_eval=False,
                    xgb_model=None if model is None else xgboost.Booster(model_file=bytearray(model)),
                )
                return bytes(booster.save_raw("ubj")), history

        with ThreadPoolExecutor(len(ranks)) as threads:
            done = [threads.submit(work, rank) for rank in ranks]
        return done[0].result()


def _tell_errors_only() -> None:
    """Keep this thread from writing a line for each rank that joins, which no verbosity does. Errors are exceptions."""
    from xgboost.core import _LIB

    _LIB.XGBRegisterLogCallback(_SILENCE)


def _matrices(rank: int, task: Task, arrays: Sequence[np.ndarray]) -> tuple[Any, ...]:
    import xgboost

    made = []
    for features, labels in zip(arrays[::2], arrays[1::2], strict=True):
        own = slice(len(labels) * rank // task.world, len(labels) * (rank + 1) // task.world)
        made.append(
            xgboost.DMatrix(
                features[own], labels[own], feature_types=list(task.types), enable_categorical=True, nthread=1
            )
        )
    return tuple(made)


class Ranks:
    """All ranks, on as many actors as are wanted: their number has no influence on the result.

    Args:
        world: number of ranks.
        workers: number of actors.
        train: what is learned from; each rank has a range of its rows.
        held_out: what is not, but measured in each round; None: nothing.
        apart: whether actors may be on several nodes, and meet in their network.
    """

    def __init__(self, world: int, workers: int, train: Table, held_out: Table | None, *, apart: bool = False) -> None:
        self._world, self._generation, self._lives = world, 0, [""]
        self._arrays = put_rows(train, held_out)
        self._types = tuple("q" if feature.categories is None else "c" for feature in train.schema.features)
        # On the serial engine a call has ended before the next one begins, and ranks wait for each other.
        hosts = 1 if engine_name() == "serial" else workers
        self._own = [[int(rank) for rank in part] for part in np.array_split(np.arange(world), hosts)]
        self._group, placed = (None, _SPREAD) if apart else _on_one_node(hosts)
        self.hosts: list[ActorHandle] = [
            remote(max_restarts=-1, max_task_retries=ATTEMPTS, **placed)(RankHost).remote() for _ in self._own
        ]
        """The actors."""
        beside = placed | {"num_cpus": 0}
        meeting = remote(max_restarts=-1, max_task_retries=ATTEMPTS, **beside)(Meeting)
        self._meeting = meeting.remote(None if apart else "127.0.0.1")

    def boost(self, model: bytes | None, rounds: int, parameters: Mapping[str, Any]) -> tuple[bytes, History]:
        """Add rounds to a model, however many actors die; see `RankHost.boost`."""
        for _ in range(ATTEMPTS):
            # One that has died waits here until it is back: the others would wait for its ranks much longer.
            lives = get([host.life.remote() for host in self.hosts])
            if lives != self._lives:
                self._generation, self._lives = self._generation + 1, lives
            joining = get(self._meeting.begin.remote(self._world))
            task = Task(self._world, self._generation, rounds, parameters, self._types)
            calls = [
                host.boost.remote(own, task, joining, model, *self._arrays)
                for host, own in zip(self.hosts, self._own, strict=True)
            ]
            failures = self._failures(calls)
            if not failures:
                outcome: tuple[bytes, History] = get(calls[0])
                return outcome
            lost = [error for error in failures if isinstance(error, exceptions.ActorError)]
            if not lost:
                raise failures[0]
        raise lost[0]

    def _failures(self, calls: list[ObjectRef]) -> list[BaseException]:
        """What went wrong, once all calls have ended: those that wait for a rank that died hear of it, or are ended."""
        failures: list[BaseException] = []
        waiting = list(calls)
        while waiting:
            ready, waiting = wait(waiting, timeout=_STRAGGLER_SECONDS if failures else None)
            if not ready:
                for host, call in zip(self.hosts, calls, strict=True):
                    if call in waiting:
                        kill(host, no_restart=False)
            for call in ready:
                try:
                    get(call)
                except Exception as error:  # which of them is meant, all together tell
                    failures.append(error)
        return failures

    def close(self) -> None:
        """End the actors."""
        for actor in (*self.hosts, self._meeting):
            kill(actor)
        if self._group is not None:
            util.remove_placement_group(self._group)


def own_address() -> str:
    """This machine's address in its network; the loopback if it is in none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # which sends nothing: it says by which address one would
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _on_one_node(hosts: int) -> tuple[PlacementGroup | None, dict[str, Any]]:
    """Options of so many actors that are to be on one node, whichever. XGBoost's tracker asks nobody who he is, so it
    listens on the loopback alone, and ranks on other nodes would not find it."""
    engine = engine_name()  # Ray lists its nodes by itself: there they are taken for several
    if engine == "serial" or (engine == "native" and len([node for node in nodes() if node["Alive"]]) == 1):
        return None, {}
    try:
        group = util.placement_group([{"CPU": hosts}], strategy="STRICT_PACK")
    except exceptions.InfeasibleError as error:
        raise InputError(
            f"workers is {hosts}, but nodes is 'one', and none has so many CPUs ({error}). Choose fewer (they have no "
            "influence on the result), or nodes 'all' in a network of your own"
        ) from None
    return group, {"num_cpus": 1, "scheduling_strategy": PlacementGroupSchedulingStrategy(group)}
