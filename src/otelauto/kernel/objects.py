# SPDX-License-Identifier: Apache-2.0
"""One compiled BPF object: open, set constants, share maps, load, attach, look up."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import platform
import re
import resource
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from otelauto.errors import KernelError
from otelauto.kernel import contract
from otelauto.kernel.btf import KIND_DATASEC, Btf
from otelauto.kernel.libbpf import BPF_ANY, Library, library

log = logging.getLogger("otelauto.kernel")

OBJECTS: Final = Path(__file__).parent / "objects"
# Sections of programs that are linked to one process's file at a time (kernel/uprobes.py).
PER_PROCESS: Final = ("uprobe", "uretprobe")
KEYS_LIMIT: Final = 1 << 18
NUMBER: Final = struct.Struct("=I")  # a key of an array
LOCKDOWN: Final = Path("/sys/kernel/security/lockdown")
FAILED: Final = re.compile(r"^libbpf: prog '(\w+)': failed to load")

# Of struct bpf_prog_info (include/uapi/linux/bpf.h): id; run_time_ns, run_cnt, recursion_misses;
# verified_insns.
PROG_INFO: Final = struct.Struct("<4xI184xQQQI12x")


@dataclass(slots=True)
class Probe:
    """One program and what became of it. ``state`` is attached, refused or absent."""

    name: str
    hook: str
    state: str
    why: str = ""


class NotAllowedError(KernelError):
    """The kernel could load the object, but this process may not have it loaded."""


class RejectedError(KernelError):
    """The kernel does not load an object because of one of its programs, ``program``."""

    def __init__(self, program: str, message: str, remedy: str) -> None:
        super().__init__(message, remedy)
        self.program = program


@dataclass(frozen=True, slots=True)
class ProgramCost:
    """What the kernel counted of one program; times are 0 while BPF statistics are off."""

    name: str
    program_id: int
    run_time_ns: int
    runs: int
    missed: int  # not run because it was running already on that CPU
    verified_instructions: int


class BpfObject:
    """A BPF object file of this package. Everything it makes goes with its file descriptors."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lib = library()
        path = OBJECTS / f"{name}.bpf.o"
        if not path.exists():
            raise KernelError(
                f"the BPF object {path.name} is missing", "in a checkout run `make bpf`"
            )
        contract.check(Btf(contract.section(path, ".BTF")), path.name)
        self._object = self._lib.call("bpf_object__open_file", str(path).encode(), None)
        each, call = self._lib.each, self._lib.call
        self.programs: dict[str, int] = {
            call("bpf_program__name", p).decode(): p
            for p in each("bpf_object__next_program", self._object)
        }
        self._maps: dict[str, int] = {
            call("bpf_map__name", m).decode(): m for m in each("bpf_object__next_map", self._object)
        }
        self._links: dict[str, int] = {}

    def hook(self, program: str) -> str:
        """The tracepoint or kernel function of a program, by its section name."""
        return self._section(program)[1]

    def _section(self, program: str) -> tuple[str, str]:
        """Kind and hook of a program."""
        section: bytes = self._lib.call("bpf_program__section_name", self.programs[program])
        kind, _, hook = section.decode().partition("/")
        return kind, hook

    def is_there(self, program: str) -> bool:
        """Whether this kernel has the program's hook."""
        kind, hook = self._section(program)
        if kind in PER_PROCESS:
            return True
        if kind == "tp_btf":
            return self._lib.has_tracepoint(hook)
        return self._lib.parameters(hook) is not None

    def set_attach_type(self, program: str, attach_type: int) -> None:
        """Say for which kind of link a program is loaded (enum bpf_attach_type); before load."""
        call = self._lib.call
        call("bpf_program__set_expected_attach_type", self.programs[program], attach_type)

    def set_constants(self, **values: int) -> None:
        """Set 32- or 64-bit ``const volatile`` knobs by name; before :meth:`load`."""
        size = ctypes.c_uint32()
        raw = self._lib.call("bpf_object__btf", self._object)
        data = self._lib.call("btf__raw_data", raw, ctypes.byref(size))
        btf = Btf(ctypes.string_at(data, size.value))
        rodata = btf.find(KIND_DATASEC, ".rodata")
        (name,) = (n for n in self._maps if n.endswith(".rodata"))
        length = ctypes.c_size_t()
        memory = self._lib.call("bpf_map__initial_value", self._maps[name], ctypes.byref(length))
        by_name = {member.name: member for member in rodata.members}
        for knob, value in values.items():
            member = by_name[knob]
            ctypes.memmove(
                memory + member.offset, value.to_bytes(member.value, "little"), member.value
            )

    def share_map(self, name: str, owner: BpfObject) -> None:
        """Use another loaded object's map instead of one of our own."""
        self._lib.call("bpf_map__reuse_fd", self._maps[name], owner.map_fd(name))

    def share_maps(self, owner: BpfObject) -> None:
        """Use all maps of another loaded object of the same file, but those of its variables."""
        for name in self._maps:
            if "." not in name:  # .rodata, .bss
                self.share_map(name, owner)

    def multiply_map(self, name: str, factor: int) -> None:
        """Give a map ``factor`` times the entries it was declared with; before :meth:`load`."""
        entries: int = self._lib.call("bpf_map__max_entries", self._maps[name])
        self._lib.call("bpf_map__set_max_entries", self._maps[name], entries * factor)

    def load(self, rejected: Mapping[str, str] | None = None) -> list[Probe]:
        """Load all programs whose hook this kernel has; returns the probes of the others.

        ``rejected`` are programs to leave out, and why. Raises RejectedError if the kernel does not
        take a program, KernelError if it takes none.
        """
        probes = []
        rejected = rejected or {}
        for name in list(self.programs):
            hook = self.hook(name)
            if name in rejected:
                probes.append(Probe(name, hook, "refused", rejected[name]))
            elif not self.is_there(name):
                why = f"Linux {platform.release()} has no {hook}"
                probes.append(Probe(name, hook, "absent", why))
            else:
                continue
            self._lib.call("bpf_program__set_autoload", self.programs.pop(name), False)
        del self._lib.log[:]
        try:
            self._lib.call("bpf_object__load", self._object)
        except OSError as error:
            raise self._load_error(error) from error
        return probes

    def attach(self) -> list[Probe]:
        """Attach what is loaded and not attached; one that is refused leaves the others working."""
        return [
            self._attach(name, program)
            for name, program in self.programs.items()
            if name not in self._links and self._section(name)[0] not in PER_PROCESS
        ]

    def _load_error(self, error: OSError) -> KernelError:
        if _is_locked_down():
            return NotAllowedError(
                "the kernel is locked down (confidentiality): BPF programs may not read its memory",
                "boot it with lockdown=integrity, or without",
            )
        if error.errno in (errno.EPERM, errno.EACCES) and os.geteuid() != 0:
            return NotAllowedError(
                "not allowed to load BPF programs", "run as root, or with CAP_BPF and CAP_PERFMON"
            )
        if error.errno == errno.EPERM and (limit := _memory_limit(self._lib)):
            return NotAllowedError(
                f"this kernel counts BPF maps as locked memory, and allows {limit >> 10} KiB of it",
                "raise the limit (ulimit -l unlimited, LimitMEMLOCK=infinity), or grant"
                " CAP_SYS_RESOURCE",
            )
        if error.errno == errno.EPERM:
            return NotAllowedError(
                "the kernel refuses to load BPF programs",
                "grant CAP_BPF and CAP_PERFMON; check kernel lockdown and the seccomp profile",
            )
        for line in self._lib.log:
            log.debug("%s", line)
        telling = [
            line for line in self._lib.log if line and not line.startswith(("libbpf:", "--"))
        ]
        last = telling[-1] if telling else error.strerror
        message = f"the kernel does not accept {self.name}.bpf.o: {last}"
        remedy = "run with --debug for the verifier's log, and report it"
        failed = [match[1] for line in self._lib.log if (match := FAILED.search(line))]
        if failed:
            return RejectedError(failed[-1], message, remedy)
        return KernelError(message, remedy)

    def _attach(self, name: str, program: int) -> Probe:
        hook = self.hook(name)
        try:
            self._links[name] = self._lib.call("bpf_program__attach", program)
        except OSError as error:
            return Probe(name, hook, "refused", f"{error.strerror} (errno {error.errno})")
        return Probe(name, hook, "attached")

    def map_fd(self, name: str) -> int:
        """File descriptor of a loaded map."""
        fd: int = self._lib.call("bpf_map__fd", self._maps[name])
        return fd

    def program_fd(self, name: str) -> int:
        """File descriptor of a loaded program."""
        fd: int = self._lib.call("bpf_program__fd", self.programs[name])
        return fd

    def update(self, name: str, key: bytes, value: bytes) -> None:
        """Insert or replace an entry; OSError E2BIG or ENOSPC when the map is full."""
        self._lib.call("bpf_map_update_elem", self.map_fd(name), key, value, BPF_ANY)

    def delete(self, name: str, key: bytes) -> None:
        """Remove an entry, if it is there."""
        try:
            self._lib.call("bpf_map_delete_elem", self.map_fd(name), key)
        except FileNotFoundError:
            return

    def keys(self, name: str, size: int) -> list[bytes]:
        """The keys, of ``size`` bytes, of a hash map that others may be changing."""
        found: set[bytes] = set()
        key, following = None, ctypes.create_string_buffer(size)
        with suppress(FileNotFoundError):
            # A walk begins anew when the key that it stands at is deleted.
            for _ in range(KEYS_LIMIT):
                self._lib.call("bpf_map_get_next_key", self.map_fd(name), key, following)
                found.add(following.raw)
                key = ctypes.create_string_buffer(following.raw, size)
        return list(found)

    def lookup(self, name: str, key: bytes, size: int) -> bytes | None:
        """The value of ``size`` bytes (all CPUs' values in a row for a per-CPU map), or None."""
        value = ctypes.create_string_buffer(size)
        try:
            self._lib.call("bpf_map_lookup_elem", self.map_fd(name), key, value)
        except FileNotFoundError:
            return None
        return value.raw

    def values(self, name: str, count: int, size: int) -> bytes:
        """The first ``count`` values of an array, of ``size`` bytes each, behind one another."""
        fd, found = self.map_fd(name), ctypes.create_string_buffer(count * size)
        for number in range(count):
            at = ctypes.addressof(found) + number * size
            self._lib.call("bpf_map_lookup_elem", fd, NUMBER.pack(number), at)
        return found.raw

    def costs(self) -> list[ProgramCost]:
        """Run counts and times of the loaded programs."""
        rows = []
        for name in self.programs:
            info = ctypes.create_string_buffer(PROG_INFO.size)
            length = ctypes.c_uint32(PROG_INFO.size)
            self._lib.call(
                "bpf_obj_get_info_by_fd", self.program_fd(name), info, ctypes.byref(length)
            )
            program_id, run_time, runs, missed, verified = PROG_INFO.unpack(info)
            rows.append(ProgramCost(name, program_id, run_time, runs, missed, verified))
        return rows

    def map_memory(self) -> dict[str, int]:
        """Bytes of kernel memory by map, as the kernel accounts them."""
        return {name: _memlock(self.map_fd(name)) for name in self._maps}

    def detach(self, *names: str) -> None:
        """Leave the hooks of these programs, of all if none is named; the maps stay."""
        for name in names or tuple(self._links):
            if link := self._links.pop(name, None):
                self._lib.call("bpf_link__destroy", link)

    def close(self) -> None:
        """Detach and unload."""
        self.detach()
        self._lib.call("bpf_object__close", self._object)
        self._object = None  # closing it again does nothing


def _is_locked_down() -> bool:
    """Whether the mode in force is "confidentiality" (kernel_lockdown(7)); "integrity" allows BPF.

    Where securityfs is not mounted nobody can tell.
    """
    try:
        return "[confidentiality]" in LOCKDOWN.read_text()
    except OSError:
        return False


def _memory_limit(lib: Library) -> int:
    """Bytes that BPF maps may take of this process's locked memory; 0: no limit.

    Since 5.11 they count for the control group instead. The helper of the same release tells, as it
    does libbpf, which has raised the limit where it may.
    """
    if lib.parameters("bpf_ktime_get_coarse_ns") is not None:
        return 0
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return 0 if limit == resource.RLIM_INFINITY else limit


def _memlock(fd: int) -> int:
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
        if line.startswith("memlock:"):
            return int(line.split()[1])
    return 0
