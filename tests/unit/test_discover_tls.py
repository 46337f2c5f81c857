# SPDX-License-Identifier: Apache-2.0
"""TLS libraries in files and processes: real ones, mutilated ones, lists of mappings."""

from __future__ import annotations

import ctypes.util
import os
import random
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from otelauto.discover.mappings import Mapped, opening_paths, parse_mapped, read_mapped
from otelauto.discover.symbols import functions
from otelauto.discover.tls_libraries import (
    GNUTLS,
    OPENSSL,
    find_library,
    is_candidate,
    unseen,
)
from otelauto.kernel.uprobes import TlsCall

assert ssl.OPENSSL_VERSION  # this process has the library mapped


def own(name: str) -> Mapped:
    """The mapping of a library of this process."""
    mapped = read_mapped("/proc", os.getpid())
    assert mapped is not None
    return next(one for one in mapped if name in one.name)


READS = {TlsCall.TLS_READ, TlsCall.TLS_READ_OUT}
WRITES = {TlsCall.TLS_WRITE, TlsCall.TLS_WRITE_OUT}


def test_openssl_is_found_where_the_linker_finds_it() -> None:
    """The places are those of the loaded library, by the dynamic linker's own answer."""
    mapped = own("libssl")
    found = find_library(mapped.path)
    assert found is not None
    library, spots = found
    assert library is OPENSSL
    calls = {spot.call for spot in spots}
    assert calls >= {TlsCall.TLS_HANDSHAKE, TlsCall.TLS_FREE}
    assert calls & READS
    assert calls & WRITES
    loaded = ctypes.CDLL(mapped.path)
    places = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[5] == mapped.path and "x" in fields[1]:
            start = int(fields[0].split("-")[0], 16)
            for name in OPENSSL.calls:
                address = ctypes.cast(getattr(loaded, name), ctypes.c_void_p).value or 0
                places[name] = address - start + int(fields[2], 16)
    assert functions(mapped.path, OPENSSL.calls) == places
    for spot in spots:
        if spot.call in (TlsCall.TLS_HANDSHAKE, TlsCall.TLS_FREE):
            beginnings = [
                spot.offset - places[n] for n, c in OPENSSL.calls.items() if c == spot.call
            ]
            assert any(0 <= behind < 16 for behind in beginnings)


def test_a_program_that_exports_the_functions_is_found_and_others_are_not(tmp_path: Path) -> None:
    source = tmp_path / "static.c"
    names = ("SSL_read", "SSL_write", "SSL_free")
    source.write_text("".join(f"int {name}(void) {{ return {len(name)}; }}\n" for name in names))
    program = tmp_path / "program"
    command = ["cc", "-shared", "-fPIC", "-o", str(program), str(source)]
    subprocess.run(command, check=True)
    found = find_library(str(program))
    assert found is not None
    assert [spot.call for spot in found[1]].count(TlsCall.TLS_READ) == 1
    subprocess.run(["strip", "--strip-all", str(program)], check=True)
    assert find_library(str(program)) is not None, "what is exported stays"
    assert find_library(sys.executable) is None
    assert find_library(str(source)) is None
    assert find_library(str(tmp_path / "not-there")) is None


def test_reading_without_writing_is_no_library(tmp_path: Path) -> None:
    source, program = tmp_path / "half.c", tmp_path / "half"
    source.write_text("int SSL_read(void) { return 1; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(program), str(source)], check=True)
    assert functions(str(program), OPENSSL.calls).keys() == {"SSL_read"}
    assert find_library(str(program)) is None


def test_mutilated_files_are_no_library_and_no_error(tmp_path: Path) -> None:
    whole = Path(own("libssl").path).read_bytes()
    random_ = random.Random(1)
    broken = tmp_path / "broken"
    tables = len(whole) - 64 * 40
    for number in range(60):
        data = bytearray(whole)
        for _ in range(random_.randrange(1, 40)):
            at = random_.choice((random_.randrange(64), random_.randrange(tables, len(whole))))
            data[at] = random_.randrange(256)
        broken.write_bytes(data[: random_.randrange(len(whole))] if number % 3 == 0 else data)
        found = functions(str(broken), OPENSSL.calls)
        assert all(0 <= offset < 1 << 63 for offset in found.values())


MAPS = b"""\
55d0c0000000-55d0c0001000 r--p 00000000 fe:01 11  /usr/sbin/nginx
55d0c0001000-55d0c0101000 r-xp 00001000 fe:01 11  /usr/sbin/nginx
7f0000000000-7f0000001000 r-xp 00001000 fe:01 22  /usr/lib/with space/libssl.so.3 (deleted)
7f0000001000-7f0000002000 r-xp 00002000 fe:01 22  /usr/lib/with space/libssl.so.3 (deleted)
7f0000002000-7f0000003000 rw-p 00000000 00:00 0
7f0000003000-7f0000004000 r-xp 00000000 00:00 0  [vdso]
7f0000004000-7f0000005000 r-xp 00000000 fe:01 x  /broken
broken
"""


def test_mappings_are_read() -> None:
    assert list(parse_mapped(MAPS)) == [
        Mapped("/usr/sbin/nginx", False, "fe:01", 11, "55d0c0001000-55d0c0101000"),
        Mapped("/usr/lib/with space/libssl.so.3", True, "fe:01", 22, "7f0000000000-7f0000001000"),
    ]
    assert read_mapped("/proc", 1 << 30) is None


def test_a_file_that_was_replaced_is_opened_by_its_mapping() -> None:
    mapped = own("libssl")
    deleted = Mapped(mapped.path, True, mapped.device, mapped.inode, mapped.area)
    (path,) = opening_paths("/proc", os.getpid(), deleted)
    assert path == f"/proc/{os.getpid()}/map_files/{mapped.area}"
    assert next(opening_paths("/proc", os.getpid(), mapped)).endswith(f"root{mapped.path}")
    another = Mapped(mapped.path, False, mapped.device, mapped.inode + 1, "0-1")
    assert list(opening_paths("/proc", os.getpid(), another)) == []


@pytest.mark.parametrize(
    ("name", "is_program", "wanted"),
    [
        ("libssl.so.3", False, True),
        ("libgnutls.so.30", False, True),
        ("_ssl.cpython-311-x86_64-linux-gnu.so", False, True),
        ("libnetty_tcnative_linux_x86_64.so", False, True),
        ("_wrapper.abi3.so", False, True),
        ("libc.so.6", False, False),
        ("node", True, True),
    ],
)
def test_which_files_are_looked_into(name: str, is_program: bool, wanted: bool) -> None:
    assert is_candidate(Mapped(f"/lib/{name}", False, "0:1", 1, "0-1"), is_program) is wanted


def test_why_nothing_is_seen() -> None:
    assert "Java" in unseen("java")
    assert unseen("python") == ""


def test_gnutls_is_found() -> None:
    found = ctypes.util.find_library("gnutls")
    directory = Path(own("libssl").path).parent
    path = directory / str(found)
    assert path.exists(), "tests/install.sh brings wget, which has it"
    library, spots = find_library(str(path)) or (None, [])
    assert library is GNUTLS
    assert {TlsCall.TLS_READ, TlsCall.TLS_WRITE, TlsCall.TLS_FREE} <= {s.call for s in spots}
