# SPDX-License-Identifier: Apache-2.0
"""Where probes go, from the decoded instructions of a function (x86-64).

A uprobe replaces the first byte of an instruction. The kernel emulates a few of them when their
probe is hit; any other is copied elsewhere and single-stepped, which takes a second trap
(branch_setup_xol_ops and push_setup_xol_ops in arch/x86/kernel/uprobes.c). So a probe goes to the
first emulated instruction at which what it wants to know still is where the caller put it.

The decoder is not ours, and what it said is checked: a sweep must end where its function ends, and
every direct branch of the function must lead to an instruction that the sweep found.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from otelauto.discover.elf import MACHINE_X86_64, ElfError, Image

if TYPE_CHECKING:
    import iced_x86

ENTRY_BYTES: Final = 512  # looked at from an entry on, at most
FUNCTION_BYTES: Final = 1 << 20
_ENDBR64: Final = b"\xf3\x0f\x1e\xfa"
_PADDING: Final = b"\xcc"
_CALLS_DEPTH: Final = 2


class Cost(enum.Enum):
    """What the kernel has to do at a probed instruction."""

    EMULATED = "emulated"
    STEPPED = "single-stepped"


class Convention(enum.Enum):
    """Registers (by the decoder's names) that must be what the caller set them to."""

    SYSTEM_V = ("RDI", "RSI", "RDX")  # the first three arguments of a C function
    GO = ("RAX", "RBX", "RCX", "R14", "RSP")  # the first three words; g; the stack


@dataclass(frozen=True, slots=True)
class ProbePoint:
    """Where to probe a function's beginning. ``offset`` is that in the file.

    ``at_entry``: the return address is on top of the stack, so a return probe may be put there.
    ``inner``: it is another function's beginning, which the wanted one calls with its first three
    arguments; what that returns need not be what the wanted one returns. ``why`` tells why the
    probe is not at an emulated instruction; empty if it is.
    """

    address: int
    offset: int
    cost: Cost
    at_entry: bool = True
    inner: bool = False
    why: str = ""


@cache
def _decoder() -> type[iced_x86.Decoder]:
    # Loaded by the first who needs it: 5 MB of memory.
    from iced_x86 import Decoder  # noqa: PLC0415

    return Decoder


@cache
def _written_by() -> _Effects:
    return _Effects()


class _Effects:
    """Which registers an instruction may change."""

    def __init__(self) -> None:
        import iced_x86  # noqa: PLC0415

        self._factory = iced_x86.InstructionInfoFactory()
        access = iced_x86.OpAccess
        self._writes = {
            access.WRITE, access.COND_WRITE, access.READ_WRITE, access.READ_COND_WRITE,
        }  # fmt: skip
        self._full = iced_x86.RegisterExt.full_register
        self._widens = iced_x86.Mnemonic.MOVSXD, iced_x86.Mnemonic.MOV
        self._numbers: dict[str, int] = {
            name: getattr(iced_x86.Register, name)
            for convention in Convention
            for name in (*convention.value, "RSP")
        }

    def of(self, instruction: iced_x86.Instruction) -> set[int]:
        if instruction.mnemonic in self._widens:
            into, of = instruction.op_register(0), instruction.op_register(1)
            signed = instruction.mnemonic == self._widens[0]
            if into == of or (signed and self._full(into) == self._full(of)):
                return set()  # a 32-bit argument is widened: its own bits stay
        used = self._factory.info(instruction).used_registers()
        return {self._full(one.register) for one in used if one.access in self._writes}

    def numbers(self, convention: Convention) -> set[int]:
        return {self._numbers[name] for name in convention.value}

    @property
    def stack_pointer(self) -> int:
        return self._numbers["RSP"]


def is_emulated(code: bytes) -> bool:
    """Does the kernel emulate this instruction? Calls, which it does too, are left out:

    what it pushes does not reach the shadow stack of a process that has one.
    """
    match len(code), code[:1]:
        case 1, first:
            return 0x50 <= first[0] <= 0x57 or first == b"\x90"  # push, nop
        case 2, b"\x41":
            return 0x50 <= code[1] <= 0x57  # push of r8 to r15
        case 2, first:
            return first == b"\xeb" or 0x70 <= first[0] <= 0x7F  # jmp, jcc
        case 5, first:
            return first == b"\xe9"
        case 6, b"\x0f":
            return 0x80 <= code[1] <= 0x8F
    return False


def probe_point(
    image: Image,
    start: int,
    size: int,
    convention: Convention = Convention.SYSTEM_V,
    *,
    returning: bool = False,
    follow_calls: bool = False,
) -> ProbePoint:
    """Where to probe the function of ``size`` bytes (0: not known) at the address ``start``.

    ``returning``: a return probe goes to the same place. ``follow_calls``: a direct call may be
    followed into the called function; only for functions that are known to be mere wrappers.

    The entry itself if no better place can be proven; never an error but ElfError, which means
    that the function is not in the file.
    """
    entry = image.file_offset(start)
    if image.machine != MACHINE_X86_64:
        return ProbePoint(start, entry, Cost.STEPPED, why="the processor is not an x86-64")
    at, length, depth = start, size, 0
    why = ""
    while depth <= _CALLS_DEPTH:
        found, call, why = _walk(image, at, length, convention, returning)
        if found is not None:
            address, at_entry = found
            offset = image.file_offset(address)
            return ProbePoint(address, offset, Cost.EMULATED, at_entry, depth > 0)
        if call is None or not follow_calls:
            break
        at, length, depth = call, 0, depth + 1
    return ProbePoint(start, entry, Cost.STEPPED, why=why)


def _walk(
    image: Image, start: int, size: int, convention: Convention, returning: bool
) -> tuple[tuple[int, bool] | None, int | None, str]:
    """Along a function's beginning: ((address, at entry) found, function called, why neither)."""
    import iced_x86  # noqa: PLC0415

    effects = _written_by()
    kept, pristine = effects.numbers(convention), True
    flow = iced_x86.FlowControl
    for instruction, code in _instructions(image, start):
        address = instruction.ip
        if is_emulated(code) and (pristine or not returning):
            if _once(image, start, size, address):
                return (address, pristine), None, ""
            return None, None, "the function may come back to its beginning"
        kind = instruction.flow_control
        if kind == flow.CALL and instruction.is_call_near:
            try:
                image.segment_of(instruction.near_branch_target)
            except ElfError:
                return None, None, "the function calls outside of the file"
            return None, instruction.near_branch_target, "the function calls another one first"
        if kind not in (flow.NEXT, flow.CONDITIONAL_BRANCH):
            return None, None, "the function leaves by an address that is not in its code"
        written = effects.of(instruction)
        if written & kept:
            return None, None, "no emulated instruction comes before an argument is changed"
        pristine = pristine and effects.stack_pointer not in written
    return None, None, "the function's instructions cannot be decoded"


def _instructions(image: Image, start: int) -> Iterator[tuple[iced_x86.Instruction, bytes]]:
    """Instructions with their bytes, up to the first that is none."""
    code = image.read(start, ENTRY_BYTES, short=True)
    for instruction in _decoder()(64, code, ip=start):
        if instruction.is_invalid:
            return
        at = instruction.ip - start
        yield instruction, code[at : at + instruction.len]


def _once(image: Image, start: int, size: int, address: int) -> bool:
    """Is the instruction reached once a call? True if nothing in the function leads back to it."""
    before = image.read(start, address - start)
    if before in (b"", _ENDBR64):
        return True
    if not 0 < size <= FUNCTION_BYTES:
        return False
    try:
        targets = sweep(image, start, start + size).targets
    except ElfError:
        return False
    return not any(start < target <= address for target in targets)


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a function's instructions are: addresses of its returns, and of its direct branches."""

    returns: tuple[int, ...]
    targets: frozenset[int]


def sweep(image: Image, start: int, end: int) -> Sweep:
    """All instructions of a function in the order of their addresses.

    Raises ElfError if what was decoded is not one sequence of instructions that fits together; a
    probe put there would break the program.
    """
    import iced_x86  # noqa: PLC0415

    if not 0 < end - start <= FUNCTION_BYTES:
        raise ElfError(f"has a function of {end - start} bytes")
    code = image.read(start, end - start)
    body = code.rstrip(_PADDING)
    flow = iced_x86.FlowControl
    starts, returns, targets = set(), [], set()
    at = start
    for instruction in _decoder()(64, body, ip=start):
        if instruction.is_invalid:
            raise ElfError(f"has no instruction at {instruction.ip:#x}")
        at = instruction.next_ip
        starts.add(instruction.ip)
        kind = instruction.flow_control
        if kind == flow.RETURN:
            returns.append(instruction.ip)
        elif kind in (flow.CONDITIONAL_BRANCH, flow.UNCONDITIONAL_BRANCH, flow.XBEGIN_XABORT_XEND):
            targets.add(instruction.near_branch_target)
    inside = {target for target in targets if start <= target < end}
    if at != start + len(body) or not inside <= starts:
        raise ElfError(f"has a function at {start:#x} that is not one run of instructions")
    return Sweep(tuple(returns), frozenset(inside))
