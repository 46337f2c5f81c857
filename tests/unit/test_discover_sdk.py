# SPDX-License-Identifier: Apache-2.0
"""What tells at discovery that a service has an OpenTelemetry SDK, and what does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tests.unit.discover_tree import Tree

from otelauto.discover.names import Naming
from otelauto.discover.procfs import ProcFs
from otelauto.discover.sdk import evidence
from otelauto.discover.select import Selector
from otelauto.discover.watch import Discovery

AGENT = "-javaagent:/otel-auto-instrumentation-java/opentelemetry-javaagent.jar"
PYTHON = "/app/lib/python3.11/site-packages/opentelemetry/instrumentation/auto_instrumentation:/app"
REGISTER = "--require @opentelemetry/auto-instrumentations-node/register"
NAME = {"OTEL_SERVICE_NAME": "shop"}


def found(
    root: Path,
    language: str,
    environ: Mapping[str, str] | None = None,
    argv: Sequence[str] = ("program",),
    mapped: Sequence[str] = (),
    opened: Sequence[str] = (),
) -> str:
    tree = Tree(root)
    tree.process(7, "/opt/program", argv, environ=environ)
    lines = [
        f"7f0000000000-7f0000001000 r-xp 00000000 08:01 {n} {p}\n" for n, p in enumerate(mapped)
    ]
    (root / "7" / "maps").write_text("7ffd0000-7ffd1000 rw-p 0 00:00 0 [stack]\n" + "".join(lines))
    for number, path in enumerate(opened, 10):
        (root / "7" / "fd" / str(number)).symlink_to(path)
    return evidence(ProcFs(str(root)), 7, language)


@pytest.mark.parametrize(
    ("language", "environ", "argv", "words"),
    [
        ("java", {"JAVA_TOOL_OPTIONS": f"-Xmx1g {AGENT}"}, ["java"], "agent in JAVA_TOOL_OPTIONS"),
        ("java", {}, ["java", AGENT, "-jar", "shop.jar"], "agent in arguments"),
        ("nodejs", {"NODE_OPTIONS": REGISTER}, ["node", "a.js"], "agent in NODE_OPTIONS"),
        ("nodejs", {}, ["node", *REGISTER.split(), "a.js"], "agent in arguments"),
        ("nodejs", {}, ["node", "--import=@opentelemetry/x", "a.js"], "agent in arguments"),
        ("python", {"PYTHONPATH": PYTHON}, ["python3", "a.py"], "agent in PYTHONPATH"),
        ("ruby", {"RUBYOPT": "-ropentelemetry-auto"}, ["ruby"], "agent in RUBYOPT"),
        (
            "dotnet",
            {"CORECLR_PROFILER_PATH": "/o/OpenTelemetry.AutoInstrumentation.Native.so"},
            ["dotnet"],
            "agent in CORECLR_PROFILER_PATH",
        ),
        (
            "nodejs",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"},
            ["node"],
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
        (
            "python",
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"},
            ["python3"],
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        ),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, ["nginx"], ""),
        ("python", {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318"}, ["python3"], ""),
        # Inherited by a process of another language, or of other tools.
        ("", {"PYTHONPATH": PYTHON, "NODE_OPTIONS": REGISTER}, ["nginx"], ""),
        ("java", {"NODE_OPTIONS": REGISTER}, ["java"], ""),
        ("java", {"JAVA_TOOL_OPTIONS": "-javaagent:/newrelic.jar"}, ["java"], ""),
        ("nodejs", {"NODE_OPTIONS": "--max-old-space-size=512"}, ["node", "opentelemetry.js"], ""),
        ("python", {"PYTHONPATH": "/srv/opentelemetry"}, ["python3"], ""),
    ],
)
def test_agents(
    tmp_path: Path, language: str, environ: dict[str, str], argv: list[str], words: str
) -> None:
    assert found(tmp_path, language, {**NAME, **environ}, argv) == words


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "True"}, {"OTEL_TRACES_EXPORTER": " none "}])
def test_an_sdk_that_exports_no_traces_is_none(tmp_path: Path, off: dict[str, str]) -> None:
    assert found(tmp_path, "python", {"PYTHONPATH": PYTHON, **off}) == ""


def test_libraries(tmp_path: Path) -> None:
    dll = "/app/OpenTelemetry.Exporter.OpenTelemetryProtocol.dll"
    assert found(tmp_path, "dotnet", mapped=["/lib/libc.so.6", dll]).startswith("library Open")
    assert found(tmp_path, "", mapped=["/usr/lib/libopentelemetry_exporter_otlp_grpc.so"])
    assert found(tmp_path, "", mapped=["/usr/lib/libopentelemetry_common.so"]) == ""
    php = ["/usr/lib/php/opentelemetry.so (deleted)"]
    assert found(tmp_path, "php", mapped=php) == ""
    assert found(tmp_path, "php", {"OTEL_PHP_AUTOLOAD_ENABLED": "true"}, mapped=php)
    jar = "/app/lib/opentelemetry-exporter-otlp-1.45.0.jar"
    assert found(tmp_path, "java", opened=["/app/lib/spring.jar", jar]).endswith("1.45.0.jar")
    assert found(tmp_path, "java", opened=["/app/lib/opentelemetry-api-1.45.0.jar"]) == ""


def test_go_needs_module_and_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = b"dep\tgo.opentelemetry.io/otel/exporters/otlp/otlptrace\tv1.30.0\th1:x=\n"
    monkeypatch.setattr("otelauto.discover.elf.go_build_info", lambda path: info)
    assert found(tmp_path, "go") == ""
    assert found(tmp_path, "go", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"})
    monkeypatch.setattr("otelauto.discover.elf.go_build_info", lambda path: b"dep\tother\t")
    assert found(tmp_path, "go", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}) == ""


def test_what_is_loaded_later_is_found_by_a_deep_scan(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.process(7, "/usr/bin/dotnet", ["dotnet", "Shop.dll"], sockets=[70])
    tree.listen(70, 80)
    selector, naming = Selector(open_ports=((80, 80),)), Naming(host="box")
    discovery = Discovery(selector, ProcFs(str(tmp_path)), naming, own_tgid=99)
    (target,) = discovery.scan(deep=True).started
    assert target.identity.sdk == ""
    dll = "/app/OpenTelemetry.Exporter.OpenTelemetryProtocol.dll"
    (tmp_path / "7" / "maps").write_text(f"7f00-7f01 r--p 0 08:01 9 {dll}\n")
    assert not discovery.scan()
    (target,) = discovery.scan(deep=True).renamed
    assert target.identity.sdk.startswith("library OpenTelemetry.Exporter")
    assert not discovery.scan(deep=True)
