"""How each rival reads each workload: generators of integer arrays [batch, …], of which the checksum is taken.

Each is written as its users would: torch's DataLoader with 2 workers that share files out among them (map-style for
pictures, as torchvision's ImageFolder), Ray Data with its own readers and map_batches, unordered as it is by default.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from workloads import features, tokens

BATCH = 256
NUMBERS_BATCH = 4096


def shoal_jsonl(folder: Path) -> Iterator[np.ndarray]:
    from shoal import data

    def tokenize(batch):
        return {"tokens": np.stack([tokens(text) for text in batch["text"]])}

    for batch in data.read_json(folder).map_batches(tokenize).iter_batches(BATCH):
        yield batch["tokens"]


def shoal_png(folder: Path) -> Iterator[np.ndarray]:
    from shoal import data

    for batch in data.read_images(folder, labels=True).iter_batches(BATCH):
        assert batch["image"].shape[1:] == (64, 64, 3)
        yield batch["label"]


def shoal_parquet(folder: Path) -> Iterator[np.ndarray]:
    from shoal import data

    for batch in data.read_parquet(folder).map_batches(features).iter_batches(NUMBERS_BATCH):
        assert batch["x"].shape[1] == 20
        yield batch["label"]


def _torch_loader(dataset, batch_size, **options) -> Iterator:
    from torch.utils.data import DataLoader

    return iter(DataLoader(dataset, batch_size=batch_size, num_workers=2, **options))


def torch_jsonl(folder: Path) -> Iterator[np.ndarray]:
    from torch.utils.data import IterableDataset, get_worker_info

    class Texts(IterableDataset):
        def __iter__(self):
            worker = get_worker_info()
            for path in sorted(folder.iterdir())[worker.id :: worker.num_workers]:
                with path.open() as file:
                    for line in file:
                        yield tokens(json.loads(line)["text"])

    for batch in _torch_loader(Texts(), BATCH):
        yield batch.numpy()


def torch_png(folder: Path) -> Iterator[np.ndarray]:
    from PIL import Image
    from torch.utils.data import Dataset

    class Pictures(Dataset):
        def __init__(self):
            self.paths = sorted(folder.glob("*/*.png"))
            self.classes = sorted(path.name for path in folder.iterdir())

        def __len__(self):
            return len(self.paths)

        def __getitem__(self, index):
            path = self.paths[index]
            with Image.open(path) as image:
                return np.asarray(image.convert("RGB")), self.classes.index(path.parent.name)

    for images, labels in _torch_loader(Pictures(), BATCH):
        assert images.shape[1:] == (64, 64, 3)
        yield labels.numpy()


def torch_parquet(folder: Path) -> Iterator[np.ndarray]:
    import pandas  # noqa: F401 — pyarrow would import it at its first use, which is in each worker of each pass
    import pyarrow.parquet as pq
    from torch.utils.data import IterableDataset, get_worker_info

    class Numbers(IterableDataset):
        def __iter__(self):
            worker = get_worker_info()
            for path in sorted(folder.iterdir())[worker.id :: worker.num_workers]:
                for batch in pq.ParquetFile(path).iter_batches(NUMBERS_BATCH, use_threads=False):
                    yield features({name: batch[name].to_numpy() for name in batch.schema.names})

    for batch in _torch_loader(Numbers(), None):
        assert batch["x"].shape[1] == 20
        yield batch["label"].numpy()


def ray_jsonl(folder: Path) -> Iterator[np.ndarray]:
    import ray

    def tokenize(batch):
        return {"tokens": np.stack([tokens(text) for text in batch["text"]])}

    dataset = ray.data.read_json(str(folder)).map_batches(tokenize)
    for batch in dataset.iter_batches(batch_size=BATCH):
        yield batch["tokens"]


def ray_png(folder: Path) -> Iterator[np.ndarray]:
    import ray
    from ray.data.datasource.partitioning import Partitioning

    classes = {path.name: index for index, path in enumerate(sorted(folder.iterdir()))}
    partitioning = Partitioning("dir", field_names=["class"], base_dir=str(folder))
    dataset = ray.data.read_images(str(folder), mode="RGB", partitioning=partitioning)
    for batch in dataset.iter_batches(batch_size=BATCH):
        assert batch["image"].shape[1:] == (64, 64, 3)
        yield np.array([classes[name] for name in batch["class"]])


def ray_parquet(folder: Path) -> Iterator[np.ndarray]:
    import ray

    dataset = ray.data.read_parquet(str(folder)).map_batches(features)
    for batch in dataset.iter_batches(batch_size=NUMBERS_BATCH):
        assert batch["x"].shape[1] == 20
        yield batch["label"]
