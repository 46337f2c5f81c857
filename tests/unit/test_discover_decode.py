# SPDX-License-Identifier: Apache-2.0
"""Where probes go in functions whose instructions are spelled out here."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.elf_files import BASE, CODE, CODE_AT, Elf

from otelauto.discover.decode import (
    Convention,
    Cost,
    ProbePoint,
    is_emulated,
    probe_point,
    sweep,
)
from otelauto.discover.elf import ElfError, Image

ENDBR64 = "f30f1efa "
RET = "c3 "
# What the kernel emulates, and neighbours that it does not (or refuses, as 66 90).
EMULATED = (
    "50", "57", "4150", "4157", "90", "eb05", "e900000000", "7405", "0f8400000000", "0f8f00000000",
)  # fmt: skip
STEPPED = (
    "58", "4050", "4950", "0f1f00", "0f1f440000", "6690", "f390", "6650", "e800000000", "c3",
    "4883ec08", "f30f1efa", "0fbe00", "e305", "ff25000000",
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "program"


def point(path: Path, code: str, size: int | None = None, **options: object) -> ProbePoint:
    """Of the function that begins with the code."""
    raw = bytes.fromhex(code)
    path.write_bytes(Elf(raw).file())
    with Image(str(path)) as image:
        size = len(raw) if size is None else size
        return probe_point(image, CODE, size, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("code", EMULATED)
def test_what_the_kernel_emulates(code: str) -> None:
    assert is_emulated(bytes.fromhex(code))


@pytest.mark.parametrize("code", STEPPED)
def test_what_it_does_not(code: str) -> None:
    assert not is_emulated(bytes.fromhex(code))


@pytest.mark.parametrize(
    ("code", "behind", "at_entry"),
    [
        ("55 " + RET, 0, True),
        (ENDBR64 + "4157 " + RET, 4, True),
        ("4883ec18 85d2 7802 90 " + RET, 6, False),  # sub rsp; test edx, edx; js
        ("31c0 31c9 55 5d" + RET, 4, True),  # neither is one of the first three arguments
        (ENDBR64 + "e900000000", 4, True),
        ("4863d2 55 5d " + RET, 3, True),  # movsxd rdx, edx keeps what edx was
        ("89d2 55 5d " + RET, 2, True),  # mov edx, edx as well
    ],
)
def test_the_first_emulated_instruction(path: Path, code: str, behind: int, at_entry: bool) -> None:
    found = point(path, code)
    assert found == ProbePoint(CODE + behind, CODE_AT + behind, Cost.EMULATED, at_entry)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("31ff 55 5d " + RET, "argument is changed"),  # xor edi, edi
        ("b201 55 5d " + RET, "argument is changed"),  # mov dl, 1
        ("88d6 55 5d " + RET, "argument is changed"),  # mov dh, dl
        ("0fa2 55 5d " + RET, "argument is changed"),  # cpuid writes edx unnamed
        (RET, "leaves"),
        ("ffe0", "leaves"),  # jmp rax
        ("e800000000 55 5d " + RET, "calls another"),
        ("06", "cannot be decoded"),  # no instruction in 64-bit mode
        ("31c0 90 75fd " + RET, "come back"),  # jne to the nop, which is the place
        ("31c0 55 5d ebfc " + RET, "come back"),
        ("31c0 55 5d 06 " + RET, "come back"),  # who knows, with no instruction in it
    ],
)
def test_else_the_entry(path: Path, code: str, why: str) -> None:
    found = point(path, code)
    assert (found.address, found.offset, found.cost) == (CODE, CODE_AT, Cost.STEPPED)
    assert why in found.why


def test_a_loop_to_the_first_instruction_is_a_new_call(path: Path) -> None:
    assert point(path, "55 5d ebfc " + RET).address == CODE


def test_behind_the_first_instruction_the_size_must_be_known(path: Path) -> None:
    assert point(path, "31c0 55 5d" + RET, size=0).cost is Cost.STEPPED
    assert point(path, "55 5d" + RET, size=0).cost is Cost.EMULATED
    assert point(path, ENDBR64 + "55 5d" + RET, size=0).cost is Cost.EMULATED


def wrapper(inner: str) -> str:
    """sub rsp; test edx, edx; js; movsxd rdx, edx; mov rcx, rsp; call inner; ...; ret"""
    head = bytes.fromhex("4883ec18 85d2 780b 4863d2 4889e1 e805000000 4883c418 c3")
    at = head.index(b"\xe8")
    assert len(head) == at + 5 + 5
    return (head + bytes.fromhex(inner)).hex()


def test_with_a_return_probe_the_return_address_must_be_on_top(path: Path) -> None:
    code = wrapper("4156 415e c3")
    assert point(path, code).address == CODE + 6
    refused = point(path, code, returning=True)
    assert (refused.address, refused.cost) == (CODE, Cost.STEPPED)
    inner = point(path, code, returning=True, follow_calls=True)
    assert (inner.cost, inner.at_entry, inner.inner) == (Cost.EMULATED, True, True)
    assert inner.address == CODE + len(bytes.fromhex(code)) - 5


@pytest.mark.parametrize("inner", ["31ff 55 c3", "e8fbffffff c3", "e8ffffff7f c3"])
def test_an_inner_function_that_is_no_better_is_not_taken(path: Path, inner: str) -> None:
    found = point(path, wrapper(inner), returning=True, follow_calls=True)
    assert (found.address, found.inner) == (CODE, False)


def test_go_s_convention_keeps_the_stack_pointer(path: Path) -> None:
    check = "493b6610 7605 55 90 5d c3 90 ebf3"
    found = point(path, check, convention=Convention.GO)
    assert (found.address, found.at_entry) == (CODE + 4, True)
    large = "4c8d6424b8 4d3b6610 7605 55 90 5d c3 90 ebee"
    assert point(path, large, convention=Convention.GO).address == CODE + 9
    assert point(path, "4883ec08 55 5d c3", convention=Convention.GO).cost is Cost.STEPPED
    assert point(path, "31c0 55 5d c3", convention=Convention.GO).cost is Cost.STEPPED


def test_other_processors(path: Path) -> None:
    path.write_bytes(Elf(b"\x55\xc3", machine=183).file())
    with Image(str(path)) as image:
        assert probe_point(image, CODE, 2).why
        with pytest.raises(ElfError):
            probe_point(image, BASE - 1, 2)


@pytest.mark.parametrize(
    ("code", "returns"),
    [
        ("55 5d c3", (2,)),
        ("7402 90 c3 c20800 cccccc", (3, 4)),
        ("48b8c3c3c3c3c3c3c3c3 c3", (10,)),  # the c3 in the number are no returns
        ("e9fbffffff", ()),
    ],
)
def test_every_return_and_nothing_else(path: Path, code: str, returns: tuple[int, ...]) -> None:
    raw = bytes.fromhex(code)
    path.write_bytes(Elf(raw).file())
    with Image(str(path)) as image:
        found = sweep(image, CODE, CODE + len(raw)).returns
    assert tuple(address - CODE for address in found) == returns


@pytest.mark.parametrize(
    "code",
    [
        "06 c3",  # no instruction
        "7401 48b8c3c3c3c3c3c3c3c3 c3",  # a branch into the middle of one
        "c3 48b8c3",  # the last one is cut
        "",
    ],
)
def test_a_function_that_does_not_fit_together_is_refused(path: Path, code: str) -> None:
    raw = bytes.fromhex(code)
    path.write_bytes(Elf(raw + bytes(16)).file())
    with Image(str(path)) as image, pytest.raises(ElfError):
        sweep(image, CODE, CODE + len(raw))
