"""Train on Parquet files, stop in mid-epoch, go on to the same weights: python examples/train_from_dataset.py"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from shoal import data


def write_numbers(folder: Path) -> None:
    """Write points in the plane, labelled by whether they lie in a ring."""
    points = np.random.default_rng(0).normal(size=(20_000, 2)).astype(np.float32)
    radius = np.linalg.norm(points, axis=1)
    rows = [{"point": point, "label": int(0.8 < r < 1.6)} for point, r in zip(points, radius, strict=True)]
    data.from_items(rows, rows_per_piece=5_000).write_parquet(folder)


def with_radius(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A stage: runs in tasks, on what each of them has read."""
    return {**batch, "radius": np.linalg.norm(batch["point"], axis=1).astype(np.float32)}


def train(dataset: data.Dataset, model: nn.Module, state: dict | None, batches: int) -> dict:
    """Train on so many batches; return where the dataset stands then."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with dataset.to_torch(batch_size=100, prefetch=2, state=state) as reading:
        for _, batch in zip(range(batches), reading, strict=False):
            inputs = torch.cat([batch["point"], batch["radius"][:, None]], dim=1)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), batch["label"])
            loss.backward()
            optimizer.step()
    print(f"loss {loss:.3f} after batch {reading.state()['batch']}")
    return reading.state()


def main() -> None:
    """Train twice: in one go, and with a stop."""
    torch.set_num_threads(1)  # of a network this small several would only wait for each other
    with tempfile.TemporaryDirectory() as name:
        write_numbers(Path(name) / "points")
        points = data.read_parquet(f"{name}/points").map_batches(with_radius).shuffle(seed=0, window=4_000).repeat(2)
        weights = []
        for stops in ([400], [130, 270]):
            torch.manual_seed(0)
            model, state = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 2)), None
            for batches in stops:
                state = train(points, model, state, batches)
            weights.append(nn.utils.parameters_to_vector(model.parameters()))
        print("the same weights:", torch.equal(*weights))


if __name__ == "__main__":
    main()
