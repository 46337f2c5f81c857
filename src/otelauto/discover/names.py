# SPDX-License-Identifier: Apache-2.0
"""How a service is called: the OpenTelemetry resource of a group of processes.

``service.name`` and ``service.namespace``: otelauto's configuration, else the target's own
environment, else what is said of its container from outside (by Kubernetes), else (the name only)
the program. Within each, ``OTEL_SERVICE_NAME`` wins over ``OTEL_RESOURCE_ATTRIBUTES``, as the
OpenTelemetry specification says.

``service.instance.id``: what the target's environment says, else its place in Kubernetes, else
``host:pid`` of the process that leads the group. All workers of a pre-forked server are one
instance, so that a service has one set of series however many workers come and go. An instance id
in otelauto's own configuration is not used: many services would share it.
"""

from __future__ import annotations

import posixpath
import socket
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from otelauto.counters import Counters, Meaning
from otelauto.discover import containers, elf, sdk
from otelauto.discover.containers import Container, Metadata
from otelauto.discover.procfs import ProcFs
from otelauto.discover.programs import Program

BAD_ENVIRONMENT: Final = Meaning(
    "discovery_bad_environment",
    "Targets whose OTEL_RESOURCE_ATTRIBUTES could not be read and was ignored",
)

_NAME_LIMIT = 255  # characters
_LANGUAGES_REMEMBERED = 256
_SERVICE_KEYS = ("service.name", "service.namespace", "service.instance.id")


AttributeValue = str | int | tuple[str, ...]
# What is said of a container from outside; with the id that the service's process has in it.
Describe = Callable[[Container, int], Metadata]


@dataclass(frozen=True, slots=True)
class Origin:
    """What a service is named by: kept, because what is said of its container may come later."""

    tgid: int
    program_name: str
    own: Mapping[str, str]
    process: Mapping[str, str | int]
    container: Container | None


@dataclass(frozen=True, slots=True)
class Identity:
    """The resource of one service instance.

    ``attributes`` are those beside ``service.name``, ``service.namespace`` and
    ``service.instance.id``. ``namespace`` and ``language`` may be empty. ``sdk`` is what tells of
    an OpenTelemetry SDK of the service's own; empty: nothing does.
    """

    service_name: str
    namespace: str
    instance_id: str
    language: str
    attributes: Mapping[str, AttributeValue]
    sdk: str = ""
    origin: Origin | None = field(default=None, compare=False, repr=False)

    @property
    def container(self) -> Container | None:
        """The container that the service is in."""
        return self.origin.container if self.origin else None


@dataclass(frozen=True, slots=True)
class Naming:
    """What otelauto's configuration says of names; ``None`` leaves it to the target."""

    service_name: str | None = None
    namespace: str | None = None
    resource_attributes: Mapping[str, str] = field(default_factory=dict)
    host: str = field(default_factory=socket.gethostname)
    describe: Describe = lambda container, pid: Metadata(
        {"container.id": container.id} if container.id else {}
    )


def parse_resource_attributes(text: str) -> dict[str, str]:
    """Read ``OTEL_RESOURCE_ATTRIBUTES``: ``key=value`` pairs, comma-separated, percent-encoded.

    https://opentelemetry.io/docs/specs/otel/resource/sdk/#specifying-resource-information-via-an-environment-variable

    Raises:
        ValueError: a pair cannot be read; the specification says to discard all of them then.
    """
    found = {}
    for pair in text.split(","):
        if not pair.strip():
            continue
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"not key=value: {pair.strip()!r}")
        found[key.strip()] = urllib.parse.unquote(value.strip(), errors="strict")
    return found


class Namer:
    """Names processes, reading what it needs of them from /proc."""

    def __init__(self, procfs: ProcFs, naming: Naming, counters: Counters) -> None:
        self._procfs = procfs
        self._naming = naming
        self._counters = counters
        self._languages: dict[tuple[int, int, int], str] = {}

    def identity(self, tgid: int, executable: str, program: Program) -> Identity:
        """The resource of the service that process ``tgid`` leads."""
        language = program.language or self._native_language(tgid)
        origin = Origin(
            tgid,
            program.name,
            self._own_attributes(tgid),
            self._process_attributes(tgid, executable),
            containers.look(self._procfs, tgid),
        )
        return self._named(origin, language, sdk.evidence(self._procfs, tgid, language))

    def again(self, identity: Identity) -> Identity:
        """The same, with what is said of its container by now."""
        if identity.origin is None:
            return identity
        return self._named(identity.origin, identity.language, identity.sdk)

    def _named(self, origin: Origin, language: str, evidence: str) -> Identity:
        own, configured = origin.own, self._naming.resource_attributes
        told = Metadata({})
        if origin.container is not None:
            told = self._naming.describe(origin.container, int(origin.process["process.pid"]))
        attributes = {**origin.process, **told.attributes, **own, **configured}
        for key in _SERVICE_KEYS:
            attributes.pop(key, None)
        return Identity(
            service_name=_first(
                self._naming.service_name,
                configured.get("service.name"),
                own.get("service.name"),
                told.service_name,
                origin.program_name,
                f"pid-{origin.tgid}",
            ),
            namespace=_first(
                self._naming.namespace,
                configured.get("service.namespace"),
                own.get("service.namespace"),
                told.namespace,
            ),
            instance_id=_first(
                own.get("service.instance.id"),
                told.instance_id,
                f"{self._naming.host}:{origin.tgid}",
            ),
            language=language,
            attributes=attributes,
            sdk=evidence,
            origin=origin,
        )

    def sdk(self, tgid: int, language: str) -> str:
        """What tells of the SDK of a process by now: libraries are loaded as they are needed."""
        return sdk.evidence(self._procfs, tgid, language)

    def _own_attributes(self, tgid: int) -> dict[str, str]:
        """What the target's environment says of its resource."""
        environ = self._procfs.otel_environ(tgid)
        try:
            own = parse_resource_attributes(environ.get("OTEL_RESOURCE_ATTRIBUTES", ""))
        except ValueError:
            self._counters.add(BAD_ENVIRONMENT)
            own = {}
        if name := environ.get("OTEL_SERVICE_NAME"):
            own["service.name"] = name
        return own

    def _process_attributes(self, tgid: int, executable: str) -> dict[str, str | int]:
        """``process.pid`` is what the process itself knows as its id, as its own SDK would say."""
        pids = self._procfs.namespace_pids(tgid)
        return {
            "host.name": self._naming.host,
            "process.pid": pids[-1] if pids else tgid,
            "process.executable.name": posixpath.basename(executable),
            "process.executable.path": executable,
        }

    def _native_language(self, tgid: int) -> str:
        path = self._procfs.executable_file(tgid)
        try:
            status = Path(path).stat()
        except OSError:
            return ""
        key = (status.st_dev, status.st_ino, status.st_mtime_ns)
        if key not in self._languages:
            if len(self._languages) >= _LANGUAGES_REMEMBERED:
                self._languages.clear()
            self._languages[key] = elf.language(path)
        return self._languages[key]


def _first(*candidates: str | None) -> str:
    """The first that is not empty, without control characters, of bounded length."""
    for candidate in candidates:
        clean = "".join(c for c in candidate or "" if c.isprintable()).strip()
        if clean:
            return clean[:_NAME_LIMIT]
    return ""
