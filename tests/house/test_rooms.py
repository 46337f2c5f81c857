# SPDX-License-Identifier: Apache-2.0
"""Imports run one way, and every protocol and exporter is in its registry."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest
from tests.house.scan import PACKAGE, imports, misdirected, module_of

from otelauto.protocols import protocols
from otelauto.protocols.settings import ProtocolSettings

# What each room may use beside itself. The wiring (the files next to the rooms) sees everything.
ALLOWED = {
    "agent": ("__version__", "config.problems", "counters", "errors", "export", "logs", "notify"),
    "config": ("errors",),
    "discover": ("kernel", "errors", "counters"),
    "export": ("spans", "flows.vocabulary", "hot.cells", "counters", "errors"),
    "flows": ("abi", "hot", "counters"),
    "hot": (),
    "kubernetes": ("__version__", "discover.containers", "counters", "errors"),
    "kernel": ("abi", "hot.ring", "errors", "counters"),
    "protocols": ("flows.vocabulary", "hot.http2"),
    "spans": ("flows.vocabulary", "hot.cells", "counters", "errors"),
}
# What may be imported before it is needed: the rest is heavy, or is for development only.
RUN_TIME = {"yaml"}
# Of run time too, imported by the one who needs it.
LATE = {"bcrypt", "cramjam", "google", "grpc", "h11", "iced_x86", "opentelemetry"}
ROOMS = sorted(p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists())


def test_every_room_has_a_rule() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if any(path.glob("*.py"))}
    assert rooms == set(ALLOWED)


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_imports_run_one_way(room: str) -> None:
    sources = sorted((PACKAGE / room).rglob("*.py"))
    assert sources
    found = [w for s in sources for w in misdirected(s.read_text(), module_of(s), ALLOWED)]
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "from otelauto.protocols.http1 import Http1",
        "import otelauto.app",
        "from otelauto import app",
        "from ..kernel import ring",
        "def late():\n    from otelauto.export import red",
    ],
)
def test_a_wrong_import_is_found(line: str) -> None:
    assert misdirected(line, "otelauto.flows.pairing", ALLOWED)


def test_right_imports_are_not_found() -> None:
    source = "import json\nfrom otelauto import abi\nfrom otelauto.flows.vocabulary import Side\n"
    assert not misdirected(source, "otelauto.flows.pairing", ALLOWED)


def _foreign(source: str, module: str) -> set[str]:
    tops = {target.split(".")[0] for _, target in imports(source, module)}
    return tops - set(sys.stdlib_module_names) - {"otelauto"}


def test_only_the_declared_packages_are_imported() -> None:
    used = set()
    for source in PACKAGE.rglob("*.py"):
        used |= _foreign(source.read_text(), module_of(source))
    assert used == RUN_TIME | LATE


def test_heavy_packages_are_imported_late() -> None:
    """Nothing that is imported before the configuration is known needs them."""
    program = "import sys, otelauto.cli, otelauto.app; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = set(out.stdout.decode().split())
    assert "otelauto.publish" in loaded
    assert not LATE & loaded


def test_a_foreign_package_is_found() -> None:
    assert _foreign("import numpy.linalg, os", "otelauto.x") == {"numpy"}


def _protocol_classes() -> set[type]:
    """Classes of protocols/ that the registry could list: they have all that a Recognizer has."""
    found = set()
    for path in (PACKAGE / "protocols").glob("*.py"):
        module = importlib.import_module(module_of(path))
        for _, kind in inspect.getmembers(module, inspect.isclass):
            members = ("name", "opaque", "response_start", "recognize", "parser")
            own = kind.__module__ == module.__name__
            if own and all(hasattr(kind, member) for member in members):
                found.add(kind)
    return found


def test_every_protocol_is_in_the_registry() -> None:
    listed = {type(protocol) for protocol in protocols(ProtocolSettings())}
    assert len(listed) >= 3
    assert listed == _protocol_classes()


def test_protocol_names_are_distinct() -> None:
    names = [protocol.name for protocol in protocols(ProtocolSettings())]
    assert len(names) == len(set(names))


def _exporter_classes() -> set[str]:
    """``module.Class`` of export/: classes with all that an Exporter has."""
    found = set()
    for path in (PACKAGE / "export").glob("*.py"):
        module = importlib.import_module(module_of(path))
        for name, kind in inspect.getmembers(module, inspect.isclass):
            public = kind.__module__ == module.__name__ and not getattr(kind, "_is_protocol", False)
            if public and all(hasattr(kind, m) for m in ("name", "start", "close", "status")):
                found.add(f"{module.__name__}.{name}")
    return found


def test_every_exporter_is_wired() -> None:
    wired = set()
    for path in PACKAGE.glob("*.py"):
        wired |= {target for _, target in imports(path.read_text(), module_of(path))}
    exporters = _exporter_classes()
    assert len(exporters) >= 4
    assert not exporters - wired
