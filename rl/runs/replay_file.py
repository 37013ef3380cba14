"""The replay buffer's file in a checkpoint, written and read piece by piece: it is never in memory as a whole.

A safetensors file. Piece p is what the buffer took in between two snapshots of the learner (see `LearnerLog`); its
tensor "p.column" holds [rows, …], for trees of arrays "p.column/key"; of records their bytes, as a further axis. Of
several agents, whose policies have buffers of their own, "p.policy/column".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from ...runtime import get, put
from ..data.batch import Batch
from ..data.columns import replay_columns
from ..data.replay import replay_nbytes
from ..data.tree import Tree, leaves, tree_map
from ..learn.log import Piece
from ..models.joint_spec import AnySpec, JointSpec

_TYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64",
}  # fmt: skip


Buffers = Mapping[str, Mapping[str, Tree]]
"""Columns of each replay buffer, by the policy that it belongs to; by "" of the only one of a training of one agent."""


def buffers_of(spec: AnySpec) -> Buffers:
    """The replay buffers of a training."""
    if not isinstance(spec, JointSpec):
        return {"": replay_columns(spec.observation_space, spec.action_space)}
    learning = {name: own for name, own in spec.policies.items() if name not in spec.frozen}
    return {name: replay_columns(own.observation_space, own.action_space) for name, own in learning.items()}


def describe_replay(pieces: Sequence[Piece], buffers: Buffers) -> dict[str, Any]:
    """The entry of training.json: how many transitions and bytes the file holds, and the ends of its pieces."""
    held = [_rows(piece, buffers) for piece in pieces]
    return {
        "transitions": sum(sum(rows.values()) for rows in held),
        "bytes": sum(replay_nbytes(buffers[name], count) for rows in held for name, count in rows.items()),
        "ends": [piece.end for piece in pieces],
    }


def replay_parts(pieces: Sequence[Piece], buffers: Buffers) -> Iterator[bytes | memoryview]:
    """The file's content in parts, each of which is fetched when it is asked for."""
    header: dict[str, Any] = {}
    end = 0
    for index, piece in enumerate(pieces):
        for name, rows in _rows(piece, buffers).items():
            for path, column in leaves(dict(buffers[name]), name):
                begin, end = end, end + rows * column.nbytes
                dtype, shape = np.dtype(column.dtype), (rows, *column.shape)
                if dtype.names is not None:
                    dtype, shape = np.dtype(np.uint8), (*shape, dtype.itemsize)
                header[f"{index}.{path}"] = {"dtype": _TYPES[dtype.name], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for piece in pieces:
        for name, batch in _batches(piece, buffers).items():
            for _, leaf in leaves({column: batch[column] for column in buffers[name]}):
                yield np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data


def _batches(piece: Piece, buffers: Buffers) -> Mapping[str, Batch]:
    content = get(piece.ref)
    return {"": content} if "" in buffers else {name: content[name] for name in buffers}


def _rows(piece: Piece, buffers: Buffers) -> dict[str, int]:
    """Transitions in a piece, of each buffer."""
    if "" in buffers:
        return {"": piece.rows}  # without fetching it
    return {name: batch.rows for name, batch in _batches(piece, buffers).items()}


class SavedReplay:
    """A replay buffer's file, kept open: it stays readable if the checkpoint is removed meanwhile."""

    def __init__(self, path: Path, ends: Sequence[int]) -> None:
        self._file, self._ends = safe_open(str(path), framework="numpy"), ends

    def pieces(self, buffers: Buffers) -> Iterator[Piece]:
        """The pieces, put into the object store one after the other."""
        for index, end in enumerate(self._ends):
            batches = {name: self._batch(index, name, columns) for name, columns in buffers.items()}
            rows = sum(batch.rows for batch in batches.values())
            yield Piece(end, rows, put(batches.get("", batches)))

    def _batch(self, index: int, policy: str, columns: Mapping[str, Tree]) -> Batch:
        arrays = iter([self._read(f"{index}.{path}", column.dtype) for path, column in leaves(dict(columns), policy)])
        return Batch({name: tree_map(lambda _: next(arrays), tree) for name, tree in columns.items()})

    def _read(self, name: str, dtype: Any) -> np.ndarray:
        tensor: np.ndarray = self._file.get_tensor(name)
        return tensor if np.dtype(dtype).names is None else tensor.view(dtype)[..., 0]
