"""What users of Ray Data and Hugging Face write first: the error says what there is here."""

import pickle

import pytest

from shoal import data
from shoal.data import elsewhere
from shoal.data.dataset import Groups
from shoal.runtime import InputError

NUMBERS = data.from_items([{"x": i} for i in range(10)])


@pytest.mark.parametrize(
    ("where", "name", "said"),
    [
        (NUMBERS, "random_shuffle", "Here it is: shuffle(seed, window)"),
        (NUMBERS, "limit", "take(n) keeps the first n rows"),
        (NUMBERS, "streaming_split", "split(k)"),
        (NUMBERS, "iter_torch_batches", "to_torch(batch_size)"),
        (NUMBERS.groupby("x"), "sum", "aggregate(total=(column, 'sum'))"),
        (data, "range", "from_items(range(n))"),
        (data, "from_huggingface", "from_torch(dataset)"),
    ],
)
def test_missing_attributes_say_what_there_is(where, name, said):
    with pytest.raises(AttributeError) as told:
        getattr(where, name)
    assert said in str(told.value)


def test_other_attributes_are_missing_as_ever():
    assert not hasattr(NUMBERS, "something")
    assert pickle.loads(pickle.dumps(NUMBERS)).fingerprint() == NUMBERS.fingerprint()


@pytest.mark.parametrize(
    ("table", "ours"),
    [("DATASET", data.Dataset), ("GROUPS", Groups), ("MODULE", data)],
    ids=["Dataset", "Groups", "data"],
)
def test_no_name_of_elsewhere_hides_one_of_ours(table, ours):
    assert not set(getattr(elsewhere, table)) & {name for name in dir(ours) if not name.startswith("_")}


def test_options_of_elsewhere():
    with pytest.raises(InputError, match=r"no option 'fn_constructor_kwargs'. Here it is: fn_kwargs"):
        NUMBERS.map_batches(dict, fn_constructor_kwargs={"size": 2})
    with pytest.raises(InputError, match=r"no option 'num_proc'. Here it is: options\(readers=…\)"):
        NUMBERS.map(dict, num_proc=2)


def test_arguments_of_reading():
    with pytest.raises(TypeError, match=r"iter_batches has no option 'prefetch_batches'. Here it is: to_torch"):
        NUMBERS.iter_batches(4, prefetch_batches=2)
    with pytest.raises(TypeError, match=r"to_torch has no option 'prefetches'. Did you mean 'prefetch'"):
        NUMBERS.to_torch(4, prefetches=2)


@pytest.mark.parametrize(
    "use", [data.read_parquet, lambda url: data.read_csv([url]), NUMBERS.write_parquet], ids=["read", "list", "write"]
)
def test_urls_are_no_folders(use, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="'s3://bucket/x' is a URL"):
        use("s3://bucket/x")
    assert not list(tmp_path.iterdir())
