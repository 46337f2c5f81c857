# SPDX-License-Identifier: Apache-2.0
"""libbpf 1.1 or newer through ctypes: thin, typed, and with errors that say what was refused."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

from otelauto.errors import KernelError
from otelauto.kernel.btf import KIND_FUNC, KIND_TYPEDEF, TYPE

Pointer = ctypes.c_void_p

# A release wheel brings its own.
BUNDLED: Final = Path(__file__).parent / "bundled" / "libbpf.so.1"

BPF_ANY: Final = 0
LOG_LINES: Final = 400
LOG_BYTES: Final = 1 << 17  # a verifier log arrives as one text

# name: (result, arguments)
SIGNATURES: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "bpf_object__open_file": (Pointer, (ctypes.c_char_p, Pointer)),
    "bpf_object__load": (ctypes.c_int, (Pointer,)),
    "bpf_object__close": (None, (Pointer,)),
    "bpf_object__btf": (Pointer, (Pointer,)),
    "btf__load_vmlinux_btf": (Pointer, ()),
    "btf__find_by_name_kind": (
        ctypes.c_int,
        (Pointer, ctypes.c_char_p, ctypes.c_uint32),
    ),
    "btf__type_by_id": (Pointer, (Pointer, ctypes.c_uint32)),
    "btf__raw_data": (Pointer, (Pointer, ctypes.POINTER(ctypes.c_uint32))),
    "bpf_object__next_program": (Pointer, (Pointer, Pointer)),
    "bpf_object__next_map": (Pointer, (Pointer, Pointer)),
    "bpf_program__name": (ctypes.c_char_p, (Pointer,)),
    "bpf_program__section_name": (ctypes.c_char_p, (Pointer,)),
    "bpf_program__set_autoload": (ctypes.c_int, (Pointer, ctypes.c_bool)),
    "bpf_program__set_expected_attach_type": (ctypes.c_int, (Pointer, ctypes.c_int)),
    "bpf_program__attach": (Pointer, (Pointer,)),
    "bpf_program__fd": (ctypes.c_int, (Pointer,)),
    "bpf_link__destroy": (ctypes.c_int, (Pointer,)),
    "bpf_map__name": (ctypes.c_char_p, (Pointer,)),
    "bpf_map__fd": (ctypes.c_int, (Pointer,)),
    "bpf_map__reuse_fd": (ctypes.c_int, (Pointer, ctypes.c_int)),
    "bpf_map__set_max_entries": (ctypes.c_int, (Pointer, ctypes.c_uint32)),
    "bpf_map__max_entries": (ctypes.c_uint32, (Pointer,)),
    "bpf_map__initial_value": (Pointer, (Pointer, ctypes.POINTER(ctypes.c_size_t))),
    "bpf_map_update_elem": (
        ctypes.c_int,
        (ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint64),
    ),
    "bpf_map_delete_elem": (ctypes.c_int, (ctypes.c_int, ctypes.c_char_p)),
    "bpf_map_lookup_elem": (ctypes.c_int, (ctypes.c_int, ctypes.c_char_p, Pointer)),
    "bpf_map_get_next_key": (ctypes.c_int, (ctypes.c_int, Pointer, Pointer)),
    "bpf_obj_get_info_by_fd": (
        ctypes.c_int,
        (ctypes.c_int, Pointer, ctypes.POINTER(ctypes.c_uint32)),
    ),
    "bpf_prog_test_run_opts": (ctypes.c_int, (ctypes.c_int, Pointer)),
    "bpf_enable_stats": (ctypes.c_int, (ctypes.c_int,)),
    "libbpf_num_possible_cpus": (ctypes.c_int, ()),
    "libbpf_set_print": (Pointer, (Pointer,)),
}

PRINTER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, Pointer)


class Library:
    """The loaded libbpf. ``log`` keeps its last lines: the verifier's words when a load fails."""

    def __init__(self) -> None:
        try:
            self._lib = ctypes.CDLL(
                str(BUNDLED) if BUNDLED.exists() else "libbpf.so.1", use_errno=True
            )
        except OSError as error:
            raise KernelError(
                f"libbpf 1.1 or newer cannot be loaded: {error}",
                "install it: apt-get install libbpf1",
            ) from error
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(self._lib, name)
            function.restype, function.argtypes = result, arguments
        self._libc = ctypes.CDLL(None)
        self.log: list[str] = []
        self._printer = PRINTER(self._print)  # kept alive: libbpf holds the pointer
        self._lib.libbpf_set_print(self._printer)

    def _print(self, _level: int, form: bytes, arguments: int) -> int:
        buffer = ctypes.create_string_buffer(LOG_BYTES)
        self._libc.vsnprintf(buffer, ctypes.c_size_t(len(buffer)), form, Pointer(arguments))
        self.log.extend(buffer.value.decode(errors="replace").splitlines())
        del self.log[:-LOG_LINES]
        return 0

    def call(self, name: str, *arguments: Any) -> Any:
        """Call ``name``; a negative result or a null pointer raises OSError with the errno."""
        result = getattr(self._lib, name)(*arguments)
        restype = SIGNATURES[name][0]
        if restype is ctypes.c_int and result < 0:
            raise OSError(-result, os.strerror(-result))
        if restype is Pointer and not result:
            code = ctypes.get_errno() or errno.EINVAL
            raise OSError(code, os.strerror(code))
        return result

    def each(self, name: str, parent: int) -> Iterator[int]:
        """Walk a ``bpf_object__next_*`` list."""
        item = None
        while item := getattr(self._lib, name)(parent, item):
            yield item

    @cached_property
    def _kernel_types(self) -> Any:
        return self.call("btf__load_vmlinux_btf")

    def _kernel_type(self, name: str, kind: int) -> int:
        """The number of a type of the running kernel; negative if it has none."""
        types = self._kernel_types
        number: int = self._lib.btf__find_by_name_kind(types, name.encode(), kind)
        return number

    def has_tracepoint(self, name: str) -> bool:
        """Whether the running kernel's BTF has the raw tracepoint ``name``."""
        return self._kernel_type(f"btf_trace_{name}", KIND_TYPEDEF) > 0

    def parameters(self, function: str) -> int | None:
        """How many parameters the running kernel's ``function`` has; None if there is none.

        A function's type names its prototype, whose info word holds the count
        (Documentation/bpf/btf.rst).
        """
        number = self._kernel_type(function, KIND_FUNC)
        if number <= 0:
            return None
        prototype = self._type_words(number)[2]
        return self._type_words(prototype)[1] & 0xFFFF

    def _type_words(self, number: int) -> tuple[int, ...]:
        """name_off, info, and size or type of struct btf_type."""
        at = self.call("btf__type_by_id", self._kernel_types, number)
        return TYPE.unpack(ctypes.string_at(at, TYPE.size))


@cache
def library() -> Library:
    """The one libbpf of this process; raises KernelError if it is not installed."""
    return Library()
