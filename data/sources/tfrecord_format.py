"""The TFRecord format and tf.train.Example, without TensorFlow.

A file is a sequence of records, each framed as (tensorflow/core/lib/io/record_writer.h)

    uint64 length | uint32 masked CRC32C of these 8 bytes | data | uint32 masked CRC32C of the data

little-endian. The messages are those of tensorflow/core/example/{example,feature}.proto; they are declared here in a
pool of their own, so that they do not meet TensorFlow's where both are in one process.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, BinaryIO

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

_HEAD, _CRC = struct.Struct("<QI"), struct.Struct("<I")
_LONGEST = 2**31 - 1
"""Bytes of the longest message that protobuf takes, which also bounds what a file can make us allocate."""
_KINDS = {"bytes_list": "BYTES", "float_list": "FLOAT", "int64_list": "INT64"}


@dataclass(frozen=True)
class DamagedRecord:
    """A record that is not as it was written."""

    number: int
    offset: int
    """Where its head stands, in bytes."""
    reason: str
    data: bytes | None = None
    """What there is of it."""
    goes_on: bool = False
    """Whether the next record can be found."""


def masked_crc(data: bytes) -> int:
    """The checksum of TFRecord: CRC32C, rotated right by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def framed(data: bytes) -> bytes:
    """One record as it stands in a file."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _CRC.pack(masked_crc(length)), data, _CRC.pack(masked_crc(data))))


def read_records(
    file: BinaryIO, *, number: int = 0, offset: int = 0, stop: int | None = None
) -> Iterator[tuple[int, int, bytes] | DamagedRecord]:
    """Yield number, position in bytes and data of each record from where the file stands, which is record `number` at
    byte `offset`, to byte `stop`; a damaged one as the error that it is.

    After damaged data the next record follows; after a damaged length nothing does, since nobody knows where it is.
    """
    while (stop is None or offset < stop) and (head := file.read(_HEAD.size)):
        length = _length(head)
        if isinstance(length, str):
            yield DamagedRecord(number, offset, length)
            return
        data, tail = file.read(length), file.read(_CRC.size)
        if len(data) < length or len(tail) < _CRC.size:
            reason = f"the file ends after {len(data)} of its {length} bytes"
            yield DamagedRecord(number, offset, reason, data=data)
            return
        if masked_crc(data) != _CRC.unpack(tail)[0]:
            yield DamagedRecord(number, offset, "the data's CRC32C differs", data=data, goes_on=True)
        else:
            yield number, offset, data
        number, offset = number + 1, offset + _HEAD.size + length + _CRC.size


def scan_records(file: BinaryIO) -> Iterator[int]:
    """Yield the position in bytes at which each record begins, as far as lengths are sound; data is not read."""
    offset = 0
    while (head := file.read(_HEAD.size)) and isinstance(length := _length(head), int):
        yield offset
        offset = file.seek(offset + _HEAD.size + length + _CRC.size)


def _length(head: bytes) -> int | str:
    """The length of the data that a record's head is followed by, or what is wrong with it."""
    if len(head) < _HEAD.size:
        return f"the file ends after {len(head)} of a head's 12 bytes"
    length, crc = _HEAD.unpack(head)
    if masked_crc(head[:8]) != crc:
        return "the length's CRC32C differs: nothing after it can be found"
    if length > _LONGEST:
        return f"it says that it has {length} bytes, more than any record's {_LONGEST}"
    return length


def decode_example(data: bytes) -> dict[str, tuple[str, list[Any]]]:
    """The features of a serialized tf.train.Example: name to kind ("bytes", "float" or "int64") and values.

    Raises ValueError if it is none.
    """
    example = _example_class()
    try:
        features = example.FromString(data).features.feature
    except DecodeError as error:
        raise ValueError(f"no tf.train.Example: {error}") from error
    found = {}
    for name in features:
        feature = features[name]
        kind = feature.WhichOneof("kind")
        if kind is not None:  # a feature without values has no kind: as if it were not there
            found[name] = kind.removesuffix("_list"), list(getattr(feature, kind).value)
    return found


def encode_example(features: Mapping[str, tuple[str, Iterable[Any]]]) -> bytes:
    """The reverse of `decode_example`, in the same bytes each time."""
    example = _example_class()()
    for name, (kind, values) in features.items():
        getattr(example.features.feature[name], f"{kind}_list").value.extend(values)
    return example.SerializeToString(deterministic=True)


@cache
def _example_class() -> Any:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="shoal/example.proto", package="shoal.example", syntax="proto3")

    def message(name: str, within: Any = None) -> Any:
        return (file.message_type if within is None else within.nested_type).add(name=name)

    def add(to: Any, name: str, number: int, kind: int, of: str | None = None, *, repeated: bool = False) -> Any:
        label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
        type_name = None if of is None else f".shoal.example.{of}"
        return to.field.add(name=name, number=number, type=kind, label=label, type_name=type_name)

    for list_name, kind in (("Bytes", field.TYPE_BYTES), ("Float", field.TYPE_FLOAT), ("Int64", field.TYPE_INT64)):
        add(message(f"{list_name}List"), "value", 1, kind, repeated=True)
    feature = message("Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, of) in enumerate(zip(_KINDS, ("Bytes", "Float", "Int64"), strict=True), 1):
        add(feature, name, number, field.TYPE_MESSAGE, f"{of}List").oneof_index = 0
    features = message("Features")
    entry = message("FeatureEntry", features)
    entry.options.map_entry = True
    add(entry, "key", 1, field.TYPE_STRING)
    add(entry, "value", 2, field.TYPE_MESSAGE, "Feature")
    add(features, "feature", 1, field.TYPE_MESSAGE, "Features.FeatureEntry", repeated=True)
    add(message("Example"), "features", 1, field.TYPE_MESSAGE, "Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("shoal.example.Example"))
