"""A model of a table that has been fitted, and the files it is saved as: `model.json` and the library's own format."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import Space, spaces

from ..runs.checkpoint import FORMAT, MODEL
from ..runs.files import json_bytes
from .table import TableSchema


class FittedModel(ABC):
    """A model as it predicts. It acts as a policy does, so that it is served as one: its observation is a row of
    features, its action what it predicts of it. The library is loaded, and reads its file, at the first prediction:
    who saves a model, or reads what it is, needs neither.

    Args:
        schema: of the table that it was fitted on.
        content: the library's own file.
        rounds: of boosting, that count: those up to the best one.
    """

    kind: ClassVar[str]
    file: ClassVar[str]
    """Name of the library's own file."""

    def __init__(
        self, schema: TableSchema, content: bytes, rounds: int, details: Mapping[str, Any] | None = None
    ) -> None:
        self.details = dict(details or {})
        self.schema, self.content, self.version = schema, content, rounds
        self.observation_space, self.action_space = spaces_of(schema)

    @abstractmethod
    def predict(self, features: np.ndarray) -> np.ndarray:
        """Probabilities [rows, classes] or quantities [rows] for features [rows, F] (or as rows are shaped) float32,
        NaN where missing."""

    def act_with_memory(
        self, observations: np.ndarray, memory: Any = None, *, deterministic: bool = True, noise_stream: Any = None
    ) -> tuple[Any, None]:
        """Predictions [rows] as the action space has them: the most likely class, as its place in `schema.classes`, and
        the probabilities; or quantities."""
        predicted = self.predict(observations).astype(np.float32)
        if self.schema.classes is None:
            return predicted, None
        return {"label": predicted.argmax(axis=1), "probabilities": predicted}, None

    def initial_memory(self, rows: int) -> None:
        """None: a model remembers nothing."""
        return

    def files(self, **entries: Any) -> dict[str, bytes]:
        """What `load_model` reads, name to content; `entries` stand in model.json, too."""
        document = {
            "format": FORMAT,
            "kind": self.kind,
            "schema": self.schema.to_json(),
            "rounds": self.version,
            "details": self.details,
            "sha256": hashlib.sha256(self.content).hexdigest(),
            **entries,
        }
        return {MODEL: json_bytes(document), self.file: self.content}


def spaces_of(schema: TableSchema) -> tuple[Space, Space]:
    """What a row of features, and what is predicted of it, are elements of."""
    observed = spaces.Box(-np.inf, np.inf, schema.row_shape, np.float32)
    if schema.classes is None:
        return observed, spaces.Box(-np.inf, np.inf, (), np.float32)
    count = len(schema.classes)
    return observed, spaces.Dict(
        {"label": spaces.Discrete(count), "probabilities": spaces.Box(0.0, 1.0, (count,), np.float32)}
    )
