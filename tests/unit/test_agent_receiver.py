# SPDX-License-Identifier: Apache-2.0
"""``otelcol.receiver.otlp``: what it takes, and what it says."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from tests.certificates import self_signed
from tests.e2e.harness.process import wait_until
from tests.unit.agent_asks import (
    BODY,
    LIMIT,
    RECEIVER,
    ask,
    call,
    forget,
    text,
    transport,
)
from tests.unit.agent_parts import Agent, agent, message, span, spans, sums

from otelauto.agent.pipeline import Refused
from otelauto.agent.running.otlp_intake import (
    ITEMS_INVALID,
    ITEMS_REFUSED,
    REQUESTS_REJECTED,
)
from otelauto.errors import ConfigError, OtelautoError
from otelauto.export.otlp_grpc import COMPRESSIONS, METHODS, OtlpGrpc
from otelauto.export.otlp_http import OtlpHttp
from otelauto.export.tls import Tls
from otelauto.export.transport import Compression, Verdict, rpc_status

TRACE_ID = "5b8efff798038103d269b633813fc60c"
LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"


@pytest.fixture(scope="module", name="shared")
def fixture_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with agent(text(), tmp_path_factory.mktemp("agent")) as made:
        yield made


@pytest.fixture(name="made")
def fixture_made(shared: Agent) -> Agent:
    forget(shared)
    return shared


@pytest.mark.parametrize(
    ("kind", "compression"),
    [
        *(("grpc", compression) for compression in COMPRESSIONS),
        *((kind, compression) for kind in ("http", "json") for compression in Compression),
    ],
)
def test_spans_and_points_of_our_own_exporters_arrive(
    made: Agent, kind: str, compression: Compression
) -> None:
    for signal, body in (("traces", BODY), ("metrics", sums(5).encoded)):
        to = transport(made, kind, signal, compression=compression)
        assert to.post(body).verdict is Verdict.ACCEPTED
        to.close()
    first, second = made.sink.payloads
    assert (first.items, second.items) == (3, 5)
    assert first.message == message(spans(3))
    assert second.message == sums(5).message


def test_a_body_as_it_is(made: Agent) -> None:
    assert ask(made, content_encoding="identity")[0] == 200
    assert made.sink.items == 3


def test_nothing_is_a_success(made: Agent) -> None:
    assert ask(made, b"")[0] == 200
    assert call(made, b"")[0] is grpc.StatusCode.OK
    assert (
        ask(made, b"{}", content_type="application/json; charset=utf-8")[2]
        == b'{"partialSuccess":{}}'
    )
    assert made.sink.payloads == []


def test_json_as_others_write_it(made: Agent) -> None:
    sent = {
        "resourceSpans": [{
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "j"}}]},
            "scopeSpans": [{"spans": [{
                "traceId": TRACE_ID.upper(), "spanId": "eee19b7ec3c1b174",
                "name": "x", "kind": 2, "startTimeUnixNano": "1", "endTimeUnixNano": "2",
                "somethingNew": {"traceId": 7},
                "attributes": [{"key": "traceId", "value": {"stringValue": "no hex"}}],
                "links": [{"traceId": TRACE_ID, "spanId": "eee19b7ec3c1b174"}],
            }]}],
        }],
    }  # fmt: skip
    assert ask(made, json.dumps(sent).encode(), content_type="application/json")[0] == 200
    (got,) = made.sink.spans()
    assert got.trace_id.hex() == got.links[0].trace_id.hex() == TRACE_ID
    assert got.attributes[0].value.string_value == "no hex"
    assert (got.kind, got.start_time_unix_nano, got.end_time_unix_nano) == (2, 1, 2)


def test_spans_without_ids_are_left_out_and_said(made: Agent) -> None:
    bad = [span(1), span(2, trace_id=b"short"), span(3, span_id=b""), span(4)]
    status, _, body = ask(made, message(bad).SerializeToString())
    said = ExportTraceServiceResponse.FromString(body).partial_success
    assert (status, said.rejected_spans) == (200, 2)
    assert "id" in said.error_message
    assert [int.from_bytes(each.span_id, "big") for each in made.sink.spans()] == [1, 4]
    assert made.sink.payloads[0].encoded == message([span(1), span(4)]).SerializeToString()
    assert made.count(RECEIVER, ITEMS_INVALID, "traces") == 2
    to = transport(made, "grpc")
    answer = to.post(message(bad).SerializeToString())
    to.close()
    assert (answer.verdict, answer.rejected) == (Verdict.ACCEPTED, 2)


@pytest.mark.parametrize(
    ("status", "path", "method", "fields"),
    [
        (404, "/v1/nothing", "POST", {}),
        (405, "/v1/traces", "GET", {}),
        (415, "/v1/traces", "POST", {"content_type": "text/plain"}),
        (415, "/v1/traces", "POST", {"content_encoding": "br"}),
        (404, "/v1/logs", "POST", {}),
        (413, "/v1/traces", "POST", {"content_length": str(LIMIT + 1)}),
    ],
)
def test_what_is_no_request_for_it(
    made: Agent, status: int, path: str, method: str, fields: dict[str, str]
) -> None:
    before = made.count(RECEIVER, REQUESTS_REJECTED, str(status))
    answer, said, body = ask(made, b"" if method == "GET" else BODY, path, method, **fields)
    assert answer == status
    assert body
    assert made.count(RECEIVER, REQUESTS_REJECTED, str(status)) == before + 1
    if status == 405:
        assert said["allow"] == "POST"
    assert ask(made)[0] == 200


def test_logs_are_refused_with_a_sentence(made: Agent) -> None:
    assert b"no logs" in ask(made, path="/v1/logs")[2]
    code, details, _ = call(made, method=LOGS)
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert "no logs" in details


def test_what_is_behind_decides(made: Agent) -> None:
    before = made.count(RECEIVER, ITEMS_REFUSED, "traces")
    for refused, status, code, wait in (
        (Refused("full", retry_after_s=7), 429, grpc.StatusCode.RESOURCE_EXHAUSTED, 7),
        (Refused("away"), 503, grpc.StatusCode.UNAVAILABLE, 1),
        (Refused("never", permanent=True), 400, grpc.StatusCode.INVALID_ARGUMENT, None),
    ):
        made.sink.refusals = [refused, refused]
        got, fields, body = ask(made)
        assert got == status
        assert fields.get("retry-after") == (None if wait is None else str(wait))
        assert rpc_status(body)[0] == str(refused)
        code_got, said, details = call(made)
        assert (code_got, said) == (code, str(refused))
        assert rpc_status(details)[1] == wait
    assert made.count(RECEIVER, ITEMS_REFUSED, "traces") == before + 18
    for kind in ("grpc", "http", "json"):
        made.sink.refusals = [Refused("full", retry_after_s=7)]
        to = transport(made, kind)
        answer = to.post(BODY)
        assert (answer.verdict, answer.retry_after_s) == (Verdict.RETRY, 7)
        assert to.post(BODY).verdict is Verdict.ACCEPTED
        to.close()
    assert made.sink.items == 9


def test_a_fault_of_our_own_is_said_and_logged(
    made: Agent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(payload: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(made.sink, "traces", broken)
    assert ask(made)[0] == 500
    assert call(made)[0] is grpc.StatusCode.INTERNAL
    kinds = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert kinds == [ZeroDivisionError] * 2


def test_a_port_in_use_is_an_error(made: Agent, tmp_path: Path) -> None:
    for protocol in ("http", "grpc"):
        port = made[RECEIVER].ports[protocol]
        other = text().replace("127.0.0.1:0", f"127.0.0.1:{port}", 1 if protocol == "grpc" else 2)
        if protocol == "http":
            other = other.replace(f"127.0.0.1:{port}", "127.0.0.1:0", 1)
        with pytest.raises(OtelautoError, match="listen"), agent(other, tmp_path):
            pass
    assert ask(made)[0] == 200


def test_a_unix_socket(tmp_path: Path) -> None:
    more = text(f'transport = "unix"\n endpoint = "{tmp_path}/socket"')
    more = more.replace('endpoint = "127.0.0.1:0"\n', "", 1)
    with (
        agent(more, tmp_path / "agent") as made,
        grpc.insecure_channel(f"unix:{tmp_path}/socket") as channel,
    ):
        assert channel.unary_unary(METHODS["traces"])(BODY, timeout=30) == b""
        assert made.sink.items == 3


def test_a_connection_is_closed_at_its_age(tmp_path: Path) -> None:
    more = """keepalive {
      server_parameters {
        max_connection_age = "50ms"
        max_connection_age_grace = "50ms"
      }
      enforcement_policy { min_time = "10s" }
    }
    max_concurrent_streams = 7"""
    with agent(text(more), tmp_path) as made:
        at = ("127.0.0.1", made[RECEIVER].ports["grpc"])
        with socket.create_connection(at, timeout=30) as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
            said = b""
            while part := connection.recv(4096):  # the server ends it
                said += part
        # SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113 section 6.5.2)
        assert b"\0\3" + (7).to_bytes(4, "big") in said


def test_a_signal_without_an_output_is_no_service(tmp_path: Path) -> None:
    only = text(output="traces = [otelcol.exporter.debug.sink.input]")
    with agent(only, tmp_path) as made:
        assert ask(made, path="/v1/metrics")[0] == 404
        assert call(made, method=METHODS["metrics"])[0] is grpc.StatusCode.UNIMPLEMENTED
        assert ask(made)[0] == 200


def test_pages_of_browsers(tmp_path: Path) -> None:
    cors = """cors {
      allowed_origins = ["https://*.shop.example"]
      allowed_headers = ["x-tenant"]
      max_age = 600
    }"""
    with agent(text(http_more=cors), tmp_path) as made:
        asked = {"access_control_request_method": "POST", "origin": "https://a.shop.example"}
        status, fields, _ = ask(made, b"", method="OPTIONS", **asked)
        assert status == 204
        assert fields["access-control-allow-origin"] == "https://a.shop.example"
        assert "x-tenant" in fields["access-control-allow-headers"]
        assert fields["access-control-max-age"] == "600"
        _, fields, _ = ask(made, origin="https://a.shop.example")
        assert fields["access-control-allow-origin"] == "https://a.shop.example"
        _, fields, _ = ask(made, origin="https://evil.example")
        assert "access-control-allow-origin" not in fields


def test_credentials(tmp_path: Path) -> None:
    auth = "auth = otelcol.auth.basic.who.handler"
    more = 'otelcol.auth.basic "who" {\n username = "u"\n password = "p"\n}\n'
    with agent(text(auth, auth) + more, tmp_path) as made:
        right, wrong = "Basic dTpw", "Basic dTpx"
        assert ask(made)[0] == ask(made, authorization=wrong)[0] == 401
        assert ask(made, authorization=right)[0] == 200
        for given in ((), (("authorization", wrong),)):
            assert call(made, metadata=given)[0] is grpc.StatusCode.UNAUTHENTICATED
        assert call(made, metadata=(("authorization", right),))[0] is grpc.StatusCode.OK


def test_tls_with_certificates_of_clients(tmp_path: Path) -> None:
    server, client = self_signed(tmp_path, "server"), self_signed(tmp_path, "client")
    tls = f"""tls {{
      cert_file      = "{server[0]}"
      key_file       = "{server[1]}"
      client_ca_file = "{client[0]}"
    }}"""
    with agent(text(tls, tls), tmp_path) as made:
        for certificates in (client, ("", "")):
            known = Tls(server[0], *certificates)
            ports = made[RECEIVER].ports
            url = f"https://localhost:{ports['http']}/v1/traces"
            for to in (OtlpHttp(url, version="1", tls=known),
                       OtlpGrpc("https", "localhost", ports["grpc"], "traces", version="1",
                                tls=known)):  # fmt: skip
                accepted = to.post(BODY).verdict is Verdict.ACCEPTED
                to.close()
                assert accepted is bool(certificates[0])
        assert made.sink.items == 6


def test_a_certificate_that_was_replaced_is_used(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path, "server")
    tls = f'tls {{\n cert_file = "{cert}"\n key_file = "{key}"\n reload_interval = "20ms"\n }}'
    with agent(text(tls, tls), tmp_path) as made:
        first = ssl.get_server_certificate(("127.0.0.1", made[RECEIVER].ports["http"]))
        self_signed(tmp_path, "server")
        for protocol in ("http", "grpc"):
            at = ("127.0.0.1", made[RECEIVER].ports[protocol])
            wait_until(lambda at=at: ssl.get_server_certificate(at) != first, "another one")


@pytest.mark.parametrize(
    "more",
    ['tls {\n cert_file = "/nowhere"\n key_file = "/nowhere"\n }',
     'compression_algorithms = ["br"]',
     'tls {\n cipher_suites = ["x"]\n }'],
)  # fmt: skip
def test_what_cannot_be_honoured_is_an_error(more: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError), agent(text(http_more=more), tmp_path):
        pass


def test_requests_in_progress_are_answered_at_the_end(tmp_path: Path) -> None:
    with agent(text(), tmp_path) as made:
        made.sink.free.clear()
        results: list[Any] = []
        threads = [
            threading.Thread(target=lambda: results.append(ask(made)[0])),
            threading.Thread(target=lambda: results.append(call(made)[0])),
        ]
        for each in threads:
            each.start()
        sink, receiver = made.sink, made[RECEIVER]
        wait_until(lambda: receiver.serving == 2, "two requests in progress")
        stopping = threading.Thread(target=receiver.stop, args=(20,))
        stopping.start()
        sink.free.set()
        for each in (*threads, stopping):
            each.join(30)
    assert results.count(200) == 1
    assert results.count(grpc.StatusCode.OK) == 1
