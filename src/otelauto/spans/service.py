# SPDX-License-Identifier: Apache-2.0
"""The OpenTelemetry resource of a service, from plain values."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from otelauto.flows.vocabulary import Attributes, AttributeValue, ResourceValue
from otelauto.spans.span import Service

IDENTITY = ("service.name", "service.namespace", "service.instance.id")
HOST_ID_FILES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


def build_service(
    name: str,
    namespace: str = "",
    instance_id: str = "",
    *,
    version: str,
    host: Mapping[str, AttributeValue] | None = None,
    pid: int | None = None,
    executable: str | None = None,
    language: str | None = None,
    extra: Mapping[str, ResourceValue] | None = None,
    sdk: str = "",
) -> Service:
    """A :class:`Service` with its resource attributes.

    ``version`` is otelauto's own, ``host`` what :func:`host_attributes` found, ``executable`` the
    absolute path of the program, ``language`` its run time as ``telemetry.sdk.language`` spells it
    where it is known, ``extra`` the pairs of ``OTEL_RESOURCE_ATTRIBUTES``: they win over what was
    detected, but the service's identity is the first three arguments. ``sdk``: what tells of an SDK
    of its own.
    """
    attributes: dict[str, ResourceValue] = {"os.type": "linux", **(host or {})}
    if pid is not None:
        attributes["process.pid"] = pid
    if executable:
        attributes["process.executable.name"] = PurePosixPath(executable).name
        attributes["process.executable.path"] = executable
    attributes["telemetry.sdk.name"] = "otelauto"
    attributes["telemetry.sdk.version"] = version
    if language:
        attributes["telemetry.sdk.language"] = language
    attributes.update({k: v for k, v in (extra or {}).items() if k not in IDENTITY})
    return Service(name, namespace, instance_id, attributes, sdk)


def host_attributes(
    hostname: str | None = None, id_files: tuple[Path, ...] = HOST_ID_FILES
) -> Attributes:
    """``host.name``, and ``host.id`` from machine-id(5) where there is one."""
    attributes: Attributes = {"host.name": hostname or socket.gethostname()}
    for path in id_files:
        try:
            found = path.read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            continue
        if found and found != "uninitialized":
            attributes["host.id"] = found
            break
    return attributes


def identity_attributes(service: Service) -> Attributes:
    """What tells services apart in every export. An empty value is no attribute."""
    values = zip(IDENTITY, (service.name, service.namespace, service.instance_id), strict=True)
    return {key: value for key, value in values if value}
