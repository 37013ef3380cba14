"""Formats of files, by bytes worked out by hand and by what other readers say."""

import io
import struct
import tarfile

import numpy as np
import pytest
from PIL import Image

from shoal.data.sources.image_format import ImageForm, encode_image
from shoal.data.sources.tar_format import BrokenTarError, read_samples
from shoal.data.sources.tfrecord_format import (
    DamagedRecord,
    decode_example,
    encode_example,
    framed,
    masked_crc,
    read_records,
)

# feature { key: "a" value { int64_list { value: [1, 300] } } }, by hand: tag, length, content of each message.
EXAMPLE = bytes.fromhex("0a0e 0a0c 0a0161 1207 1a05 0a03 01ac02")


def test_the_checksum_of_a_record_is_crc32c_rotated_and_moved():
    crc = 0xE3069283  # of "123456789", as RFC 3720 says
    assert masked_crc(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
    record = framed(b"123456789")
    assert record[:8] == struct.pack("<Q", 9)
    assert record[12:21] == b"123456789"
    assert record[8:12] == struct.pack("<I", masked_crc(record[:8]))
    assert len(record) == 8 + 4 + 9 + 4


def test_examples_are_tensorflows_messages():
    assert decode_example(EXAMPLE) == {"a": ("int64", [1, 300])}
    assert encode_example({"a": ("int64", [1, 300])}) == EXAMPLE
    features = {"x": ("float", [0.5, -2.0]), "b": ("bytes", [b"\xff", b""]), "n": ("int64", [-1])}
    assert decode_example(encode_example(features)) == features
    with pytest.raises(ValueError, match=r"no tf\.train\.Example"):
        decode_example(b"\xff\xff")


@pytest.mark.parametrize(
    ("damage", "good", "reason", "goes_on"),
    [
        (lambda raw: raw[:29] + b"?" + raw[30:], [0, 2], "data's CRC32C differs", True),
        (lambda raw: raw[:18] + b"?" + raw[19:], [0], "length's CRC32C differs", False),
        (lambda raw: raw[:-3], [0, 1], "ends after 1 of its 1 bytes", False),
        (lambda raw: raw[:38], [0, 1], "ends after 4 of a head's 12 bytes", False),
    ],
)
def test_a_damaged_record_is_found_and_the_next_one_where_it_can_be(damage, good, reason, goes_on):
    raw = damage(b"".join(framed(data) for data in (b"a", b"b", b"c")))  # 17 bytes each
    found = list(read_records(io.BytesIO(raw)))
    (bad,) = [record for record in found if isinstance(record, DamagedRecord)]
    assert [record[0] for record in found if not isinstance(record, DamagedRecord)] == good
    assert reason in bad.reason
    assert bad.goes_on is goes_on
    assert bad.offset == 17 * bad.number


def tar_of(files):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in files:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return file.getvalue()


FILES = [("d/1.jpg", b"one"), ("d/1.seg.PNG", b""), (".hidden", b"?"), ("d/2.jpg", b"2" * 512), ("e/2.jpg", b"!")]


def test_files_of_one_key_are_one_sample():
    samples = list(read_samples(io.BytesIO(tar_of(FILES))))
    assert [(sample.key, sample.files) for sample in samples] == [
        ("d/1", {"jpg": b"one", "seg.png": b""}),
        ("d/2", {"jpg": b"2" * 512}),
        ("e/2", {"jpg": b"!"}),
    ]
    assert [sample.offset for sample in samples] == [0, 512 * 5, 512 * 7]


@pytest.mark.parametrize(
    ("damage", "keys", "reason"),
    [
        (lambda raw: raw[: 512 * 7 + 100], ["d/1"], "header at byte 3584"),
        (lambda raw: raw[: 512 * 6 + 100], ["d/1"], "ends at byte 3172, within 'd/2.jpg'"),
        (lambda raw: raw[:3585] + b"?" + raw[3586:], ["d/1"], "header at byte 3584 is damaged"),
        (lambda raw: raw[: 512 * 9], ["d/1", "d/2"], "byte 4608 without the mark that ends a tar"),
    ],
)
def test_a_tar_that_was_cut_off_or_damaged_does_not_just_end(damage, keys, reason):
    found = []
    samples = read_samples(io.BytesIO(damage(tar_of(FILES))))
    with pytest.raises(BrokenTarError, match=reason):
        found.extend(sample.key for sample in samples)
    assert found == keys


def test_pictures_are_brought_into_one_form():
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    content = encode_image(pixels, "png")
    np.testing.assert_array_equal(ImageForm().decode(content), pixels)
    gray = np.asarray(Image.fromarray(pixels).convert("L"))
    np.testing.assert_array_equal(ImageForm(mode="L").decode(content), gray)
    small = ImageForm(size=(2, 3))
    assert small.decode(content).shape == small.shape(content) == (2, 3, 3)
    for damaged in (content[:-40], content[:45] + b"?" + content[46:], b"", b"GIF"):
        with pytest.raises(ValueError, match="cannot be decoded"):
            ImageForm().decode(damaged)
