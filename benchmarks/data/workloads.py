"""What the rivals of throughput.py read: files made from a seed, and the work on each row, the same for all."""

import io
import json
from pathlib import Path

import numpy as np

LENGTH = 128
"""Token ids of a row."""
COLUMNS = 20
"""Numbers of a row of the Parquet files."""
_WORDS = [f"word{index:04d}" for index in range(4096)]
_VOCABULARY = {word: index + 1 for index, word in enumerate(_WORDS)}


def make_jsonl(folder: Path, megabytes: float, files: int = 8) -> int:
    """Write texts of 5 to 60 words as JSONL; return the number of rows."""
    rows = 0
    for index in range(files):
        rng = np.random.default_rng([1, index])
        with (folder / f"part-{index:03d}.jsonl").open("w") as file:
            while file.tell() < megabytes * 1e6 / files:
                words = rng.integers(len(_WORDS), size=(200, 60))
                for row, length in zip(words, rng.integers(5, 61, size=200), strict=True):
                    text = " ".join(_WORDS[word] for word in row[:length])
                    file.write(json.dumps({"id": rows, "text": text}) + "\n")
                    rows += 1
    return rows


def make_png(folder: Path, count: int, classes: int = 10) -> int:
    """Write pictures of 64 × 64, a folder per class; return their number."""
    from PIL import Image

    rng = np.random.default_rng(2)
    ramp = np.add.outer(np.arange(64), np.arange(64))[..., np.newaxis] * 2
    for index in range(count):
        target = folder / f"class{index % classes}"
        target.mkdir(exist_ok=True)
        noise = rng.normal(0, 6, (64, 64, 3)) + rng.integers(-60, 60, 3)
        buffer = io.BytesIO()
        Image.fromarray((ramp + noise).clip(0, 255).astype(np.uint8)).save(buffer, "png")
        (target / f"{index:06d}.png").write_bytes(buffer.getvalue())
    return count


def make_parquet(folder: Path, megabytes: float, files: int = 8) -> int:
    """Write float32 columns x0 … and a label in row groups of at most 8 MB; return the number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = int(megabytes * 1e6 / files / (COLUMNS * 4 + 8))
    for index in range(files):
        rng = np.random.default_rng([3, index])
        columns = {f"x{column}": rng.standard_normal(rows, dtype=np.float32) for column in range(COLUMNS)}
        table = pa.table({**columns, "label": rng.integers(10, size=rows)})
        pq.write_table(table, folder / f"part-{index:03d}.parquet", row_group_size=90_000)
    return rows * files


def tokens(text: str) -> np.ndarray:
    """Return the ids [128] int32 of a text's words, padded with 0."""
    found = np.zeros(LENGTH, np.int32)
    ids = [_VOCABULARY.get(word, 0) for word in text.split()[:LENGTH]]
    found[: len(ids)] = ids
    return found


def features(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns x0 … as one array [B, 20], and the label."""
    return {"x": np.stack([columns[f"x{index}"] for index in range(COLUMNS)], axis=1), "label": columns["label"]}


def checksum(array: np.ndarray) -> int:
    """Return a number that tells whether all rows came, whatever their order."""
    return int(array.reshape(len(array), -1)[:, 0].sum(dtype=np.int64))
