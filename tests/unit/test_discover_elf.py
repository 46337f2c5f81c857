# SPDX-License-Identifier: Apache-2.0
"""Reading ELF files: real ones against other tools' answers, small ones, broken ones."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from tests.elf_files import BASE, CODE, CODE_AT, Elf, go_program, note

from otelauto.discover.elf import PIECE, ElfError, Image, language
from otelauto.discover.golang import built_by
from otelauto.discover.golang import functions as go_functions
from otelauto.discover.symbols import defined, functions
from otelauto.discover.tls_libraries import find_library

LIBRARY = """
int shop_old(int x) { return x + 1; }
int shop_new(int x) { return x + 2; }
int shop_other(int x) { return x + 3; }
static __attribute__((noinline)) int mine(int x) { return x + 4; }
extern int elsewhere(int);
int calls(int x) { return mine(x) + elsewhere(x); }
__asm__(".symver shop_old,shop@SHOP_1");
__asm__(".symver shop_new,shop@@SHOP_2");
int data = 5;
"""
VERSIONS = """
SHOP_1 { global: shop; local: *; };
SHOP_2 { global: shop; shop_other; calls; data; } SHOP_1;
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A shared library with two versions of shop()."""
    (tmp_path / "shop.c").write_text(LIBRARY)
    (tmp_path / "shop.map").write_text(VERSIONS)
    script = f"-Wl,--version-script={tmp_path / 'shop.map'},--build-id"
    path = tmp_path / "libshop.so"
    command = ["cc", "-shared", "-fPIC", "-O1", script, "-o", path, tmp_path / "shop.c"]
    subprocess.run(command, check=True)
    return path


def output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_functions_are_where_nm_says(library: Path) -> None:
    """Of both tables; what is not defined or no function is not found."""
    names = ("shop_old", "shop_new", "shop_other", "mine", "elsewhere", "calls", "data")
    told = {
        fields[2]: int(fields[0], 16)
        for line in output("nm", library).splitlines()
        if len(fields := line.split()) == 3 and fields[1] in "tT" and fields[2] in names
    }
    with Image(str(library)) as image:
        found = {symbol.name: symbol.address for symbol in image.functions(names, ".symtab")}
        assert found == told
        dynamic = {symbol.name: symbol.address for symbol in image.functions(names)}
    assert dynamic == {name: told[name] for name in ("shop_other", "calls")}
    assert "mine" in told


def test_versions_of_a_name(library: Path) -> None:
    with Image(str(library)) as image:
        found = {one.version: one for one in image.functions(("shop",))}
        assert found.keys() == {"SHOP_1", "SHOP_2"}
        assert [found[name].hidden for name in ("SHOP_1", "SHOP_2")] == [True, False]
        assert defined(image, ("shop",)) == {"shop": found["SHOP_2"]}
        bytes_ = image.read(found["SHOP_2"].address, found["SHOP_2"].size)
    assert bytes_ != b""
    assert functions(str(library), ("shop",)).keys() == {"shop"}


def test_build_id(library: Path, tmp_path: Path) -> None:
    told = re.search(r"Build ID: ([0-9a-f]+)", output("readelf", "-n", library))
    assert told
    with Image(str(library)) as image:
        assert image.build_id == told[1]
    path = tmp_path / "go"
    path.write_bytes(Elf(notes=note(b"Go\0\0", 4, b"go-build-id")).file())
    with Image(str(path)) as image:
        assert image.build_id == "go-build-id"
    path.write_bytes(Elf().file())
    with Image(str(path)) as image:
        assert image.build_id == ""


def test_addresses_and_offsets(library: Path) -> None:
    raw = library.read_bytes()
    with Image(str(library)) as image:
        (symbol,) = image.functions(("calls",))
        offset = image.file_offset(symbol.address)
        assert image.address_of(offset) == symbol.address
        code = image.read(symbol.address, symbol.size)
        assert code == raw[offset : offset + symbol.size]
        for wrong in (-1, 1 << 63, len(raw) + (1 << 20)):
            with pytest.raises(ElfError):
                image.file_offset(wrong)
            with pytest.raises(ElfError):
                image.address_of(wrong)
            with pytest.raises(ElfError):
                image.read_file(wrong, 1)
        with pytest.raises(ElfError):
            image.read(symbol.address, 1 << 20)
        assert image.read(symbol.address, 1 << 20, short=True).startswith(code)


def test_what_lies_across_pieces_is_found_once(tmp_path: Path) -> None:
    path, wanted = tmp_path / "large", b"needle"
    places = [0, PIECE - 3, PIECE - 1 + 64, 3 * PIECE - 6, 3 * PIECE]
    data = bytearray(4 * PIECE)
    for place in places:
        data[place : place + len(wanted)] = wanted
    head = Elf().file()
    path.write_bytes(head + data)
    with Image(str(path)) as image:
        assert list(image.occurrences(len(head), len(data), wanted)) == [
            len(head) + place for place in places
        ]


def test_a_name_may_be_the_end_of_another(tmp_path: Path) -> None:
    path = tmp_path / "program"
    raw = Elf(b"\xc3" * 4, {"my_shop": (CODE, 1), "": (CODE + 1, 1)}).file()
    at = raw.index(b"my_shop\0")
    # The second symbol's name is made the last four letters of the first one's.
    name = raw.index(b"\0my_shop\0")
    second = raw.index(b"\x12\0\1\0" + (CODE + 1).to_bytes(8, "little")) - 4
    raw = raw[:second] + (at - name + 3).to_bytes(4, "little") + raw[second + 4 :]
    path.write_bytes(raw)
    assert functions(str(path), ("shop", "my_shop")) == {"my_shop": CODE_AT, "shop": CODE_AT + 1}


@pytest.mark.parametrize("path", ["/no/such/file", "/", "/proc/self/mem", "a\0b", "/dev/null"])
def test_files_that_cannot_be_read(path: str) -> None:
    with pytest.raises(ElfError):
        Image(path)
    assert language(path) == ""


def read_all(path: Path) -> None:
    """Ask for everything; whatever the file, only ElfError may come."""
    for ask in (
        lambda image: image.sections,
        lambda image: image.segments,
        lambda image: image.build_id,
        lambda image: image.functions(("SSL_read", "shop"), ".dynsym"),
        lambda image: image.functions(("main", "shop"), ".symtab"),
        lambda image: image.relative_addend(BASE),
        built_by,
        lambda image: go_functions(image, ("crypto/tls.(*Conn).Read",)),
    ):
        with suppress(ElfError), Image(str(path)) as image:
            ask(image)
    language(str(path))
    with suppress(ElfError):
        find_library(str(path))


def test_mutilated_files_give_only_their_own_error(library: Path, tmp_path: Path) -> None:
    chance = random.Random(7)
    go = go_program(["crypto/tls.(*Conn).Read", "crypto/tls.(*Conn).Write", "main.main"]).file()
    for whole in (library.read_bytes(), go):
        broken = tmp_path / "broken"
        for number in range(150):
            data = bytearray(whole)
            for _ in range(chance.randrange(1, 12)):
                at = chance.randrange(len(data))
                data[at] = chance.choice((0, 0xFF, 0x80, chance.randrange(256)))
            broken.write_bytes(data[: chance.randrange(len(data))] if number % 3 == 0 else data)
            read_all(broken)


def test_the_interpreter_is_read() -> None:
    with Image(sys.executable) as image:
        assert image.segments
        assert image.sections
        assert any(segment.executable for segment in image.segments)
