# SPDX-License-Identifier: Apache-2.0
"""Certificates and tokens that are replaced while otelauto runs."""

from __future__ import annotations

import io
import logging
import re
import ssl
import sys
from pathlib import Path

import grpc
import pytest
from tests.certificates import expired, self_signed
from tests.unit.grpc_receiver import GrpcReceiver
from tests.unit.test_otlp_http import CLOCK, Receiver, spans, wait_for

from otelauto import logs
from otelauto.config import Purpose, load
from otelauto.config.otlp import basic_authorization
from otelauto.config.show import secrets
from otelauto.counters import Counters
from otelauto.errors import ConfigError
from otelauto.export.otlp_grpc import OtlpGrpc
from otelauto.export.otlp_http import OtlpHttp
from otelauto.export.tls import Tls, alert
from otelauto.export.transport import Transport, Verdict
from otelauto.publish import Publisher


def test_certificates_are_read_again(tmp_path: Path) -> None:
    server, first, second = (self_signed(tmp_path, name) for name in ("server", "a", "b"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=second[0])
    context.load_cert_chain(*server)
    context.verify_mode = ssl.CERT_REQUIRED
    receiver = Receiver(context)
    cert, key, ca = tmp_path / "cert", tmp_path / "key", tmp_path / "ca"

    def use(pair: tuple[str, str], trusted: str) -> None:
        for target, source in ((cert, pair[0]), (key, pair[1]), (ca, trusted)):
            new = target.with_suffix(".new")
            new.write_bytes(Path(source).read_bytes())
            new.replace(target)

    use(first, first[0])
    to = OtlpHttp(
        f"https://localhost:{receiver.port}/", version="1", tls=Tls(str(ca), str(cert), str(key))
    )
    try:
        assert "not trusted" in to.post(b"").error
        use(first, server[0])
        answer = to.post(b"")
        assert answer.verdict is Verdict.RETRY
        assert re.search(CLIENT_REFUSED, answer.error)
        use(second, server[0])
        assert to.post(b"").verdict is Verdict.ACCEPTED
        key.write_text("rubbish")
        assert "cannot be used" in to.post(b"").error
        use(second, server[0])
        assert to.post(b"").verdict is Verdict.ACCEPTED
        use(second, first[0])  # a kept connection does not keep what is trusted no more
        assert "not trusted" in to.post(b"").error
    finally:
        to.close()
        receiver.close()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize(
    ("host", "old", "trusted", "words"),
    [
        ("localhost", False, True, ""),
        ("localhost", True, True, "expired"),
        ("localhost", False, False, "certificate is not trusted"),
        ("127.0.0.1", False, True, "not trusted: .*(is not for|not valid for)"),
    ],
)
def test_a_server_that_cannot_be_trusted_gets_nothing(
    tmp_path: Path, protocol: str, host: str, old: bool, trusted: bool, words: str
) -> None:
    cert, key = expired(tmp_path) if old else self_signed(tmp_path, "server")
    tls = Tls(cert if trusted else self_signed(tmp_path, "other")[0])
    receiver: Receiver | GrpcReceiver
    to: Transport
    if protocol == "grpc":
        pair = (Path(key).read_bytes(), Path(cert).read_bytes())
        receiver = GrpcReceiver(grpc.ssl_server_credentials([pair]))
        to = OtlpGrpc("https", host, receiver.port, "traces", version="1", tls=tls)
    else:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(cert, key)
        receiver = Receiver(context)
        to = OtlpHttp(f"https://{host}:{receiver.port}/v1/traces", version="1", tls=tls)
    try:
        answer = to.post(b"")
    finally:
        to.close()
        receiver.close()
    assert answer.verdict is (Verdict.RETRY if words else Verdict.ACCEPTED)
    assert re.search(words, answer.error), answer.error
    assert len(seen(receiver, "user-agent")) == (not words)


# The server's alert comes behind the handshake: what is sent meanwhile may meet its end first.
CLIENT_REFUSED = "client's certificate|broken TLS off|reset by peer|broken pipe"
HEADERS = [
    "headers: {{authorization: 'Bearer ${{file:{path}}}', x: y}}",
    "headers: 'authorization=Bearer ${{file:{path}}},x=y'",
    "headers: {{authorization: 'Bearer ${{credential:token}}', x: y}}",
]


@pytest.mark.parametrize("text", HEADERS)
def test_header_files_are_read_again(tmp_path: Path, text: str) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    file = tmp_path / "c.yml"
    file.write_text(f"otel_traces_export: {{endpoint: 'https://h', {text.format(path=token)}}}")
    part = load(
        file, {"CREDENTIALS_DIRECTORY": str(tmp_path)}, {}, Purpose.SHOW
    ).config.otel_traces_export
    assert part.request_headers() == {"authorization": "Bearer one", "x": "y"}
    token.write_text("two\n")
    assert part.request_headers() == {"authorization": "Bearer two", "x": "y"}
    token.write_bytes(b"a\x01b")  # what no header can hold
    assert part.request_headers() == {"authorization": "Bearer two", "x": "y"}
    token.unlink()
    assert part.request_headers() == {"authorization": "Bearer two", "x": "y"}
    assert "one" not in repr(part.headers)


def test_the_key_of_grafana_cloud_is_read_again(tmp_path: Path) -> None:
    key, file = tmp_path / "key", tmp_path / "c.yml"
    key.write_text("first-key\n")
    cloud = f"cloud_zone: z, cloud_instance_id: 4711, cloud_api_key: '${{file:{key}}}'"
    file.write_text(
        f"grafana: {{otlp: {{{cloud}, cloud_submit: 'traces,metrics'}}}}\n"
        "otel_traces_export: {headers: {x: y}}\n"
        "otel_metrics_export: {headers: {authorization: own}}"
    )
    config = load(file, {}, {}, Purpose.SHOW).config
    traces = config.otel_traces_export
    for text in ("first-key", "second-key"):
        key.write_text(f"{text}\n")
        login = basic_authorization("4711", text)
        assert traces.request_headers() == {"x": "y", "authorization": login}
        assert {text, login.rpartition(" ")[2]} <= set(secrets(config))
        assert config.otel_metrics_export.request_headers() == {"authorization": "own"}
    key.unlink()
    assert traces.request_headers() == {"x": "y", "authorization": login}
    assert "-key" not in repr(config)


def test_a_variable_is_read_once(tmp_path: Path) -> None:
    file = tmp_path / "c.yml"
    file.write_text("otel_traces_export: {endpoint: 'https://h', headers: {a: '${TOKEN}'}}")
    environ = {"TOKEN": "one"}
    part = load(file, environ, {}, Purpose.SHOW).config.otel_traces_export
    environ["TOKEN"] = "two"
    assert part.request_headers() == {"a": "one"}


def publish(config_text: str, directory: Path) -> Publisher:
    file = directory / "c.yml"
    file.write_text(f"state_directory: {directory}\n{config_text}")
    config = load(file, {}, {}, Purpose.SHOW).config
    return Publisher(config, Counters(), lambda _: None, CLOCK)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_new_token_is_sent_and_hidden(tmp_path: Path, protocol: str) -> None:
    """Both transports as the wiring makes them."""
    receiver = GrpcReceiver() if protocol == "grpc" else Receiver()
    token = tmp_path / "token"
    token.write_text("first-token")
    part = (
        f"{{endpoint: 'http://127.0.0.1:{receiver.port}', protocol: {protocol},"
        f" batch_timeout: 0s, compression: gzip,"
        f" headers: {{authorization: 'Bearer ${{file:{token}}}'}}}}"
    )
    publisher = publish(f"otel_traces_export: {part}", tmp_path)
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        logs.setup("INFO", stream)
        publisher.start()
        (exporter,) = publisher._span_exporters
        exporter.offer(spans(1))
        wait_for(lambda: len(seen(receiver)) == 1)
        token.write_text("second-token")
        exporter.offer(spans(1))
        wait_for(lambda: len(seen(receiver)) == 2)
        assert seen(receiver) == ["Bearer first-token", "Bearer second-token"]
        root.info("it said second-token")
    finally:
        publisher.close()
        receiver.close()
        logs.hide([])
        root.handlers[:], root.level = before
    assert "it said" in stream.getvalue()
    assert "second-token" not in stream.getvalue()


def test_grpc_without_its_library_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "otelauto.export.otlp_grpc", raising=False)
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(ConfigError, match="grpcio") as caught:
        publish("otel_traces_export: {endpoint: 'http://localhost:4317'}", tmp_path)
    assert "http/protobuf" in caught.value.remedy


def seen(receiver: Receiver | GrpcReceiver, header: str = "authorization") -> list[str]:
    """The header of each export that came."""
    if isinstance(receiver, GrpcReceiver):
        return [metadata[header] for metadata, _ in receiver.exports]
    return [headers[header] for _, headers, _ in receiver.requests]


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("TLSV1_ALERT_UNKNOWN_CA", "does not accept the client's certificate: unknown ca"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "wants the client's certificate, and none is"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "the client's certificate: certificate expired"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "has broken TLS off: protocol version"),
    ],
)
def test_what_alerts_mean(reason: str, words: str) -> None:
    assert words in alert(reason)
