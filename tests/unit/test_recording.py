# SPDX-License-Identifier: Apache-2.0
"""Recordings: written, read again, redacted, guarded, and refused when they are not whole."""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelauto import abi, recording
from otelauto.abi import RecordKind, SegmentFlag
from otelauto.errors import ConfigError, OtelautoError
from otelauto.recording import Reader, Writer


def segment(payload=b"", *, kind=RecordKind.RECORD_SEGMENT, tail=b"", flags=0, captured=None):
    captured = len(payload) if captured is None else captured
    fixed = abi.SEGMENT.pack(kind, 0, flags, 7, 99, 5, 0, captured, captured, 1, 2, 0, 0, tail)
    return fixed + payload


def opening(path=b"", length=None):
    return abi.OPENING.pack(
        RecordKind.RECORD_OPENING, 1, 1, 0, 99, 5, 1, 2, 3, 0, 0, 4, bytes(16), bytes(16), 0,
        len(path) if length is None else length, 0, 0,
    ) + path  # fmt: skip


def hide(payload):
    return b"x" * len(payload)


def written(path, records, redact=None):
    with Writer(path, redact) as writer:
        for record in records:
            writer.write(record)
    return writer


RECORDS = st.one_of(
    st.binary(max_size=300).map(segment),
    st.binary(max_size=108).map(opening),
    st.just(segment(kind=RecordKind.RECORD_ENDING)),
)


@given(records=st.lists(RECORDS, max_size=30))
@settings(deadline=None)
def test_round_trip(records, tmp_path_factory):
    path = tmp_path_factory.mktemp("r") / "f"
    written(path, records)
    reader = Reader(path)
    assert list(reader) == records
    assert list(reader) == records
    assert reader.torn_bytes == 0


def test_large_recordings_take_several_blocks(tmp_path):
    records = [segment(bytes([number % 256]) * 16384) for number in range(50)]
    written(tmp_path / "f", records)
    assert list(Reader(tmp_path / "f")) == records
    assert (tmp_path / "f").read_bytes().count(b"BLCK") > 5


def test_header_says_where_it_was_made(tmp_path):
    written(tmp_path / "f", [], hide)
    header = Reader(tmp_path / "f").header
    assert header.kernel == os.uname().release
    assert header.host == os.uname().nodename
    assert header.redacted
    assert abs(header.boot_to_wall_ns - recording.boot_to_wall_ns()) < 60 * 10**9
    assert not Reader(written(tmp_path / "g", [])._path).header.redacted


def test_payloads_are_redacted_and_tails_keep_framing_only(tmp_path):
    tail = b"ab0\r\n0\r\n"
    records = [
        segment(b"GET /secret HTTP/1.1\r\n", tail=tail, flags=SegmentFlag.FLAG_TAIL),
        segment(b"cookie", tail=b"leftover"),
        opening(b"/run/app.sock"),
    ]
    written(tmp_path / "f", records, hide)
    first, second, third = Reader(tmp_path / "f")
    assert first[abi.SEGMENT.size :] == b"x" * 22
    assert abi.SEGMENT.unpack_from(first)[-1] == b"xx0\r\n0\r\n"
    assert abi.SEGMENT.unpack_from(first)[:-1] == abi.SEGMENT.unpack_from(records[0])[:-1]
    assert abi.SEGMENT.unpack_from(second)[-1] == bytes(8)
    assert third == records[2]
    data = (tmp_path / "f").read_bytes()
    assert not [word for word in (b"secret", b"cookie", b"leftover") if word in data]


def test_bytes_beyond_what_a_record_declares_are_not_kept(tmp_path):
    records = [segment(b"abcSECRET", captured=3), opening(b"/aSECRET", length=2)]
    written(tmp_path / "f", records)
    assert list(Reader(tmp_path / "f")) == [segment(b"abc"), opening(b"/a")]


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\x01",
        b"\x02" * 63,
        b"\x09" * 100,
        segment(b"ab", captured=3),
        opening(b"a", length=2),
    ],
)
def test_malformed_records_are_counted(tmp_path, record):
    writer = written(tmp_path / "f", [record, segment(b"good")])
    assert (writer.records, writer.malformed) == (1, 1)
    assert list(Reader(tmp_path / "f")) == [segment(b"good")]


def test_a_redaction_that_changes_lengths_stores_nothing(tmp_path):
    with pytest.raises(OtelautoError, match="changed the length"):
        written(tmp_path / "f", [segment(b"secret")], lambda payload: payload + b"!")
    assert b"secret" not in (tmp_path / "f").read_bytes()


def test_notes_come_before_the_records_that_follow_them(tmp_path):
    with Writer(tmp_path / "f", None) as writer:
        writer.write(segment(b"1"))
        writer.note({"tgid": 4711, "service": "shop"})
        writer.write(segment(b"2"))
    seen = []
    for record in Reader(tmp_path / "f", seen.append):
        seen.append(record)
    assert seen == [segment(b"1"), {"tgid": 4711, "service": "shop"}, segment(b"2")]


def test_mode_is_0600_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        written(tmp_path / "f", [])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600


def refuse(path, words, opened=lambda path: Writer(path, None)):
    with pytest.raises(ConfigError, match=words) as caught:
        opened(path)
    assert caught.value.exit_code == 2
    assert caught.value.remedy


def test_places_that_are_refused(tmp_path):
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    refuse(open_to_all / "f", "writable by everyone")
    assert not list(open_to_all.iterdir())
    open_to_all.chmod(0o1777)
    refuse(open_to_all / "f", "writable by everyone")
    written(tmp_path / "f", [])
    refuse(tmp_path / "f", "exists already")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    refuse(tmp_path / "link", "exists already")
    assert not (tmp_path / "target").exists()
    refuse(tmp_path / "none" / "f", "cannot be created")
    refuse(tmp_path / "a\0b", "cannot be created")


def test_what_was_flushed_survives_a_crash(tmp_path):
    writer = Writer(tmp_path / "f", None)
    writer.write(segment(b"kept"))
    writer.flush()
    writer.write(segment(b"gone"))
    assert list(Reader(tmp_path / "f")) == [segment(b"kept")]
    writer.close()
    writer.close()
    assert list(Reader(tmp_path / "f")) == [segment(b"kept"), segment(b"gone")]


def test_a_full_disk_is_one_sentence(tmp_path):
    writer = Writer(tmp_path / "f", None)
    writer._file.close()
    with Path("/dev/full").open("wb", buffering=0) as full:
        writer._file = full
        writer.write(segment(b"lost"))
        with pytest.raises(OtelautoError, match="No space left on device") as caught:
            writer.close()
    assert "Make room" in caught.value.remedy


class FullOnce:
    """A file on a disk that is full in the middle of one write, and has room again after it."""

    def __init__(self, file):
        self._file = file
        self._left = 10

    def write(self, data):
        if self._left is None:
            return self._file.write(data)
        if self._left == 0:
            self._left = None
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._file.write(data[: self._left])
        self._left -= written
        return written

    def __getattr__(self, name):
        return getattr(self._file, name)


def test_a_disk_that_was_full_leaves_a_torn_file(tmp_path):
    writer = Writer(tmp_path / "f", None)
    writer.write(segment(b"kept"))
    writer.flush()
    writer._file = FullOnce(writer._file)
    writer.write(segment(b"lost"))
    with pytest.raises(OtelautoError, match="No space left on device"):
        writer.flush()
    writer.close()
    reader = Reader(tmp_path / "f")
    assert list(reader) == [segment(b"kept")]
    assert reader.torn_bytes == 10


@pytest.fixture
def two_blocks(tmp_path):
    """A file, its bytes, and where its second and last block begins."""
    path = tmp_path / "f"
    with Writer(path, None) as writer:
        writer.write(segment(b"first"))
        writer.flush()
        writer.write(segment(b"second"))
    data = path.read_bytes()
    return path, data, data.rindex(b"BLCK")


def test_every_torn_tail_is_counted(two_blocks):
    path, data, last = two_blocks
    for end in range(last, len(data)):
        path.write_bytes(data[:end])
        reader = Reader(path)
        assert list(reader) == [segment(b"first")]
        assert reader.torn_bytes == end - last
    path.write_bytes(data[:last] + bytes(4096))
    reader = Reader(path)
    assert list(reader) == [segment(b"first")]
    assert reader.torn_bytes == 4096


def test_every_changed_byte_is_noticed(two_blocks):
    path, data, _ = two_blocks
    whole = [segment(b"first"), segment(b"second")]
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :])
        try:
            reader = Reader(path)
            noticed = list(reader) != whole and reader.torn_bytes > 0
        except ConfigError as error:
            noticed = bool(error.remedy)
        assert noticed, at


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not a recording"),
        (b"OTELAREC", "is not a recording"),
        (b"\x7fELF" + bytes(100), "is not a recording"),
        (struct.pack("<8sHII", b"OTELAREC", 9, 2, 0) + b"{}", "has version 9"),
        (struct.pack("<8sHII", b"OTELAREC", 1, 2, 0) + b"{}", "corrupt header"),
        (struct.pack("<8sHII", b"OTELAREC", 1, 2**31, 0) + b"{}", "corrupt header"),
        (struct.pack("<8sHII", b"OTELAREC", 1, 2, zlib.crc32(b"{}")) + b"{}", "not understood"),
    ],
)
def test_foreign_files(tmp_path, data, words):
    (tmp_path / "f").write_bytes(data)
    refuse(tmp_path / "f", words, Reader)


def test_files_that_cannot_be_opened(tmp_path):
    refuse(tmp_path / "absent", "no such file", Reader)
    refuse(tmp_path, "is a directory", Reader)


def test_another_contract_is_refused(tmp_path, monkeypatch):
    written(tmp_path / "f", [])
    monkeypatch.setattr(abi, "SEGMENT", struct.Struct("<BBHIQQQIIIIIQ8s"))
    refuse(tmp_path / "f", "other records than this one's", Reader)


@given(data=st.binary(max_size=400), items=st.integers(0, 20))
@settings(deadline=None)
def test_blocks_with_a_right_checksum_and_wrong_content(data, items, tmp_path_factory):
    path = tmp_path_factory.mktemp("r") / "f"
    written(path, [])
    start = struct.pack("<4sII", b"BLCK", len(data), items)
    block = start + struct.pack("<I", zlib.crc32(data, zlib.crc32(start))) + data
    path.write_bytes(path.read_bytes() + block)
    try:
        records = list(Reader(path))
    except ConfigError as error:
        records = [error.remedy.encode()]
    assert len(records) <= max(items, 1)


def test_header_is_json_for_other_tools(tmp_path):
    written(tmp_path / "f", [])
    data = (tmp_path / "f").read_bytes()
    length = struct.unpack_from("<I", data, 10)[0]
    assert json.loads(data[18 : 18 + length])["otelauto"]
