"""The contract of objects: arrays and tensors in shared memory, serializers, copies, what keeps an object alive."""

import dataclasses
import io
import os
import pickle
import threading

import numpy as np
import pytest

from shoal import runtime
from shoal.runtime.util import deregister_serializer, inspect_serializability, register_serializer

# Workers import this module, and with it torch: once, in the process that they are forked from.
PRELOAD = ("numpy", "torch")
BIG = 300_000  # elements: far beyond what travels inside messages


@runtime.remote
def echo(value):
    return value


def place_in_memory(array):
    return array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else array.data_ptr()


def offset_of(array):
    """Return by how many bytes an array lies behind a multiple of 64."""
    return place_in_memory(array) % 64


def place_of(array):
    """Return the file and the offset in it at which an array lies in memory, and the pid."""
    address = place_in_memory(array)
    with open("/proc/self/maps") as maps:
        for line in maps:
            bounds, _, offset, _, inode, *_ = line.split()
            start, end = (int(bound, 16) for bound in bounds.split("-"))
            if start <= address < end:
                return int(inode), int(offset, 16) + address - start, os.getpid()
    return None


@runtime.remote
class Locator:
    def where(self, array):
        return place_of(array)


@dataclasses.dataclass
class Episode:
    observations: np.ndarray
    info: dict


class Tagged(np.ndarray):
    """A subclass that pickles as arrays do."""


# numpy ----------------------------------------------------------------------------------------------------------------

ARRAYS = {
    "plain": np.arange(BIG),
    "structured": np.zeros(BIG, [("a", "i4"), ("b", "f8", 2)]),
    "objects": np.array([1, "two", None, {"three": 3}], object),
    "zero_dimensions": np.array(3.5),
    "empty": np.zeros((0, 7)),
    "fortran": np.asfortranarray(np.arange(BIG).reshape(3, -1)),
    "strided": np.arange(2 * BIG)[::2],
    "reversed": np.arange(BIG)[::-1],
    "transposed": np.arange(BIG).reshape(10, 20, -1).transpose(2, 0, 1),
    "broadcast": np.broadcast_to(np.arange(1000), (300, 1000)),
    "dates": np.arange(BIG).astype("M8[s]"),
    "durations": np.arange(BIG).astype("m8[ms]"),
    "text": np.array(["a", "bcd"] * BIG),
    "big_endian": np.arange(BIG, dtype=">f4"),
    "half": np.arange(1000, dtype=np.float16).repeat(300),
    "masked": np.ma.array(np.arange(BIG), mask=np.arange(BIG) % 2),
    "subclass": np.arange(BIG).view(Tagged),
}


_COPIED_BY_RAY = {"dates", "durations", "subclass"}


@pytest.mark.parametrize("name", ARRAYS)
def test_every_kind_of_array_comes_out_as_it_went_in(engine, name):
    array = ARRAYS[name]
    for result in (runtime.get(runtime.put(array)), runtime.get(echo.remote({"inside": [array]}))["inside"][0]):
        assert type(result) is type(array)
        assert result.dtype == array.dtype
        assert result.shape == array.shape
        np.testing.assert_array_equal(np.asarray(result), np.asarray(array))
    if name == "masked":
        assert (result.mask == array.mask).all()
    elif name != "objects" and (engine != "ray" or name not in _COPIED_BY_RAY):
        assert not result.flags.writeable


@pytest.mark.parametrize("name", [name for name in ARRAYS if name != "objects"])
def test_a_copy_can_be_written_and_changes_nothing_else(engine, name):
    ref = runtime.put(ARRAYS[name])
    for owner in (ref, runtime.put(runtime.get(ref)), echo.remote(ref)):  # also of what was read-only when it was put
        copy = runtime.get(owner, copy=True)
        assert copy.flags.writeable
        if copy.size:
            copy[...] = copy.flat[copy.size - 1]
        np.testing.assert_array_equal(np.asarray(runtime.get(owner)), np.asarray(ARRAYS[name]))


SIZES = [1, 63, 1000, 4096, 99_000, 200_000]


@pytest.mark.engines("native", "serial", reason="on Ray what travels in a message lies where its pickle does")
@pytest.mark.parametrize("size", SIZES)
def test_arrays_begin_at_multiples_of_64_bytes(engine, size):
    @runtime.remote
    def offsets(array, held):
        return [offset_of(array), *map(offset_of, held.values())]

    arrays = {"bytes": np.zeros(size, np.uint8), "floats": np.zeros(size // 8 + 1), "again": np.ones(size, np.int8)}
    assert set(runtime.get(offsets.remote(arrays["bytes"], arrays))) == {0}
    assert {offset_of(array) for array in runtime.get(echo.remote(arrays)).values()} == {0}


@pytest.mark.engines("native", "serial", reason="on Ray copies and tensors lie where their libraries put them")
@pytest.mark.parametrize("size", SIZES)
def test_copies_and_tensors_begin_there_too(engine, size):
    torch = pytest.importorskip("torch")
    ref = runtime.put([np.zeros(size, np.uint8), np.zeros(size), torch.zeros(size)])
    for copy in (True, False):
        assert {offset_of(array) for array in runtime.get(ref, copy=copy)} == {0}


def test_copies_of_a_list_of_references(engine):
    first, second = runtime.get([runtime.put(np.zeros(5)), runtime.put(np.zeros(BIG))], copy=True)
    first += 1
    second += 1


def test_two_gets_in_one_process_view_the_same_memory(engine):
    ref = runtime.put({"a": np.arange(BIG)})
    first, second = runtime.get(ref)["a"], runtime.get(ref)["a"]
    assert first.__array_interface__["data"] == second.__array_interface__["data"]
    assert np.shares_memory(first, second)


def test_workers_view_the_block_that_the_driver_wrote(engine):
    if engine == "serial":
        pytest.skip("one process")
    ref = runtime.put(np.arange(BIG))
    locators = [Locator.remote() for _ in range(2)]
    first, second = runtime.get([locator.where.remote(ref) for locator in locators])
    assert first[:2] == second[:2]
    assert first[2] != second[2]
    assert place_of(runtime.get(ref))[:2] == first[:2]


def test_writing_to_a_result_in_a_task_names_the_cure(engine):
    @runtime.remote
    def write(array):
        array[0] = 1

    with pytest.raises(ValueError, match="read-only") as caught:
        runtime.get(write.remote(np.zeros(BIG)))
    assert any("get(ref, copy=True)" in note for note in caught.value.__cause__.__notes__)


# torch ----------------------------------------------------------------------------------------------------------------

torch = pytest.importorskip("torch")

TENSORS = {
    "plain": lambda: torch.arange(BIG),
    "small": lambda: torch.arange(3),
    "zero_dimensions": lambda: torch.tensor(2.5),
    "empty": lambda: torch.zeros(0, 3),
    "bfloat16": lambda: torch.arange(BIG).to(torch.bfloat16),
    "float8": lambda: torch.zeros(BIG).to(torch.float8_e4m3fn),
    "complex": lambda: torch.arange(BIG) * 1j,
    "conjugate": lambda: torch.conj(torch.arange(BIG) * 1j),
    "strided": lambda: torch.arange(BIG * 2).reshape(2, -1).t(),
    "part": lambda: torch.arange(BIG * 10)[5 : BIG + 5],
    "expanded": lambda: torch.arange(1000).expand(300, 1000),
    "sparse": lambda: torch.eye(500).to_sparse(),
    "leaf": lambda: torch.ones(BIG, requires_grad=True),
}


_NOT_ON_RAY = pytest.mark.engines("native", "serial", reason="Ray cannot take these")


@pytest.mark.parametrize("name", [pytest.param(n, marks=_NOT_ON_RAY if n == "float8" else ()) for n in TENSORS])
def test_every_kind_of_tensor_comes_out_as_it_went_in(engine, name):
    tensor = TENSORS[name]()
    for result in (runtime.get(runtime.put(tensor)), runtime.get(echo.remote({"inside": [tensor]}))["inside"][0]):
        assert type(result) is torch.Tensor
        assert (result.dtype, result.shape, result.layout) == (tensor.dtype, tensor.shape, tensor.layout)
        assert result.requires_grad == tensor.requires_grad
        ours, theirs = (each.detach().to_dense() for each in (result, tensor))
        assert torch.equal(ours.float(), theirs.float()) if "float8" in name else torch.equal(ours, theirs)
        if tensor.layout is torch.strided and name != "part":
            assert result.stride() == tensor.stride()


@pytest.mark.parametrize("copy", [False, True])
def test_a_got_tensor_can_be_written_and_nobody_else_sees_it(engine, copy):
    ref = runtime.put([torch.zeros(BIG), torch.zeros(3)])
    for tensor in runtime.get(ref, copy=copy):
        tensor.add_(1)
        assert (tensor == 1).all()
    for tensor in (*runtime.get(ref), *runtime.get(echo.remote(ref))):
        assert (tensor == 0).all()


def test_a_written_tensor_stays_as_it_is_when_the_object_is_gone(engine):
    ref = runtime.put(torch.zeros(BIG))
    tensor = runtime.get(ref)
    tensor[: BIG // 2] = 5
    del ref
    others = [runtime.put(torch.ones(BIG)) for _ in range(5)]
    assert (tensor[: BIG // 2] == 5).all()
    assert (tensor[BIG // 2 :] == 0).all()
    del others


@pytest.mark.engines("native", "serial", reason="on Ray tensors are copied out of its store")
def test_tensors_lie_in_the_block_that_was_written_once(engine):
    if engine == "serial":
        pytest.skip("one process")
    ref = runtime.put(torch.zeros(BIG))
    there = runtime.get(Locator.remote().where.remote(ref))
    assert place_of(runtime.get(ref))[:2] == there[:2]


@pytest.mark.engines("native", "serial", reason="Ray copies each tensor by itself, as torch pickles it")
def test_tensors_that_share_memory_do_so_afterwards(engine):
    base = torch.zeros(BIG)
    both = runtime.get(runtime.put({"whole": base, "half": base[: BIG // 2]}))
    both["half"].add_(1)
    assert both["whole"][: BIG // 2].eq(1).all()
    assert both["whole"][BIG // 2 :].eq(0).all()


@pytest.mark.engines("native", "serial", reason="Ray copies tensors as torch pickles them")
def test_a_small_part_of_a_tensor_does_not_bring_the_whole_along(engine):
    row = runtime.get(runtime.put(torch.zeros(1000, 1000)[3]))
    assert row.untyped_storage().nbytes() == 4000


def test_parameters_and_modules_come_out_as_they_went_in(engine):
    layer = torch.nn.Linear(300, 300)
    layer.bias.requires_grad_(False)
    result = runtime.get(echo.remote(layer))
    assert type(result.weight) is torch.nn.Parameter
    assert (result.weight.requires_grad, result.bias.requires_grad) == (True, False)
    assert torch.equal(result.weight, layer.weight)
    result(torch.zeros(1, 300)).sum().backward()
    torch.optim.SGD([result.weight], lr=1.0).step()


def test_tied_weights_stay_tied(engine):
    first, second = torch.nn.Linear(300, 300), torch.nn.Linear(300, 300)
    second.weight = first.weight
    model = runtime.get(runtime.put(torch.nn.Sequential(first, second)))
    assert model[0].weight is model[1].weight


def test_pyarrow_tables_share_memory(engine):
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"a": np.arange(BIG)})
    first, second = (runtime.get(ref) for ref in [runtime.put(table)] * 2)
    assert first.equals(table)
    assert second.equals(table)


# Other buffers --------------------------------------------------------------------------------------------------------


def test_buffers_inside_any_structure(engine):
    episode = Episode(np.arange(BIG), {"raw": bytearray(b"ab" * BIG), "text": "ü" * BIG, "bytes": b"xyz" * BIG})
    for result in (runtime.get(runtime.put(episode)), runtime.get(echo.remote(episode))):
        assert (result.observations == episode.observations).all()
        assert result.info == episode.info
        assert isinstance(result.info["raw"], bytearray)


def test_a_pickle_buffer_comes_out_as_a_buffer(engine):
    result = runtime.get(runtime.put([pickle.PickleBuffer(bytes(500_000))]))[0]
    assert memoryview(result).nbytes == 500_000


@pytest.mark.parametrize("value", [b"a" * 10, b"a" * 500_000, "a" * 500_000, bytearray(500_000), [b"a" * 500_000] * 3])
def test_bytes_of_any_size(engine, value):
    result = runtime.get(runtime.put(value))
    assert result == value
    assert type(result) is type(value) or (engine == "ray" and type(value) is bytearray)  # of which Ray makes bytes
    assert runtime.get(echo.remote(value)) == value


# Serializers ----------------------------------------------------------------------------------------------------------


class Locked:
    def __init__(self, value):
        self.value = value
        self.lock = threading.Lock()


@pytest.fixture
def locked_is_registered():
    register_serializer(Locked, serializer=lambda locked: locked.value, deserializer=Locked)
    yield
    deregister_serializer(Locked)


def test_a_registered_class_travels_inside_anything(engine, locked_is_registered):
    result = runtime.get(runtime.put({"inside": [Locked(np.arange(BIG))]}))["inside"][0]
    assert isinstance(result, Locked)
    assert (result.value == np.arange(BIG)).all()


def test_a_worker_that_returns_a_registered_class_registers_it_too(engine, locked_is_registered):
    @runtime.remote
    def make(value):
        register_serializer(Locked, serializer=lambda locked: locked.value, deserializer=Locked)
        return Locked(value)

    @runtime.remote
    def read(locked):
        return locked.value

    assert runtime.get(make.remote(3)).value == 3
    assert runtime.get(read.remote(Locked(4))) == 4


@pytest.mark.engines("native", "serial", reason="Ray has its own words")
def test_a_class_is_not_registered_any_more(engine):
    register_serializer(Locked, serializer=lambda locked: locked.value, deserializer=Locked)
    deregister_serializer(Locked)
    deregister_serializer(Locked)
    with pytest.raises(TypeError, match=r"Locked cannot be sent.*inspect_serializability"):
        runtime.put(Locked(1))


def test_what_cannot_be_registered_is_refused():
    with pytest.raises(runtime.InputError, match="want a class"):
        register_serializer(3, serializer=str, deserializer=int)
    with pytest.raises(runtime.InputError, match="built-in"):
        register_serializer(dict, serializer=str, deserializer=int)
    with pytest.raises(TypeError, match="cannot be called"):
        register_serializer(Locked, serializer=3, deserializer=int)


def test_the_member_that_cannot_be_sent_is_named():
    lock = threading.Lock()
    episode = Episode(np.zeros(3), {"deep": [1, Locked(2)], "fine": 3})
    out = io.StringIO()
    ok, failures = inspect_serializability(episode, name="episode", print_file=out)
    assert not ok
    assert [failure.path for failure in failures] == ["episode.info['deep'][1].lock"]
    assert type(failures[0].obj) is type(lock)
    assert "└── .lock" in out.getvalue()
    assert "fine" not in out.getvalue()


def test_a_function_that_captures_what_cannot_be_sent():
    lock = threading.Lock()

    def use():
        return lock

    ok, failures = inspect_serializability(use, print_file=io.StringIO())
    assert not ok
    assert failures[0].path.endswith("use captures lock")


def test_what_can_be_sent_has_no_failures():
    assert inspect_serializability({"a": 1}, print_file=io.StringIO()) == (True, [])


# put and references ---------------------------------------------------------------------------------------------------


def test_put_of_a_reference_is_refused(engine):
    with pytest.raises(TypeError, match="it is a reference already"):
        runtime.put(runtime.put(1))


def test_the_option_owner_of_put_is_refused_by_name(engine):
    with pytest.raises(TypeError, match=r"'_owner'.*put it in the actor"):
        runtime.put(1, _owner=None)
    with pytest.raises(TypeError, match="'colour'"):
        runtime.put(1, colour="red")


@runtime.remote
class Holder:
    """Keeps references in its state, and passes them on."""

    def keep(self, held):
        self.held = held

    def pass_on(self, other):
        runtime.get(other.keep.remote({"passed": [self.held["inside"][0]]}))

    def read(self):
        (refs,) = self.held.values()
        return int(runtime.get(refs[0]).sum())

    def forget(self):
        self.held = None


def test_a_reference_in_an_actors_state_keeps_its_target_through_a_chain_of_borrowers(engine):
    first, second = Holder.remote(), Holder.remote()
    ref = runtime.put(np.ones(BIG))
    runtime.get(first.keep.remote({"inside": [ref]}))
    del ref
    if engine == "native":  # on the serial engine an actor cannot be called while another of its calls waits
        runtime.get(first.pass_on.remote(second))
        runtime.get(first.forget.remote())
    else:
        second = first
    assert runtime.get(second.read.remote()) == BIG
    runtime.get(second.forget.remote())


def test_references_nested_in_objects_keep_the_innermost_alive(engine):
    outermost = runtime.put([runtime.put({"ref": runtime.put(np.ones(BIG))})])
    innermost = runtime.get(runtime.get(outermost)[0])["ref"]
    del outermost
    assert runtime.get(innermost).sum() == BIG
