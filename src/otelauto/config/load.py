# SPDX-License-Identifier: Apache-2.0
"""From file, environment and flags to one checked configuration.

Precedence: default < file < environment < flag. Everything that is wrong is reported at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from otelauto.config.grafana import settle_grafana
from otelauto.config.kinds import Kind, Raw
from otelauto.config.otlp import Headers, LastGood, Secret, mask_url
from otelauto.config.problems import DEFAULT, Findings, InvalidConfig, Origin, Source, nearest
from otelauto.config.protocol import settle_protocols
from otelauto.config.rules import Purpose, check
from otelauto.config.selection import select_exporters
from otelauto.config.setting import OWN_PREFIX, Declaration, Variable, build, declarations
from otelauto.config.settings import Config
from otelauto.config.yaml_file import Given, read_file

_WATCHED_PREFIXES = (
    OWN_PREFIX, "OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_PROMETHEUS_", "OTEL_BSP_", "OTEL_METRIC",
    "OTEL_TRACES_", "OTEL_SDK_",
)  # fmt: skip
_LOGS = "OTEL_EXPORTER_OTLP_LOGS_"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, where each setting came from (by dotted key), and what to warn about."""

    config: Config
    origins: dict[str, Origin]
    warnings: tuple[str, ...]


class _Merge:
    """Values by declaration, the strongest source last."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.values: dict[tuple[str, ...], Any] = {}
        self.origins: dict[str, Origin] = {}

    def put(self, declaration: Declaration, value: Any, origin: Origin) -> None:
        self.values[declaration.attributes] = value
        self.origins[declaration.key] = origin

    def from_file(self, given: Given) -> None:
        kind = given.declaration.setting.kind
        try:
            value = kind.read(given.raw)
        except ValueError as error:
            origin = _blamed(kind, given)
            remedy = (
                str(error) or f"Write, for example, {given.declaration.path[-1]}: {kind.example}"
            )
            self._bad(origin.where, given.declaration.key, given.raw, kind, remedy)
        else:
            if given.reread is not None:
                value = _that_changes(value, LastGood(partial(_read_again, kind, given.reread)))
            self.put(given.declaration, value, given.origin)

    def from_environment(self, declaration: Declaration, environ: Mapping[str, str]) -> None:
        """Take the strongest variable that is set; an empty one is not."""
        for variable in declaration.env:
            text = environ.get(variable.name, "")
            if text.strip() and self._variable(declaration, variable, text):
                return

    def _variable(self, declaration: Declaration, variable: Variable, text: str) -> bool:
        kind = variable.kind or declaration.setting.kind
        try:
            value = kind.read(text)
        except ValueError as error:
            shown = _shown(text, kind)
            if variable.lenient:
                sentence = f"ignored, because {shown} is not what it takes ({kind.allowed})."
                self.findings.warn(variable.name, sentence)
                return False
            remedy = str(error) or f"Set, for example, {variable.name}={kind.example}"
            if text.startswith("tcp://"):
                remedy = (
                    "Kubernetes sets it for a Service of that name: set enableServiceLinks: false "
                    "in the Pod."
                )
            self._bad(variable.name, declaration.key, text, kind, remedy)
            return True
        if value == "":
            return False
        self.put(declaration, value, Origin(Source.ENVIRONMENT, variable.name, literal=False))
        return True

    def from_flag(self, declaration: Declaration, flag: str, text: str) -> None:
        kind = declaration.setting.kind
        try:
            self.put(declaration, kind.read(text), Origin(Source.FLAG, flag))
        except ValueError as error:
            remedy = str(error) or f"Write, for example, {flag} {kind.example}"
            self._bad(flag, declaration.key, text, kind, remedy)

    def _bad(self, where: str, key: str, raw: Raw, kind: Kind[Any], remedy: str) -> None:
        sentence = f'"{key}" cannot be {_shown(raw, kind)}: it takes {kind.allowed}.'
        if all(item.where != where or item.remedy != remedy for item in self.findings.problems):
            self.findings.problem(where, sentence, remedy)


def _that_changes(value: Any, reread: LastGood[Any]) -> Any:
    """``value`` such that it is read anew whenever it is used, if it is a credential."""
    if isinstance(value, Headers):
        return replace(value, reread=reread)
    return Secret(value, reread) if isinstance(value, Secret) else value


def _read_again(kind: Kind[Any], reread: Callable[[], Raw]) -> Any:
    return kind.read(reread())


def _shown(raw: Raw, kind: Kind[Any]) -> str:
    """``raw`` as messages may show it: no secret, one line, not endless."""
    if isinstance(raw, list):
        return "a mapping" if isinstance(raw[0], tuple) else "this list"
    if kind.secret:
        return f'"{mask_url(raw)}"' if "://" in raw else "this value (not shown)"
    text = raw.encode("unicode_escape").decode()
    return f'"{text[:60]}..."' if len(text) > 63 else f'"{text}"'


def _blamed(kind: Kind[Any], given: Given) -> Origin:
    """The origin of the list item that cannot be read, or of the whole value."""
    if isinstance(given.raw, list):
        for item, origin in zip(given.raw, given.item_origins, strict=True):
            try:
                kind.read([item])  # type: ignore[arg-type]
            except ValueError:
                return origin
    return given.origin


def _unread_variables(
    declared: tuple[Declaration, ...], environ: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Variables that look like ours and that nothing reads: (name, sentence)."""
    known = {variable.name for declaration in declared for variable in declaration.env}
    for name in sorted(environ):
        if not name.startswith(_WATCHED_PREFIXES) or name in known or name.startswith(_LOGS):
            continue
        meant = nearest(name.removeprefix(OWN_PREFIX).lower(), _own_suffixes(known))
        hint = f" Did you mean {OWN_PREFIX}{meant.upper()}?" if meant else ""
        if environ[name].strip():
            yield name, f"this variable is not read.{hint if name.startswith(OWN_PREFIX) else ''}"


def _own_suffixes(known: set[str]) -> list[str]:
    return [name.removeprefix(OWN_PREFIX).lower() for name in known if name.startswith(OWN_PREFIX)]


def load(
    path: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, str] | None = None,
    purpose: Purpose = Purpose.RUN,
) -> Loaded:
    """Merge the file at ``path`` (if any), ``environ`` and ``flags`` (by name, ``--open-port``).

    Raises :class:`InvalidConfig` with every problem found.
    """
    findings = Findings()
    merge = _Merge(findings)
    declared = declarations(Config)
    sections: set[str] = set()
    if path is not None:
        content = read_file(path, declared, environ, findings)
        sections = content.sections
        for given in content.given:
            merge.from_file(given)
    for declaration in declared:
        merge.from_environment(declaration, environ)
        for flag in declaration.setting.flags:
            if flags and flag in flags:
                merge.from_flag(declaration, flag, flags[flag])
    for name, sentence in _unread_variables(declared, environ):
        findings.warn(name, sentence)
    config = _complete(build(Config, merge.values), merge.origins, sections)
    config = settle_grafana(config, merge.origins)
    config = select_exporters(config, merge.origins, findings)
    config = settle_protocols(config, merge.origins, findings)
    check(config, merge.origins, declared, purpose, findings)
    if findings.problems:
        raise InvalidConfig(findings.problems)
    origins = {item.key: merge.origins.get(item.key, DEFAULT) for item in declared}
    return Loaded(config, origins, tuple(findings.warnings))


def _complete(config: Config, origins: dict[str, Origin], sections: set[str]) -> Config:
    """Fill in what follows from other settings, with the origin that it follows from."""
    if "trace_printer" not in origins and config.print_traces:
        config = replace(config, trace_printer="text")
        origins["trace_printer"] = origins["print_traces"]
    if "routes.unmatched" not in origins and ("routes" in sections or config.routes.patterns):
        config = replace(config, routes=replace(config.routes, unmatched="wildcard"))
    attributes = dict(config.resource_attributes)
    names = {
        "service_name": attributes.pop("service.name", ""),
        "service_namespace": attributes.pop("service.namespace", ""),
    }
    config = replace(config, resource_attributes=attributes)
    for part in ("otel_traces_export", "otel_metrics_export", "prometheus_export"):
        export = getattr(config, part)
        follows = {key: text for key, text in names.items() if text and not getattr(export, key)}
        for key in follows:
            origins[f"{part}.{key}"] = origins["resource_attributes"]
        config = replace(config, **{part: replace(export, **follows)})
    return config
