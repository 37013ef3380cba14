"""LightGBM in an actor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...runtime import ActorHandle, get, kill, remote
from .rounds import ATTEMPTS, History, put_rows
from .table import Table


class Booster:
    """Actor class: what adds rounds to a model; it keeps nothing that it could not read again."""

    def boost(
        self,
        model: str | None,
        rounds: int,
        parameters: Mapping[str, Any],
        categorical: Sequence[int],
        *arrays: np.ndarray,
    ) -> tuple[str, History]:
        """Add rounds to a model, in LightGBM's text format; None begins one. `arrays` are features and labels to learn
        from, then those that are held out, if any."""
        import lightgbm

        told = dict(parameters) | {"verbosity": -1}
        train, *held_out = [
            lightgbm.Dataset(features, labels, categorical_feature=list(categorical), params=told, free_raw_data=False)
            for features, labels in zip(arrays[::2], arrays[1::2], strict=True)
        ]
        sets = {"train": train} | ({"eval": held_out[0].set_reference(train)} if held_out else {})
        history: History = {}
        booster = lightgbm.train(
            told,
            train,
            rounds,
            valid_sets=list(sets.values()),
            valid_names=list(sets),
            init_model=None if model is None else lightgbm.Booster(model_str=model),
            callbacks=[lightgbm.record_evaluation(history)],
        )
        return booster.model_to_string(num_iteration=-1), {part: dict(found) for part, found in history.items()}


class BoostingActor:
    """The actor, with the rows that it learns from and those that are held out."""

    def __init__(self, train: Table, held_out: Table | None) -> None:
        self._arrays = put_rows(train, held_out)
        self._categorical = [i for i, feature in enumerate(train.schema.features) if feature.categories is not None]
        self.actor: ActorHandle = remote(max_restarts=-1, max_task_retries=ATTEMPTS)(Booster).remote()

    def boost(self, model: bytes | None, rounds: int, parameters: Mapping[str, Any]) -> tuple[bytes, History]:
        """Add rounds to a model, however often the actor dies; see `Booster.boost`."""
        text = None if model is None else model.decode()
        call = self.actor.boost.remote(text, rounds, parameters, self._categorical, *self._arrays)
        text, history = get(call)
        return text.encode(), history

    def close(self) -> None:
        """End the actor."""
        kill(self.actor)
