# SPDX-License-Identifier: Apache-2.0
"""Go programs: what is read of them against what Go's own tools say; small and broken ones."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.e2e.harness.servers import BUILT
from tests.elf_files import CODE, CODE_AT, Elf, go_places, go_program

from otelauto.discover.decode import sweep
from otelauto.discover.elf import ElfError, Image, language
from otelauto.discover.go_tls import CALLS, READ, RETURNING, WRITE, find_spots
from otelauto.discover.golang import Function, GoError, built_by, functions
from otelauto.discover.tls_libraries import GO, find_library
from otelauto.discover.untouched import why_untouched
from otelauto.kernel.uprobes import TlsCall

NAMES = [READ, WRITE, "main.main", *(f"main.f{number}" for number in range(40))]
SERVER = [*CALLS]
RETURN = re.compile(r"^\s+\S+:\d+\s+0x([0-9a-f]+)\s+[0-9a-f]+\s+RET", re.MULTILINE)


def go(*words: str | Path) -> str:
    return subprocess.run(("go", *words), check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def nethttp() -> Path:
    path = BUILT / "nethttp"
    assert path.exists(), "run tests/install.sh"
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "program"


def test_functions_are_where_go_says(nethttp: Path) -> None:
    """Sizes too, but for the padding; stripped, the functions are in the same order and size."""
    told = {}
    for line in go("tool", "nm", "-size", nethttp).splitlines():
        fields = line.split(None, 3)
        if len(fields) == 4 and fields[2] in "tT" and fields[3].startswith("crypto/tls."):
            told[fields[3]] = int(fields[0], 16), int(fields[1])
    assert len(told) > 200
    with Image(str(nethttp)) as image:
        found = functions(image, [*told, "crypto/tls.nothing", ""])
    assert found.keys() <= told.keys()
    assert len(found) > 0.9 * len(told)  # some symbols are no functions of their own to the runtime
    for name, (address, size) in told.items():
        if name in found:
            assert found[name].start == address
            assert size <= found[name].end - address < size + 64


def test_versions_are_what_go_says(nethttp: Path) -> None:
    told = go("version", nethttp).rsplit(": ", 1)[1].split()[0]
    for name in ("nethttp", "nethttp-stripped", "nethttp-pie"):
        with Image(str(BUILT / name)) as image:
            assert built_by(image) == told


@pytest.mark.parametrize("name", ["nethttp-stripped", "nethttp-pie"])
def test_without_a_symbol_table(nethttp: Path, name: str) -> None:
    """The code that is found is the same as in the program that has its symbols."""
    with Image(str(nethttp)) as whole, Image(str(BUILT / name)) as stripped:
        assert stripped.functions((READ,), ".symtab") == []
        told, found = functions(whole, SERVER), functions(stripped, SERVER)
        assert found.keys() == told.keys()
        for function in SERVER:
            begins = [
                image.read(one.start, 4)
                for image, one in ((whole, told[function]), (stripped, found[function]))
            ]
            assert begins[0] == begins[1]
            lengths = {one.end - one.start for one in (told[function], found[function])}
            assert max(lengths) - min(lengths) < 64  # position-independent code is a little longer


def test_every_return_is_probed(nethttp: Path) -> None:
    """And no other instruction: Go's disassembler lists the same ones."""
    for name in SERVER:
        if CALLS[name] not in RETURNING:
            continue
        listing = go("tool", "objdump", "-s", f"^{re.escape(name)}$", nethttp)
        told = {
            int(match[1], 16)
            for match in re.finditer(
                r"^\s+\S+:\d+\s+0x([0-9a-f]+)\s+[0-9a-f]+\s+RET", listing, re.MULTILINE
            )
        }
        assert told
        with Image(str(nethttp)) as image:
            function = functions(image, (name,))[name]
            assert set(sweep(image, function.start, function.end).returns) == told
            offsets = {image.file_offset(address) for address in told}
            spots = find_spots(image)
        leaves = {one.offset for one in spots if one.leaves and one.call == CALLS[name]}
        assert leaves >= offsets


def test_where_a_server_is_probed(nethttp: Path) -> None:
    found = find_library(str(nethttp))
    assert found is not None
    library, spots = found
    assert library is GO
    enters = [spot for spot in spots if not spot.leaves]
    assert sorted(spot.call for spot in enters) == sorted(CALLS.values())
    assert not any(spot.stepped for spot in enters)
    assert {spot.call for spot in spots if spot.leaves} == set(RETURNING)
    code = nethttp.read_bytes()
    for spot in spots:
        first = code[spot.offset]
        assert first == 0xC3 if spot.leaves else first == 0x0F or 0x70 <= first <= 0x7F


def test_a_small_program(path: Path) -> None:
    path.write_bytes(go_program(NAMES).file())
    places = go_places(len(NAMES))
    size = places[1]
    with Image(str(path)) as image:
        assert functions(image, ("main.main", "main.none")) == {
            "main.main": Function("main.main", CODE + places[2], CODE + places[3])
        }
        assert functions(image, ("main.none",)) == {}
        assert built_by(image) == "go1.22.4"
        read, leave, write = find_spots(image)
    assert (read.offset, read.call, read.leaves) == (CODE_AT + 4, TlsCall.TLS_READ, False)
    assert (leave.offset, leave.leaves, leave.stepped) == (CODE_AT + 9, True, True)
    assert (write.offset, write.call) == (CODE_AT + size + 4, TlsCall.TLS_WRITE)
    assert read.cookie == TlsCall.TLS_READ
    assert leave.cookie == TlsCall.TLS_READ | TlsCall.TLS_LEAVES
    assert language(str(path)) == "go"


@pytest.mark.parametrize("text", [0, CODE + 16, 1 << 60])
def test_where_the_text_starts_is_found_if_it_is_not_said(path: Path, text: int) -> None:
    """Also with other code before Go's, and without a table of sections."""
    program = go_program(NAMES, text=text)
    path.write_bytes(program.file())
    with Image(str(path)) as image:
        assert functions(image, (READ,))[READ].start == CODE
    program.code = b"\x90" * 48 + program.code
    raw = bytearray(program.file())
    path.write_bytes(raw)
    with Image(str(path)) as image:
        assert functions(image, (READ,))[READ].start == CODE + 48
    raw[60:62] = b"\0\0"  # e_shnum
    path.write_bytes(raw)
    with Image(str(path)) as image:
        assert functions(image, (READ,))[READ].start == CODE + 48


def test_programs_that_are_refused(path: Path) -> None:
    def refused(program: Elf) -> str:
        path.write_bytes(program.file())
        with Image(str(path)) as image, pytest.raises(ElfError) as error:
            find_spots(image)
        return str(error.value)

    old = go_program(NAMES, magic=0xFFFFFFFA)
    assert "Go 1.18" in refused(old)
    assert "go1.22.4" in refused(old)
    assert "no table" in refused(Elf(b"\xc3"))
    assert "does not fit" in refused(_with_code(go_program(NAMES)))
    assert "processor" in refused(_with(go_program(NAMES), machine=183))
    # A function whose arguments are on the stack looks for its limit by another register.
    program = go_program(NAMES)
    program.code = b"\x48\x3b\x61\x10" + program.code[4:]
    assert "registers" in refused(program)


def _with(program: Elf, machine: int) -> Elf:
    program.machine = machine
    return program


def _with_code(program: Elf) -> Elf:
    program.code = b"\xc3" * len(program.code)
    return program


def test_a_program_without_tls_has_no_library(path: Path) -> None:
    path.write_bytes(go_program([name for name in NAMES if name != WRITE]).file())
    assert find_library(str(path)) is None


def test_no_version(path: Path) -> None:
    for build in (b"", b"\xff Go buildinf:\x08\0".ljust(64, b"\0")):
        path.write_bytes(Elf(sections={".go.buildinfo": build}).file())
        with Image(str(path)) as image, pytest.raises(GoError):
            built_by(image)


@pytest.mark.parametrize(
    ("program", "untouched"),
    [
        ("/usr/bin/clickhouse", True),
        ("/usr/bin/clickhouse-server (deleted)", True),
        ("/usr/libexec/valgrind/memcheck-amd64-linux", True),
        ("/usr/bin/qemu-aarch64-static", True),
        ("/usr/bin/qemu-system-x86_64", False),
        ("/usr/sbin/nginx", False),
        ("/srv/clickhouse/shop", False),
    ],
)
def test_programs_that_are_left_alone(program: str, untouched: bool) -> None:
    assert bool(why_untouched(program)) is untouched
