# SPDX-License-Identifier: Apache-2.0
"""Who has the say in a service's name, and what a selector matches."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.discover_tree import Tree

from otelauto.counters import Counters
from otelauto.discover.names import (
    BAD_ENVIRONMENT,
    Identity,
    Namer,
    Naming,
    parse_resource_attributes,
)
from otelauto.discover.procfs import ProcFs
from otelauto.discover.programs import Program
from otelauto.discover.select import Selector, is_activator

COUNTERS = Counters()


def identity(
    path: Path, environ: dict[str, str], naming: Naming | None = None, name: str = "program"
) -> Identity:
    tree = Tree(path)
    tree.process(7, "/opt/program", environ=environ, pids=(7, 3))
    namer = Namer(ProcFs(str(path)), naming or Naming(host="box"), COUNTERS)
    return namer.identity(7, "/opt/program", Program(name, name, "python"))


ENVIRON = {
    "OTEL_SERVICE_NAME": "from-env",
    "OTEL_RESOURCE_ATTRIBUTES": "service.name=from-attr,service.namespace=ns,tier=a%2Cb",
}


def test_the_program_names_a_silent_process(tmp_path: Path) -> None:
    found = identity(tmp_path, {})
    assert (found.service_name, found.namespace, found.instance_id) == ("program", "", "box:7")
    assert found.language == "python"
    assert found.attributes == {
        "host.name": "box",
        "process.pid": 3,
        "process.executable.name": "program",
        "process.executable.path": "/opt/program",
    }


def test_the_environment_wins_over_the_program(tmp_path: Path) -> None:
    found = identity(tmp_path, ENVIRON)
    assert (found.service_name, found.namespace) == ("from-env", "ns")
    assert found.attributes["tier"] == "a,b"
    assert not any(key.startswith("service.") for key in found.attributes)


def test_attributes_name_the_service_without_the_variable(tmp_path: Path) -> None:
    found = identity(tmp_path, {"OTEL_RESOURCE_ATTRIBUTES": "service.name=from-attr"})
    assert found.service_name == "from-attr"


def test_the_configuration_wins_over_the_environment(tmp_path: Path) -> None:
    naming = Naming(
        service_name="configured",
        namespace="configured-ns",
        resource_attributes={"service.name": "less", "tier": "c", "host.name": "named"},
        host="box",
    )
    found = identity(tmp_path, ENVIRON, naming)
    assert (found.service_name, found.namespace) == ("configured", "configured-ns")
    assert (found.attributes["tier"], found.attributes["host.name"]) == ("c", "named")


def test_configured_attributes_win_over_the_environment(tmp_path: Path) -> None:
    naming = Naming(resource_attributes={"service.name": "c", "service.namespace": "d"})
    found = identity(tmp_path, ENVIRON, naming)
    assert (found.service_name, found.namespace) == ("c", "d")


def test_instance_ids_are_the_targets_own_and_never_otelautos(tmp_path: Path) -> None:
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=mine"}
    naming = Naming(resource_attributes={"service.instance.id": "shared"}, host="box")
    assert identity(tmp_path, environ, naming).instance_id == "mine"
    assert identity(tmp_path, {}, naming).instance_id == "box:7"


def test_bad_attributes_are_discarded_and_counted(tmp_path: Path) -> None:
    before = COUNTERS.get(BAD_ENVIRONMENT)
    found = identity(tmp_path, {"OTEL_RESOURCE_ATTRIBUTES": "service.name=x,nonsense"})
    assert found.service_name == "program"
    assert COUNTERS.get(BAD_ENVIRONMENT) == before + 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a\x00b\n", "ab"), ("\x1b[31m", "[31m"), ("", "pid-7"), ("x" * 999, "x" * 255)],
)
def test_names_are_printable_and_bounded(tmp_path: Path, name: str, expected: str) -> None:
    assert identity(tmp_path, {}, name=name).service_name == expected


def test_container_ids_become_an_attribute(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.process(7, "/opt/program")
    (tmp_path / "7/cgroup").write_text("0::/docker/" + "ab" * 32)
    namer = Namer(ProcFs(str(tmp_path)), Naming(), COUNTERS)
    found = namer.identity(7, "/opt/program", Program("x", "x", "go"))
    assert found.attributes["container.id"] == "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("a=b", {"a": "b"}),
        (" a = b , c=d ,", {"a": "b", "c": "d"}),
        ("a=b=c", {"a": "b=c"}),
        ("a=%20%C3%A9", {"a": " é"}),
        ("a=", {"a": ""}),
    ],
)
def test_resource_attributes(text: str, expected: dict[str, str]) -> None:
    assert parse_resource_attributes(text) == expected


@pytest.mark.parametrize("text", ["a", "a=b,c", "=b", "a=%ff"])
def test_bad_resource_attributes(text: str) -> None:
    with pytest.raises(ValueError):
        parse_resource_attributes(text)


@pytest.mark.parametrize(
    ("wanted", "names", "matches"),
    [
        ("server", ["/app/server"], True),
        ("server", ["/app/myserver"], True),
        ("app/server", ["/app/server"], True),
        ("server", ["/server/other"], False),
        ("app.py", ["/usr/bin/python3.11", "python3", "/srv/app.py"], True),
        ("python3", ["/usr/bin/python3.11", "python3", "app.py"], True),
        ("*serv?r", ["/app/myserver"], True),
        ("serv*", ["/app/myserver"], False),
        ("serv*", ["/serv/other"], False),
        ("/app/*", ["/app/x/y"], True),
        ("/app/[xy]", ["/app/z"], False),
        ("Server", ["/app/server"], False),
    ],
)
def test_executable_names(wanted: str, names: list[str], *, matches: bool) -> None:
    assert Selector(executable_name=wanted).wants_executable(names) is matches
    assert Selector(exclude=("nothing", wanted)).excludes(names) is matches


def test_ports_win_over_the_executable() -> None:
    selector = Selector(open_ports=((80, 80), (8000, 8999)), executable_name="server")
    assert not selector.wants_executable(["/app/server"])
    assert [p for p in (79, 80, 81, 7999, 8000, 8999, 9000) if selector.wants_port(p)] == [
        80, 8000, 8999,
    ]  # fmt: skip


def test_activators() -> None:
    assert is_activator(1, "whatever")
    assert is_activator(900, "systemd")
    assert not is_activator(900, "nginx")
