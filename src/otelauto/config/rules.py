# SPDX-License-Identifier: Apache-2.0
"""What must hold between settings, and what is allowed but deserves a warning."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from otelauto.config import grafana
from otelauto.config.exports import OtlpExport
from otelauto.config.problems import DEFAULT, Findings, Origin, Source
from otelauto.config.protocol import GRPC_PORT, HTTP_PORT
from otelauto.config.setting import Declaration
from otelauto.config.settings import Config


class Purpose(enum.Flag):
    """What a configuration is loaded for: which settings must be there."""

    SHOW = 0
    WATCH = enum.auto()  # needs a selector
    PUBLISH = enum.auto()  # needs an exporter
    RUN = WATCH | PUBLISH


@dataclass(frozen=True, slots=True)
class _Context:
    config: Config
    origins: Mapping[str, Origin]
    findings: Findings

    def where(self, *keys: str) -> str:
        """Where the strongest of the settings ``keys`` was given."""
        found = [self.origins.get(key, DEFAULT) for key in keys]
        return max(found, key=lambda origin: origin.source).where

    def given(self, key: str) -> bool:
        return key in self.origins

    def otlp(self) -> list[tuple[str, OtlpExport]]:
        """(section, settings) of the OTLP exporters that are on."""
        both: list[tuple[str, OtlpExport]] = [
            ("otel_metrics_export", self.config.otel_metrics_export),
            ("otel_traces_export", self.config.otel_traces_export),
        ]
        return [(name, export) for name, export in both if export.endpoint is not None]


def check(
    config: Config,
    origins: Mapping[str, Origin],
    declared: tuple[Declaration, ...],
    purpose: Purpose,
    findings: Findings,
) -> None:
    """Add to ``findings`` what breaks a rule. What is missing is only said of a valid rest."""
    context = _Context(config, origins, findings)
    for rule in _CONSISTENCY:
        rule(context)
    for declaration in declared:
        if declaration.setting.no_effect and declaration.key in origins:
            reason = declaration.setting.no_effect
            where = origins[declaration.key].where
            findings.warn(where, f'"{declaration.key}" has no effect: {reason}.')
    if findings.problems or (config.disabled and Purpose.PUBLISH in purpose):
        return
    if Purpose.WATCH in purpose:
        _needs_selector(context)
    if Purpose.PUBLISH in purpose:
        _grafana_is_whole(context)
        _needs_exporter(context)


def _needs_selector(context: _Context) -> None:
    ebpf = context.config.ebpf
    if not (ebpf.open_port or ebpf.executable_name or ebpf.pids or ebpf.system_wide):
        context.findings.problem(
            "",
            "nothing says which processes to watch.",
            "Give --open-port, --executable-name, --pid or --system-wide (in YAML ebpf.open_port, "
            "ebpf.executable_name, ebpf.pids or ebpf.system_wide; or OPEN_PORT, EXECUTABLE_NAME, "
            "SYSTEM_WIDE).",
        )


def _needs_exporter(context: _Context) -> None:
    config = context.config
    if not (
        context.otlp()
        or config.trace_printer != "disabled"
        or config.prometheus_export.port
        or config.noop
    ):
        off = [
            f'"{key}" is none'
            for key in ("traces_exporter", "metrics_exporter")
            if getattr(config, key) == ("none",)
        ]
        because = f", and {' and '.join(off)}" if off else ""
        context.findings.problem(
            context.where("traces_exporter", "metrics_exporter") if off else "",
            f"nothing says where to publish what is seen{because}.",
            "Give --print, --prometheus-port or --otlp-endpoint (in YAML trace_printer, "
            "prometheus_export.port, otel_metrics_export.endpoint or otel_traces_export.endpoint; "
            "or PRINT_TRACES, PROMETHEUS_PORT, OTEL_EXPORTER_OTLP_ENDPOINT).",
        )


def _grafana_is_whole(context: _Context) -> None:
    missing = grafana.lacking(context.config.grafana.otlp)
    if missing and len(missing) < len(grafana.KEYS):
        given = [f"grafana.otlp.{key}" for key in grafana.KEYS if key not in missing]
        named = " and ".join(f'"grafana.otlp.{key}"' for key in missing)
        context.findings.problem(
            context.where(*given),
            f"Grafana Cloud also needs {named}.",
            "Give zone, instance id and API key, or none of them.",
        )


def _system_wide_is_alone(context: _Context) -> None:
    ebpf = context.config.ebpf
    others = ("open_port", "executable_name", "pids")
    given = [f"ebpf.{name}" for name in others if getattr(ebpf, name)]
    if ebpf.system_wide and given:
        context.findings.problem(
            context.where("ebpf.system_wide", *given),
            f'"ebpf.system_wide" excludes {" and ".join(given)}.',
            "Remove either ebpf.system_wide or the other selectors.",
        )


def _port_before_name(context: _Context) -> None:
    if context.config.ebpf.open_port and context.config.ebpf.executable_name:
        context.findings.warn(
            context.where("ebpf.executable_name"),
            '"ebpf.executable_name" is not looked at, because "ebpf.open_port" is set.',
        )


def _printer_words(context: _Context) -> None:
    config = context.config
    beaten = config.traces_exporter == ("none",)  # which has been said
    if config.print_traces and config.trace_printer == "disabled" and not beaten:
        context.findings.warn(
            context.where("print_traces"),
            '"print_traces" is not looked at, because "trace_printer" is disabled '
            f"({context.where('trace_printer')}).",
        )


def _files_exist(context: _Context) -> None:
    for section, export in context.otlp():
        for name in ("certificate", "client_certificate", "client_key"):
            path = getattr(export, name)
            try:
                there = not path or (Path(path).exists() and not Path(path).is_dir())
            except OSError:
                there = False
            if not there:
                where = context.where(f"{section}.{name}")
                sentence = f'"{section}.{name}" names a file that is not there: {path}.'
                context.findings.problem(where, sentence, "Give the path of a PEM file.")


def _web_file_exists(context: _Context) -> None:
    config = context.config
    path = config.prometheus_export.web_config_file
    is_on = config.prometheus_export.port or config.internal_metrics.prometheus.port
    if is_on and path and not Path(path).is_file():
        key = "prometheus_export.web_config_file"
        sentence = f'"{key}" names a file that is not there: {path}.'
        remedy = "Give the path of a web configuration file."
        context.findings.problem(context.where(key), sentence, remedy)


def _ratio_is_for_ratios(context: _Context) -> None:
    sampler = context.config.sampling.sampler
    if context.given("sampling.ratio") and not sampler.endswith("traceidratio"):
        context.findings.warn(
            context.where("sampling.ratio"),
            f'"sampling.ratio" has no effect: the sampler is {sampler}.',
        )


def _key_pairs(context: _Context) -> None:
    for section, export in context.otlp():
        if bool(export.client_certificate) != bool(export.client_key):
            keys = (f"{section}.client_certificate", f"{section}.client_key")
            sentence = f'"{keys[0]}" and "{keys[1]}" need each other.'
            context.findings.problem(context.where(*keys), sentence, "Give both or neither.")


def _batch_fits_queue(context: _Context) -> None:
    traces = context.config.otel_traces_export
    if traces.max_export_batch_size > traces.max_queue_size:
        keys = ("otel_traces_export.max_export_batch_size", "otel_traces_export.max_queue_size")
        context.findings.problem(
            context.where(*keys),
            f'"{keys[0]}" ({traces.max_export_batch_size}) is more than "{keys[1]}" '
            f"({traces.max_queue_size}).",
            "Lower the batch size or raise the queue size.",
        )


def _series_fit(context: _Context) -> None:
    limits = context.config.limits
    if limits.series_per_service > limits.series:
        context.findings.problem(
            context.where("limits.series_per_service", "limits.series"),
            f'"limits.series_per_service" ({limits.series_per_service}) is more than '
            f'"limits.series" ({limits.series}).',
            "Lower the first or raise the second.",
        )


def _plaintext(context: _Context) -> None:
    for section, export in context.otlp():
        endpoint = export.endpoint
        if endpoint is None or endpoint.encrypted or endpoint.is_loopback():
            continue
        secrets = " and the credentials" if export.request_headers() else ""
        context.findings.warn(
            context.where(f"{section}.endpoint"),
            f"what is seen{secrets} will cross the network unencrypted to {endpoint.host}; "
            "use https.",
        )


def _usual_ports(context: _Context) -> None:
    for section, export in context.otlp():
        others = HTTP_PORT if export.protocol == "grpc" else GRPC_PORT
        usual = GRPC_PORT if export.protocol == "grpc" else HTTP_PORT
        if export.endpoint is not None and export.endpoint.port == others:
            context.findings.warn(
                context.where(f"{section}.endpoint"),
                f"port {others} is not the usual one of {export.protocol}, which is {usual}.",
            )


def _appended_twice(context: _Context) -> None:
    for section, export in context.otlp():
        where = context.where(f"{section}.endpoint")
        url = export.endpoint.url if export.endpoint is not None else ""
        if where == "OTEL_EXPORTER_OTLP_ENDPOINT" and url.count("/v1/") > 1:
            context.findings.warn(
                where, f"is a base URL, so spans or metrics go to {url}; remove the path /v1/..."
            )


def _skip_verify(context: _Context) -> None:
    for section, export in context.otlp():
        if export.insecure_skip_verify and export.protocol == "grpc":
            context.findings.problem(
                context.where(f"{section}.insecure_skip_verify"),
                f'"{section}.insecure_skip_verify" cannot be had over gRPC.',
                f'Give the server\'s certificate as "{section}.certificate", or use http/protobuf.',
            )
        elif export.insecure_skip_verify:
            context.findings.warn(
                context.where(f"{section}.insecure_skip_verify"),
                f'the certificate of "{section}.endpoint" is not checked.',
            )


def _insecure_is_for_grpc(context: _Context) -> None:
    for section, export in context.otlp():
        if export.insecure and export.endpoint is not None and export.endpoint.encrypted:
            context.findings.warn(
                context.where(f"{section}.insecure"),
                f'"{section}.insecure" has no effect: the scheme of the endpoint decides.',
            )


def _literal_secrets(context: _Context) -> None:
    advice = "keep it out of there with ${VAR}, ${file:PATH} or ${credential:NAME}"
    for section, export in context.otlp():
        headers = context.origins.get(f"{section}.headers", DEFAULT)
        if headers.source is Source.FILE and headers.literal:
            for name in export.headers.credential_names():
                context.findings.warn(headers.where, f'the header "{name}" is a secret: {advice}.')
        endpoint = context.origins.get(f"{section}.endpoint", DEFAULT)
        open_to_view = endpoint.source in {Source.FILE, Source.FLAG} and endpoint.literal
        if open_to_view and export.endpoint is not None and export.endpoint.credentials:
            sentence = f"the password of the endpoint is a secret: {advice}."
            context.findings.warn(endpoint.where, sentence)


def _one_service_name(context: _Context) -> None:
    config = context.config
    parts = ("otel_traces_export", "otel_metrics_export", "prometheus_export")
    names = {part: getattr(config, part).service_name for part in parts}
    if len({name for name in names.values() if name}) > 1:
        keys = [f"{part}.service_name" for part, name in names.items() if name]
        context.findings.warn(
            context.where(*keys),
            f'the exporters have different service names; "{config.service_name}" is used for all.',
        )


_CONSISTENCY: tuple[Callable[[_Context], None], ...] = (
    _system_wide_is_alone,
    _port_before_name,
    _printer_words,
    _files_exist,
    _web_file_exists,
    _ratio_is_for_ratios,
    _key_pairs,
    _batch_fits_queue,
    _series_fit,
    _plaintext,
    _usual_ports,
    _appended_twice,
    _skip_verify,
    _insecure_is_for_grpc,
    _literal_secrets,
    _one_service_name,
)
