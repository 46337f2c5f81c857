# SPDX-License-Identifier: Apache-2.0
"""What values settings take: how each kind is read from text, and how it is shown again.

Every value arrives as text (YAML scalars are not interpreted by YAML's own rules, so ``on``,
``0755`` or ``12:30`` mean the same in a file as in an environment variable).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Pairs = Sequence[tuple[str, str]]
Raw = str | list[str] | list[tuple[str, str]]

MAX_PORT = 65535
MAX_PID = 1 << 22  # PID_MAX_LIMIT of 64-bit kernels


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A kind of value. The readers raise :class:`ValueError`; its text, if any, is the remedy."""

    name: str  # as the documentation calls it
    allowed: str  # completes "it takes ..."
    example: str
    from_text: Callable[[str], T]
    from_list: Callable[[Sequence[str]], T] | None = None
    from_pairs: Callable[[Pairs], T] | None = None
    show: Callable[[T], Any] = lambda value: value
    secret: bool = False

    def read(self, raw: Raw) -> T:
        """The value that ``raw`` (a scalar, a list of scalars or a mapping's pairs) stands for."""
        if isinstance(raw, str):
            return self.from_text(raw)
        if raw and isinstance(raw[0], tuple):
            if self.from_pairs is None:
                raise ValueError
            return self.from_pairs(raw)
        if self.from_list is None:
            raise ValueError
        return self.from_list(raw)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Ports:
    """A set of TCP ports, as sorted, disjoint ranges (low, high), both inclusive."""

    ranges: tuple[tuple[int, int], ...] = ()

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and any(low <= port <= high for low, high in self.ranges)

    def __iter__(self) -> Iterator[int]:
        for low, high in self.ranges:
            yield from range(low, high + 1)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __str__(self) -> str:
        return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in self.ranges)

    @classmethod
    def of(cls, ranges: Sequence[tuple[int, int]]) -> Ports:
        """The union of ``ranges``; those that touch or overlap are joined."""
        joined: list[tuple[int, int]] = []
        for low, high in sorted(ranges):
            if joined and low <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
            else:
                joined.append((low, high))
        return cls(tuple(joined))


_TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "off", "0"})
_SIZE = re.compile(r"([0-9]{1,15})\s*(|B|KiB|MiB|GiB|kB|KB|MB|GB)", re.ASCII)
_UNIT_BYTES = {
    "": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
    "kB": 1000, "KB": 1000, "MB": 1000**2, "GB": 1000**3,
}  # fmt: skip
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_UNIT_SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0,
}  # fmt: skip


def split_list(text: str) -> list[str]:
    """The items of a comma-separated list, without blanks around them or empty items."""
    return [item.strip() for item in text.split(",") if item.strip()]


def read_integer(text: str) -> int:
    """A decimal integer; raises :class:`ValueError` for anything else (also ``1_000``)."""
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()):
        raise ValueError
    return int(text)


def read_duration(text: str) -> float:
    """Seconds of a duration such as ``5s``, ``500ms``, ``1m30s``; a number needs its unit."""
    stripped = text.strip()
    if re.fullmatch(r"0+", stripped):
        return 0.0
    pieces = _DURATION.findall(stripped)
    if not pieces or "".join(number + unit for number, unit in pieces) != stripped:
        if re.fullmatch(r"[0-9.]+", stripped):
            raise ValueError(f'Add the unit, for example "{stripped}s" or "{stripped}ms".')
        raise ValueError
    seconds = math.fsum(float(number) * _UNIT_SECONDS[unit] for number, unit in pieces)
    if not math.isfinite(seconds):
        raise ValueError
    return seconds


def show_duration(seconds: float) -> str:
    """The shortest text that :func:`read_duration` reads as ``seconds``."""
    if seconds == 0:
        return "0s"
    for unit, size in (("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size and (seconds / size).is_integer():
            return f"{int(seconds / size)}{unit}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def read_size(text: str) -> int:
    """Bytes of a size such as ``256MiB``, ``10MB`` or ``65536``."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError
    return int(found[1]) * _UNIT_BYTES[found[2]]


def show_size(count: int) -> str:
    """The shortest text that :func:`read_size` reads as ``count``."""
    for unit in ("GiB", "MiB", "KiB"):
        if count and count % _UNIT_BYTES[unit] == 0:
            return f"{count // _UNIT_BYTES[unit]}{unit}"
    return str(count)


def read_boolean(text: str) -> bool:
    """true or false, also yes/no, on/off, 1/0; case does not matter."""
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError
    return word in _TRUE


def _read_port_range(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    first = read_integer(low)
    last = read_integer(high) if dash else first
    if not 1 <= first <= last <= MAX_PORT:
        raise ValueError
    return first, last


def read_ports(text: str) -> Ports:
    """Ports of ``443``, ``80,443`` or ``80,8000-8999``."""
    items = split_list(text)
    if not items:
        raise ValueError
    return Ports.of([_read_port_range(item) for item in items])


def _read_pids(items: Sequence[str]) -> tuple[int, ...]:
    pids = sorted({read_integer(item) for item in items})
    if not pids or pids[0] < 1 or pids[-1] > MAX_PID:
        raise ValueError
    return tuple(pids)


def _read_pattern(text: str) -> str:
    if not text.strip() or any(char in text for char in "?# "):
        raise ValueError("A pattern is a path such as /users/:id, without query or blanks.")
    return text


def _read_patterns(items: Sequence[str]) -> tuple[str, ...]:
    return tuple(_read_pattern(item) for item in items)


def _read_line(text: str) -> str:
    if any(ord(char) < 32 for char in text):
        raise ValueError("Remove the control characters.")
    return text


def _read_hosts(items: Sequence[str]) -> tuple[str, ...]:
    hosts = tuple(dict.fromkeys(_read_line(item).strip() for item in items))
    if not hosts or not all(hosts):
        raise ValueError
    return hosts


def _read_url_path(text: str) -> str:
    if not re.fullmatch(r"/[!-~]*", text) or "?" in text or "#" in text:
        raise ValueError
    return text


def _read_file_path(text: str) -> str:
    if "\0" in text:
        raise ValueError
    return text


def integer(minimum: int, maximum: int | None = None, *, example: int) -> Kind[int]:
    """A whole number of ``minimum`` or more, and of ``maximum`` at most."""

    def read(text: str) -> int:
        value = read_integer(text)
        if value < minimum or (maximum is not None and value > maximum):
            raise ValueError
        return value

    span = f"from {minimum} to {maximum}" if maximum is not None else f"of {minimum} or more"
    return Kind("integer", f"a whole number {span}", str(example), read)


def duration(*, above_zero: bool = False, example: str = "5s") -> Kind[float]:
    """A duration in seconds, zero allowed unless ``above_zero``."""

    def read(text: str) -> float:
        value = read_duration(text)
        if above_zero and value == 0:
            raise ValueError
        return value

    more = " above zero" if above_zero else ""
    allowed = f"a duration{more} with units (ns, us, ms, s, m, h)"
    return Kind("duration", allowed, example, read, show=show_duration)


def milliseconds(*, above_zero: bool = False) -> Kind[float]:
    """Seconds, written as whole milliseconds (the unit of the OpenTelemetry variables)."""

    def read(text: str) -> float:
        value = read_integer(text)
        if value < int(above_zero):
            raise ValueError
        return value / 1000

    more = " above zero" if above_zero else ""
    allowed = f"a whole number of milliseconds{more}"
    return Kind("milliseconds", allowed, "10000", read, show=show_duration)


def size(minimum: int, *, example: str) -> Kind[int]:
    """A number of bytes, of ``minimum`` or more."""

    def read(text: str) -> int:
        value = read_size(text)
        if value < minimum:
            raise ValueError
        return value

    allowed = f"a size of {show_size(minimum)} or more, with a unit (KiB, MiB, GiB, kB, MB, GB)"
    return Kind("size", allowed, example, read, show=show_size)


def choice(*words: str, case: Callable[[str], str] = str.lower) -> Kind[str]:
    """One of ``words``, in any case."""

    def read(text: str) -> str:
        word = case(text.strip())
        if word not in words:
            raise ValueError
        return word

    listed = ", ".join(words[:-1]) + f" or {words[-1]}"
    return Kind(" \\| ".join(f"`{word}`" for word in words), listed, words[-1], read)


def words(*known: str) -> Kind[tuple[str, ...]]:
    """Some of ``known``, in any case and each once, or ``none`` alone."""
    one = choice(*known, "none")

    def read(items: Sequence[str]) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(one.read(item) for item in items))
        if not found or ("none" in found and len(found) > 1):
            raise ValueError
        return found

    listed = " or ".join((", ".join(known[:-1]), known[-1])) if len(known) > 1 else known[0]
    return Kind(
        ", ".join(f"`{word}`" for word in known) + " \\| `none`",
        f"a list of {listed}, or none",
        known[0],
        lambda text: read(split_list(text)),
        read,
        show=list,
    )


BOOLEAN: Kind[bool] = Kind("boolean", "true or false", "true", read_boolean)
STRING: Kind[str] = Kind("string", "one line of text", "my-service", _read_line)
HOSTS: Kind[tuple[str, ...]] = Kind(
    "hosts",
    "one or more host names or addresses",
    "127.0.0.1,::1",
    lambda text: _read_hosts(split_list(text)),
    _read_hosts,
    show=",".join,
)
EXECUTABLE: Kind[str] = Kind(
    "path suffix or pattern",
    "the end of an executable's path, or a shell pattern with * ? [",
    "my-service",
    _read_line,
)
# The only words that the OpenTelemetry specification lets a variable of its own take.
TRUE_OR_FALSE: Kind[bool] = Kind(
    "boolean", "true or false", "true", lambda text: choice("true", "false").read(text) == "true"
)
PORT = integer(0, MAX_PORT, example=8080)
PORTS: Kind[Ports] = Kind(
    "ports",
    "ports from 1 to 65535: one, a list or ranges",
    "80,443,8000-8999",
    read_ports,
    lambda items: read_ports(",".join(items)),
    show=str,
)
PIDS: Kind[tuple[int, ...]] = Kind(
    "process ids",
    f"process ids from 1 to {MAX_PID}",
    "4711,4712",
    lambda text: _read_pids(split_list(text)),
    _read_pids,
    show=list,
)
PATTERNS: Kind[tuple[str, ...]] = Kind(
    "list of paths",
    "paths whose variable segments are :name or {name}",
    "/users/:id",
    lambda text: _read_patterns(split_list(text)),
    _read_patterns,
    show=list,
)
URL_PATH: Kind[str] = Kind("URL path", "a path that begins with /", "/metrics", _read_url_path)
FILE_PATH: Kind[str] = Kind(
    "file path", "the path of a file", "/etc/otelauto/ca.pem", _read_file_path
)
DIRECTORY: Kind[str] = Kind(
    "directory", "the path of a directory", "/var/lib/otelauto", _read_file_path
)
# What systemd gives its services may be several, separated by colons (systemd.exec(5)).
FIRST_DIRECTORY: Kind[str] = Kind(
    DIRECTORY.name,
    DIRECTORY.allowed,
    DIRECTORY.example,
    lambda text: _read_file_path(text).partition(":")[0],
)
MILLISECONDS = milliseconds()
