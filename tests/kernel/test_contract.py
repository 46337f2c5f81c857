# SPDX-License-Identifier: Apache-2.0
"""The contract between the halves: generated, compared at load, and true field by field."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import shutil
import struct
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from otelauto import abi
from otelauto.errors import KernelError
from otelauto.kernel import contract, objects
from otelauto.kernel.btf import KIND_STRUCT, Btf, BtfError
from otelauto.kernel.objects import OBJECTS, BpfObject
from otelauto.kernel.ring import Ring
from otelauto.kernel.tiers import TIERS

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"
NAMES = ("sockets", "procs")


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    """bpf/build.py, as setup.py loads it."""
    spec = importlib.util.spec_from_file_location("build_bpf", ROOT / "bpf" / "build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def btf_of(path: Path) -> Btf:
    return Btf(contract.section(path, ".BTF"))


@pytest.mark.parametrize("name", NAMES)
def test_view_is_fresh(name: str) -> None:
    """`make abi` would change nothing, whichever object it reads."""
    text = contract.generate(btf_of(OBJECTS / f"{name}.bpf.o"))
    assert text == (ROOT / "src" / "otelauto" / "abi.py").read_text()


def test_objects_are_reproducible_and_fresh(builder: ModuleType, tmp_path: Path) -> None:
    """Built in two places, the same bytes; and the installed objects are those."""
    hashes = []
    for place in ("one", "another/much/deeper"):
        copy = tmp_path / place / "checkout"
        shutil.copytree(ROOT / "bpf", copy, ignore=shutil.ignore_patterns("__pycache__"))
        built = builder.build(tmp_path / place / "out", headers=copy)
        assert {path.name for path in built} == {
            "procs.bpf.o",
            "tls.bpf.o",
            "tls_go.bpf.o",
            *(f"{t.object}.bpf.o" for t in TIERS),
        }
        hashes.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in built})
    assert hashes[0] == hashes[1]
    installed = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in OBJECTS.glob("*.bpf.o")
    }
    assert installed == hashes[0], "run `make bpf`"


def test_padding_that_has_no_name_does_not_compile(builder: ModuleType, tmp_path: Path) -> None:
    copy = tmp_path / "bpf"
    shutil.copytree(ROOT / "bpf", copy)
    header = copy / "abi.h"
    text = header.read_text()
    assert text.count("\t__u8 pad;\n") == 1
    header.write_text(text.replace("\t__u8 pad;\n", ""))
    with pytest.raises(subprocess.CalledProcessError):
        builder.build(tmp_path / "out", headers=copy)


CHANGES: dict[str, Callable[[str], str]] = {
    "field renamed": lambda t: t.replace("__u32 unseen; ", "__u32 gone;   "),
    "number changed": lambda t: t.replace("MODE_NOTHING = 2", "MODE_NOTHING = 3"),
    "number added": lambda t: t.replace("COUNTER_COUNT = 15", "NEW = 15,\n\tCOUNTER_COUNT = 16"),
}


@pytest.mark.kernel
@pytest.mark.parametrize("change", CHANGES)
def test_an_object_of_another_contract_is_refused(
    builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    copy = tmp_path / "bpf"
    shutil.copytree(ROOT / "bpf", copy)
    text = (copy / "abi.h").read_text()
    changed = CHANGES[change](text)
    assert changed != text
    (copy / "abi.h").write_text(changed)
    if change == "field renamed":
        turns = copy / "turns.h"
        turns.write_text(turns.read_text().replace("s->unseen", "s->gone"))
    builder.build(tmp_path / "out", headers=copy)
    monkeypatch.setattr(objects, "OBJECTS", tmp_path / "out")
    with pytest.raises(KernelError, match="was not built for this otelauto") as refusal:
        BpfObject("sockets")
    assert "make bpf abi" in refusal.value.remedy


@pytest.mark.parametrize("name", ["Segment", "Opening"])
def test_another_view_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    btf = btf_of(OBJECTS / "sockets.bpf.o")
    contract.check(btf, "sockets.bpf.o")
    packer = getattr(abi, name.upper())
    monkeypatch.setattr(abi, name.upper(), struct.Struct(packer.format + "I"))
    with pytest.raises(KernelError, match=f"struct {name.lower()} differs"):
        contract.check(btf, "sockets.bpf.o")


@pytest.mark.parametrize("cut", [0, 3, 24, 100, 5000])
def test_cut_btf_is_an_error_of_its_own(cut: int) -> None:
    raw = contract.section(OBJECTS / "sockets.bpf.o", ".BTF")
    with pytest.raises(BtfError):
        Btf(raw[:cut])


def test_what_is_no_object_is_an_error_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "not.o"
    for content in (b"", b"\x7fELF" + bytes(20), bytes(64), b"\xff" * 200):
        path.write_bytes(content)
        with pytest.raises(BtfError):
            contract.section(path, ".BTF")


def _expected_fields(record: Any, values: dict[str, object]) -> Any:
    assert set(values) == set(record._fields)
    return record(**values)


def span(first: int, size: int) -> bytes:
    return bytes(range(first, first + size))


EXPECTED: dict[str, dict[str, object]] = {
    "opening": {
        "kind": 1, "role": 2, "family": 0x0102, "sequence": 0x03040506,
        "connection": 0x0708090A0B0C0D0E, "time": 0x0F10111213141516, "tgid": 0x1718191A,
        "tid": 0x1B1C1D1E, "netns": 0x1F202122, "local_port": 0x2324, "remote_port": 0x2526,
        "inode": 0x2728292A2B2C2D2E, "local": span(0xA0, 16), "remote": span(0xB0, 16),
        "protocol": 0x2F30, "path_length": 0x3132, "plaintext": 0x33,
        "carrier": 0x3435363738393A3B,
    },
    "segment": {
        "kind": 2, "direction": 1, "flags": 257, "sequence": 0x41424344,
        "connection": 0x45464748494A4B4C, "time": 0x4D4E4F5051525354,
        "offset": 0x55565758595A5B5C, "length": 0x5D5E5F60, "captured": 0x61626364,
        "tgid": 0x65666768, "tid": 0x696A6B6C, "tcp_sequence": 0x6D6E6F70,
        "unseen": 0xF1F2F3F4, "tail": span(0xC0, 8),
    },
    "process_event": {
        "kind": 4, "port": 0x7172, "tgid": 0x73747576, "parent": 0x7778797A,
        "netns": 0x7B7C7D7E, "time": 0xF0F1F2F3F4F5F6F7,
    },
    "endpoint_key": {
        "address": span(0xD0, 16), "netns": 0x81828384, "port": 0x8586, "kind": 0x8788,
    },
    "verdict": {
        "mode": 1, "want_0": 0x91929394, "want_1": 0x95969798, "start_length_0": 0x999A9B9C,
        "start_length_1": 0x9D9E9FA0, "start_0": span(0xE0, 8), "start_1": span(0xE8, 8),
    },
}  # fmt: skip


@pytest.mark.kernel
def test_round_trip_of_every_record(
    builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel writes each struct; the view reads every field as it was written."""
    builder.build(tmp_path, [PROGRAMS / "roundtrip.bpf.c"])
    monkeypatch.setattr(objects, "OBJECTS", tmp_path)
    bpf = BpfObject("roundtrip")
    with closing(bpf):
        bpf._lib.call("bpf_object__load", bpf._object)
        ring = Ring(bpf.map_fd("records"), 256 << 10)
        with closing(ring):
            run_once(bpf, "emit_each")
            found: list[bytes] = []
            assert ring.drain(lambda view: found.append(bytes(view))) == len(EXPECTED)
    assert tuple(EXPECTED) == contract.RECORDS
    btf = btf_of(tmp_path / "roundtrip.bpf.o")
    for raw, (name, values) in zip(found, EXPECTED.items(), strict=True):
        record, packer = getattr(abi, contract.class_name(name)), getattr(abi, name.upper())
        assert len(raw) == packer.size == btf.find(KIND_STRUCT, name).size
        assert record(*packer.unpack(raw)) == _expected_fields(record, values)


def run_once(bpf: BpfObject, program: str) -> None:
    """BPF_PROG_TEST_RUN of a raw tracepoint program (struct bpf_test_run_opts of libbpf)."""
    options = (ctypes.c_uint8 * 80)()
    struct.pack_into("<Q", options, 0, len(options))
    bpf._lib.call("bpf_prog_test_run_opts", bpf.program_fd(program), ctypes.addressof(options))
