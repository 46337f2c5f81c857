# SPDX-License-Identifier: Apache-2.0
"""What compiled code writes down a second time is what is written first."""

from __future__ import annotations

import re
import struct

from tests.house.scan import PACKAGE

from otelauto import abi
from otelauto.protocols import grpc, http1_body, http1_head
from otelauto.spans import templates

HOT = PACKAGE / "hot"
CODES = {"uint8_t": "B", "uint16_t": "H", "uint32_t": "I", "uint64_t": "Q"}


def fields(source: str, name: str) -> tuple[list[str], str]:
    """Field names of a packed struct, and its format as :mod:`struct` has it."""
    body = re.search(rf"cdef packed struct {name}:\n((?:    .*\n)+)", source)
    assert body is not None
    found = re.findall(r"^    (\w+) (\w+)(?:\[(\d+)\])?$", body[1], flags=re.MULTILINE)
    layout = "".join(f"{size}s" if size else CODES[kind] for kind, _, size in found)
    return [field for _, field, _ in found], f"<{layout}"


def numbers(source: str) -> dict[str, int]:
    """The plain numbers among the enumerators of a source."""
    found = re.findall(r"^    ([A-Z_0-9]+) = (\d+)(?:\s*#.*)?$", source, flags=re.MULTILINE)
    return {name: int(value) for name, value in found}


def test_the_segment_is_that_of_the_contract() -> None:
    names, layout = fields((HOT / "contract.pxd").read_text(), "Segment")
    assert tuple(names) == abi.Segment._fields
    assert layout == abi.SEGMENT.format
    assert struct.calcsize(layout) == abi.SEGMENT.size


def test_the_numbers_are_those_of_the_contract() -> None:
    known = {**abi.AbiLimit.__members__, **abi.RecordKind.__members__}
    known.update(abi.SegmentFlag.__members__)
    found = numbers((HOT / "contract.pxd").read_text())
    assert len(found) >= 6
    assert found == {name: int(known[name]) for name in found}


def test_limits_are_those_of_the_python_code() -> None:
    shapes = numbers((HOT / "shapes.pxd").read_text())
    assert len(shapes) == 5
    for name, value in shapes.items():
        assert value == getattr(templates, name, None) or value == getattr(templates, f"_{name}")
    digits = numbers((HOT / "http1.pxd").read_text())["DIGITS_MAX"]
    assert digits == http1_head._LENGTH_DIGITS_MAX
    calls = numbers((HOT / "http2_rows.pxd").read_text())
    assert calls["CODE_LAST"] == len(grpc.CODES) - 1
    assert grpc.CODES[calls["UNIMPLEMENTED"]] == "UNIMPLEMENTED"
    assert calls["SAID_MAX"] == grpc._MESSAGE_MAX
    assert calls["TIMEOUT_DIGITS_MAX"] == grpc._TIMEOUT_DIGITS_MAX
    chunk = numbers((HOT / "exchange.pxd").read_text())["CHUNK_DIGITS_MAX"]
    assert chunk == http1_body._SIZE_DIGITS_MAX


def test_a_difference_is_found() -> None:
    source = "cdef packed struct Segment:\n    uint8_t kind\n    uint32_t flags\n"
    assert fields(source, "Segment") == (["kind", "flags"], "<BI")
    assert numbers("cdef enum:\n    FLAG_TAIL = 5  # wrong\n") == {"FLAG_TAIL": 5}
