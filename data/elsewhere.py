"""What Ray Data and Hugging Face's datasets call things, or have, and what there is for it here.

Each is a sentence that an error ends with. A test holds that no name here hides one of ours.
"""

import os
import re

from ..runtime import InputError, sentences

_COLUMNS = "map_batches(lambda batch: {…}) says which columns there are; read_parquet(…, columns=[…]) reads only some"
_WHOLE = (
    "to_table() is all of it, and pyarrow.compute has functions of columns; groupby(key).aggregate(…) goes by groups"
)

_DATASET = {
    "limit head": "take(n) keeps the first n rows",
    "take_all to_list": "list(dataset.iter_rows()), or to_table() as one table",
    "take_batch": "next(iter(dataset.iter_batches(n)))",
    "show": "print(dataset.take(n).to_table()), or a loop over iter_rows()",
    "columns column_names features": "schema().names",
    "num_rows size": "count()",
    "materialize persist cache": "a plan is read anew each time: write_parquet(FOLDER) keeps what it makes, and "
    "data.read_parquet(FOLDER) goes on from there",
    "random_shuffle randomize_block_order": "shuffle(seed, window)",
    "repartition num_blocks": "tasks read the pieces that files have: write_parquet(FOLDER, rows_per_file=n) cuts them "
    "anew",
    "streaming_split iterator shard": "split(k), whose shares have iter_batches and to_torch",
    "train_test_split split_at_indices split_proportionately": "filter(…) twice, by a column or a hash of it",
    "iter_torch_batches with_format set_format": "to_torch(batch_size)",
    "to_pandas": "to_table().to_pandas()",
    "to_arrow_refs to_numpy_refs to_pandas_refs to_arrow": "to_table()",
    "add_column with_column": 'map_batches(lambda batch: {**batch, "new": …})',
    "drop_columns select_columns rename_columns remove_columns rename_column": _COLUMNS,
    "random_sample": "filter(lambda row: random.random() < 0.1), which draws the same rows for any number of readers",
    "sum mean min max std aggregate unique": _WHOLE,
    "join": "to_table().join(other.to_table(), keys) joins what fits into memory; zip joins row by row",
    "concatenate": "union(other)",
}
_GROUPS = {
    "count sum mean min max std": "aggregate(total=(column, 'sum')); functions: count, max, mean, min, std, sum, var",
    "map_groups": "groups are aggregated only: sort(key), and a loop over iter_rows() with itertools.groupby",
}
_MODULE = {
    "range range_tensor": 'from_items(range(n)), whose column is "item"',
    "from_pandas": "from_items(frame.to_dict('records')), or write it as Parquet",
    "from_arrow": "from_items(table.to_pylist()), or write it as a file",
    "from_numpy": "from_items([{'x': row} for row in array]), or read_numpy of a file that np.save has written",
    "from_huggingface load_dataset": "from_torch(dataset), as of any map-style dataset",
    "read_binary_files read_sql read_avro read_mongo read_bigquery": "from_source(…) reads by a class of yours",
    "DataContext ExecutionOptions": "dataset.options(memory=…, readers=…)",
}
_OPTIONS = {
    "fn_constructor_args": "fn_args, which the constructor of a class gets",
    "fn_constructor_kwargs": "fn_kwargs, which the constructor of a class gets",
    "compute": "concurrency=n, for a class",
    "zero_copy_batch": "arrays of a batch are views, always, and read-only: copy one to write into it",
    "memory": "options(memory=…), of the whole dataset",
    "num_workers num_proc parallelism concurrency": "options(readers=…), of the whole dataset",
    "batched": "map takes rows, map_batches batches",
}
_READING = {
    "prefetch_batches prefetch_blocks num_workers": "to_torch(batch_size, prefetch=…); options(memory=…, readers=…) "
    "bound what is read ahead",
    "local_shuffle_buffer_size local_shuffle_seed shuffle": "shuffle(seed, window), a stage before",
    "dtypes": "a column of the type, made by map_batches",
    "collate_fn": "map_batches(…), a stage before",
    "pin_memory": "device='cuda'",
}


DATASET, GROUPS = sentences(_DATASET), sentences(_GROUPS)
MODULE, OPTIONS, READING = sentences(_MODULE), sentences(_OPTIONS), sentences(_READING)


def require_local(path: str | os.PathLike[str]) -> None:
    """Raise InputError if a path is a URL, as of a bucket: it would be taken for a folder of that name."""
    if isinstance(path, str) and re.match(r"[a-z][a-z0-9+.-]*://", path):
        raise InputError(
            f"{path!r} is a URL; paths of this machine's file systems are wanted. Mount the bucket (s3fs, gcsfuse), or "
            "copy the files"
        )
