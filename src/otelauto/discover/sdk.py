# SPDX-License-Identifier: Apache-2.0
"""Does a process have an OpenTelemetry SDK of its own that exports traces?

Evidence is what makes an SDK export, not what could: a library that merely was linked is none.

    what                                    is found in
    an agent of the run time's language     its variable (JAVA_TOOL_OPTIONS, NODE_OPTIONS,
                                            PYTHONPATH, RUBYOPT, CORECLR_PROFILER_PATH) or arguments
    an exporter's library                   the mapped files (.dll, .so), of Java the open ones
    PHP's extension                         the mapped files, with OTEL_PHP_AUTOLOAD_ENABLED
    where traces go to                      OTEL_EXPORTER_OTLP_[TRACES_]ENDPOINT of an interpreter;
                                            of Go programs that have the module of an exporter

``OTEL_SDK_DISABLED=true`` and ``OTEL_TRACES_EXPORTER=none`` say that no traces are exported. What
an application sets up by itself leaves no trace here: its traffic tells (spans/existing_sdk.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from otelauto.discover import elf
from otelauto.discover.procfs import ProcFs

# By language: the variable that loads an agent (a child of another language may inherit it), and
# what it says then.
_AGENTS: Final = {
    "java": (
        ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"),
        re.compile(
            r"-javaagent:\S*?(opentelemetry-javaagent|aws-opentelemetry-agent|"
            r"elastic-otel-javaagent|splunk-otel-javaagent|grafana-opentelemetry-java|"
            r"applicationinsights-agent)"
        ),
    ),
    "nodejs": (
        ("NODE_OPTIONS",),
        re.compile(
            r"(--require|--import|--loader|--experimental-loader|-r)[= ]\S*"
            r"(@opentelemetry/|@splunk/otel|@elastic/opentelemetry|opentelemetry-js)"
        ),
    ),
    "python": (
        ("PYTHONPATH",),
        re.compile(r"opentelemetry/instrumentation/auto_instrumentation"),
    ),
    "ruby": (("RUBYOPT",), re.compile(r"-r\s*\S*opentelemetry")),
    "dotnet": (
        ("CORECLR_PROFILER_PATH",),
        re.compile(r"OpenTelemetry\.AutoInstrumentation\.Native"),
    ),
}
# Nothing else of an environment is looked at, but OTEL_*.
LOADING: Final = tuple(name for names, _ in _AGENTS.values() for name in names)
_MAPPED: Final = re.compile(
    r"/(OpenTelemetry\.(Exporter\.\w+|AutoInstrumentation[\w.]*)\.dll"
    r"|OpenTelemetry\.AutoInstrumentation\.Native\.so"
    r"|libopentelemetry_exporter_otlp\w*\.so[\d.]*)\Z"
)
_PHP: Final = re.compile(r"/opentelemetry\.so\Z")
_JAR: Final = re.compile(r"/opentelemetry-(exporter-otlp|javaagent)[\w.-]*\.jar\Z")
_GO_EXPORTERS: Final = (
    b"go.opentelemetry.io/otel/exporters/otlp/otlptrace",
    b"go.opentelemetry.io/contrib/exporters/autoexport",
)
# Weaker evidence than the others: they may have been set for another program.
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def evidence(procfs: ProcFs, tgid: int, language: str) -> str:
    """What tells that the process exports traces by an SDK, in a few words; empty: nothing does."""
    environ = procfs.chosen_environ(tgid, LOADING)
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ""
    if environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return ""
    return (
        _agent(procfs, tgid, environ, language)
        or _mapped(procfs, tgid, environ)
        or (_jar(procfs, tgid) if language == "java" else "")
        or _endpoint(procfs, tgid, environ, language)
    )


def _agent(procfs: ProcFs, tgid: int, environ: Mapping[str, str], language: str) -> str:
    if language not in _AGENTS:
        return ""
    names, pattern = _AGENTS[language]
    places = {name: environ[name] for name in names if name in environ}
    # The run time's options come before the program's arguments, which are not told from them:
    # what loads an agent hardly means anything else.
    places["arguments"] = " ".join(procfs.cmdline(tgid))
    return next((f"agent in {place}" for place, text in places.items() if pattern.search(text)), "")


def _mapped(procfs: ProcFs, tgid: int, environ: Mapping[str, str]) -> str:
    autoload = environ.get("OTEL_PHP_AUTOLOAD_ENABLED", "").strip().lower() == "true"
    for path in procfs.mapped_files(tgid):
        if _MAPPED.search(path) or (autoload and _PHP.search(path)):
            return f"library {path.rpartition('/')[2]}"
    return ""


def _jar(procfs: ProcFs, tgid: int) -> str:
    for path in procfs.open_files(tgid, ".jar"):
        if _JAR.search(path):
            return f"library {path.rpartition('/')[2]}"
    return ""


def _endpoint(procfs: ProcFs, tgid: int, environ: Mapping[str, str], language: str) -> str:
    """The variable that says where to send. Of native programs, only Go's tell of their modules."""
    named = next((name for name in ENDPOINTS if environ.get(name, "").strip()), "")
    if not named or language in {"", "rust"}:
        return ""
    if language == "go":
        modules = elf.go_build_info(procfs.executable_file(tgid))
        return named if any(name in modules for name in _GO_EXPORTERS) else ""
    return named
