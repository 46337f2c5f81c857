# SPDX-License-Identifier: Apache-2.0
"""otelcol.exporter.otlp and otlphttp: delivered, retried, refused, kept over a restart, counted."""

from __future__ import annotations

import gzip
import json
import shutil
import threading
import zlib
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from tests.certificates import self_signed
from tests.unit.agent_parts import gauge, numbered, running, wait_for
from tests.unit.grpc_receiver import GrpcReceiver, Refusal
from tests.unit.test_otlp_http import Receiver

from otelauto.agent.pipeline import Health, Refused
from otelauto.agent.running.sending import ATTEMPTS_FAILED, DROPPED, RECOVERED, SENT
from otelauto.errors import ConfigError, OtelautoError

FAST = """retry_on_failure {
  initial_interval = "10ms"
  max_interval     = "20ms"
  %s
}"""
INSECURE = "tls {\ninsecure = true\n}"


@pytest.fixture
def grpc_server():
    server = GrpcReceiver()
    yield server
    server.close()


@pytest.fixture
def make(tmp_path):
    made = []

    def start(endpoint, more="", client=INSECURE, kind="otlp", beside=""):
        graph = running(text_of(endpoint, more, client, kind) + beside, tmp_path)
        made.append(graph)
        return graph.cells()[f"otelcol.exporter.{kind}.e"].running

    yield start
    for graph in made:
        graph.stop(0.1)


def text_of(endpoint, more="", client=INSECURE, kind="otlp"):
    return (
        f'otelcol.exporter.{kind} "e" {{\nclient {{\nendpoint = "{endpoint}"\n{client}\n}}\n'
        f"{more}\n}}\n"
    )


def count(exporter, meaning, label=""):
    return exporter.context.counters.get(meaning, label)


def test_spans_and_points_arrive_over_grpc(make, grpc_server):
    exporter = make(f"127.0.0.1:{grpc_server.port}", client=HEADERS)
    exporter.traces(numbered(1, 2, 3))
    exporter.metrics(gauge(4.5))
    wait_for(lambda: count(exporter, SENT, "spans") == 3 and count(exporter, SENT, "points") == 1)
    messages = [request for _, request in grpc_server.exports]
    assert numbered(1, 2, 3).message.resource_spans[0] in [
        each for m in messages if hasattr(m, "resource_spans") for each in m.resource_spans
    ]
    assert all(metadata["x-scope"] == "1" for metadata, _ in grpc_server.exports)
    assert exporter.health() == (Health.HEALTHY, "")
    assert exporter.status() == {"requests queued": 0, "items in the spool": 0}


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED])
def test_what_may_pass_is_tried_again_and_told(make, grpc_server, code):
    grpc_server.answers += [Refusal(code, "not now")] * 3
    grpc_server.hold.clear()
    exporter = make(f"127.0.0.1:{grpc_server.port}", FAST % "")
    exporter.traces(numbered(1))
    grpc_server.hold.set()
    wait_for(lambda: count(exporter, SENT, "spans") == 1)
    reason = "unauthorized" if code is grpc.StatusCode.UNAUTHENTICATED else "retry"
    assert count(exporter, ATTEMPTS_FAILED, reason) == 3
    assert grpc_server.span_numbers() == [1] * 4
    assert exporter.last_error == ""


def test_trouble_is_the_health_of_the_component(make, grpc_server):
    grpc_server.answers += [Refusal(grpc.StatusCode.UNAUTHENTICATED, "wrong key")] * 10_000
    exporter = make(f"127.0.0.1:{grpc_server.port}", FAST % "")
    exporter.traces(numbered(1))
    wait_for(lambda: exporter.health()[0] is Health.UNHEALTHY)
    assert "UNAUTHENTICATED: wrong key" in exporter.health()[1]


def test_what_stays_wrong_is_given_up_and_counted(make, grpc_server):
    grpc_server.answers += [Refusal(grpc.StatusCode.UNAVAILABLE)] * 10_000
    exporter = make(f"127.0.0.1:{grpc_server.port}", FAST % 'max_elapsed_time = "50ms"')
    exporter.traces(numbered(1, 2))
    wait_for(lambda: count(exporter, DROPPED, "unreachable") == 2)


def test_a_refusal_is_not_tried_again(make, grpc_server):
    grpc_server.answers.append(Refusal(grpc.StatusCode.INVALID_ARGUMENT, "no"))
    exporter = make(f"127.0.0.1:{grpc_server.port}")
    exporter.traces(numbered(1))
    wait_for(lambda: count(exporter, DROPPED, "refused") == 1)
    exporter.traces(numbered(2))
    wait_for(lambda: count(exporter, SENT, "spans") == 1)
    assert grpc_server.span_numbers() == [1, 2]


AUTH = 'otelcol.auth.basic "a" {\nusername = "u"\npassword = "p:w"\n}\n'


def numbers(server):
    """Attribute ``n`` of every span that came."""
    traced = [request for _, request in server.exports if hasattr(request, "resource_spans")]
    return [
        span.attributes[0].value.int_value
        for request in traced
        for span in request.resource_spans[0].scope_spans[0].spans
    ]


HEADERS = 'headers = { "X-Scope" = "1" }\n' + INSECURE
QUEUE = "sending_queue {\nnum_consumers = 1\nqueue_size = 2\n%s\n}"


def test_a_full_queue_refuses(make, grpc_server):
    grpc_server.hold.clear()
    exporter = make(f"127.0.0.1:{grpc_server.port}", QUEUE % "")
    exporter.traces(numbered(0))
    wait_for(lambda: grpc_server.exports)
    exporter.traces(numbered(1))
    exporter.traces(numbered(2))
    with pytest.raises(Refused, match="is full") as caught:
        exporter.traces(numbered(3))
    assert caught.value.retry_after_s
    assert not caught.value.permanent
    grpc_server.hold.set()
    wait_for(lambda: count(exporter, SENT, "spans") == 3)
    assert grpc_server.span_numbers() == [0, 1, 2]


def test_a_full_queue_waits_if_it_is_told_to(make, grpc_server):
    grpc_server.hold.clear()
    exporter = make(f"127.0.0.1:{grpc_server.port}", QUEUE % "block_on_overflow = true")
    for number in range(3):
        exporter.traces(numbered(number))
        wait_for(lambda: grpc_server.exports)
    sender = threading.Thread(target=exporter.traces, args=(numbered(3),))
    sender.start()
    grpc_server.hold.set()
    sender.join(30)
    wait_for(lambda: count(exporter, SENT, "spans") == 4)


def test_without_a_queue_the_sender_is_told(make, grpc_server):
    off = "sending_queue {\nenabled = false\n}\nretry_on_failure {\nenabled = false\n}"
    exporter = make(f"127.0.0.1:{grpc_server.port}", off)
    exporter.traces(numbered(1))
    assert count(exporter, SENT, "spans") == 1
    grpc_server.answers += [
        Refusal(grpc.StatusCode.UNAVAILABLE, "later"),
        Refusal(grpc.StatusCode.INVALID_ARGUMENT, "never"),
    ]
    with pytest.raises(Refused, match="later") as caught:
        exporter.traces(numbered(2))
    assert not caught.value.permanent
    with pytest.raises(Refused, match="never") as caught:
        exporter.traces(numbered(3))
    assert caught.value.permanent


def test_what_could_not_go_waits_for_the_next_run(make, grpc_server):
    grpc_server.answers += [Refusal(grpc.StatusCode.UNAUTHENTICATED)] * 10_000
    slow = "sending_queue {\nnum_consumers = 1\n}"
    first = make(f"127.0.0.1:{grpc_server.port}", slow)
    for number in range(5):
        first.traces(numbered(number))
    first.metrics(gauge(1.5))
    wait_for(lambda: first.health()[0] is Health.UNHEALTHY)
    first.stop(20)
    with pytest.raises(Refused):
        first.traces(numbered(9))
    assert not any(meaning is DROPPED for meaning, _, _ in first.context.counters.items())
    grpc_server.answers.clear()
    grpc_server.exports.clear()
    second = make(f"127.0.0.1:{grpc_server.port}", slow)
    wait_for(lambda: count(second, SENT, "spans") == 5 and count(second, SENT, "points") == 1)
    assert count(second, RECOVERED) == 6
    assert sorted(numbers(grpc_server)) == list(range(5))
    wait_for(lambda: second.status()["items in the spool"] == 0)
    second.traces(numbered(6))
    wait_for(lambda: count(second, SENT, "spans") == 6)


def test_one_that_waits_for_its_answer_does_not_hold_others_up(make, grpc_server):
    grpc_server.hold.clear()
    exporter = make(f"127.0.0.1:{grpc_server.port}")
    for number in range(3):
        exporter.traces(numbered(number))
    wait_for(lambda: len(grpc_server.exports) == 3)
    grpc_server.hold.set()
    wait_for(lambda: count(exporter, SENT, "spans") == 3)


STORED = """
sending_queue {
  storage = otelcol.storage.file.s.handler
}
"""
STORAGE = 'otelcol.storage.file "s" { }'


def test_a_queue_on_disk_is_there_after_a_kill(make, grpc_server, tmp_path):
    grpc_server.hold.clear()
    exporter = make(f"127.0.0.1:{grpc_server.port}", STORED, beside=STORAGE)
    exporter.traces(numbered(1))
    wait_for(lambda: grpc_server.exports)
    exporter.traces(numbered(2, 3))
    exporter.metrics(gauge(1.5))
    assert exporter.status()["items in the spool"] == 4
    left = tmp_path / "left"  # as a killed process leaves it
    shutil.copytree(tmp_path / "otelcol.storage.file.s", left)
    grpc_server.hold.set()
    wait_for(lambda: exporter.status()["items in the spool"] == 0)
    assert numbers(grpc_server) == [1, 2, 3]
    there = STORAGE.replace("{ }", f'{{\ndirectory = "{left}"\n}}')
    again = make(f"127.0.0.1:{grpc_server.port}", STORED, beside=there)
    wait_for(lambda: again.status()["items in the spool"] == 0)
    assert count(again, RECOVERED) == 4
    assert numbers(grpc_server) == [1, 2, 3, 1, 2, 3]


def test_storage_that_cannot_be_used(make, tmp_path):
    (tmp_path / "file").write_text("")
    there = STORAGE.replace("{ }", f'{{\ndirectory = "{tmp_path}/file"\n}}')
    with pytest.raises(OtelautoError, match="cannot be used: Not a directory"):
        make("127.0.0.1:1", STORED, beside=there)


def test_stopping_delivers_what_is_queued(make, grpc_server):
    exporter = make(f"127.0.0.1:{grpc_server.port}", "sending_queue {\nnum_consumers = 1\n}")
    for number in range(50):
        exporter.traces(numbered(number))
    exporter.stop(30)
    assert count(exporter, SENT, "spans") == 50
    assert exporter.status()["items in the spool"] == 0


def test_credentials_are_not_sent_in_plaintext(make):
    with pytest.raises(ConfigError, match="plaintext"):
        make("127.0.0.1:1", client="auth = otelcol.auth.basic.a.handler\n" + INSECURE, beside=AUTH)


@pytest.mark.parametrize(
    ("client", "wrong"),
    [
        ('compression = "snappy"', "snappy"),
        ('compression = "zstd"', "zstd"),
        ('tls {\nca_pem = "no certificate"\n}', "cannot be used"),
        ("tls {\ninsecure_skip_verify = true\n}", "not supported with gRPC"),
        ('tls {\nmin_version = "TLS 1.3"\n}', "min_version"),
        ('tls {\ncipher_suites = ["x"]\n}', "cipher_suites"),
    ],
)
def test_what_cannot_be_done_is_said(client, wrong, tmp_path):
    with pytest.raises(ConfigError, match=wrong):
        running(text_of("there:1", client=client), tmp_path)


@pytest.mark.parametrize("endpoint", ["", "there:port", "ftp://there", "u:p@there:1", "there:1/x"])
def test_a_wrong_endpoint_is_said_without_its_secrets(endpoint, tmp_path):
    with pytest.raises(ConfigError, match="endpoint is not the address") as caught:
        running(text_of(endpoint), tmp_path)
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize("inline", [False, True])
def test_tls_and_basic_auth(make, tmp_path, inline):
    cert, key = self_signed(tmp_path, "server")
    pems = [Path(path).read_bytes() for path in (key, cert)]
    server = GrpcReceiver(grpc.ssl_server_credentials([tuple(pems)]))
    pem = pems[1].decode().replace("\n", "\\n")
    authority = f'ca_pem = "{pem}"' if inline else f'ca_file = "{cert}"'
    client = (
        f'auth = otelcol.auth.basic.a.handler\ntls {{\n{authority}\nserver_name = "localhost"\n}}'
    )
    exporter = make(f"127.0.0.1:{server.port}", client=client, beside=AUTH)
    try:
        exporter.traces(numbered(1))
        wait_for(lambda: count(exporter, SENT, "spans") == 1)
        assert server.exports[0][0]["authorization"] == "Basic dTpwOnc="
    finally:
        server.close()


@pytest.fixture
def http_server():
    server = Receiver()
    yield server
    server.close()


@pytest.mark.parametrize("encoding", ["proto", "json"])
@pytest.mark.parametrize("compression", ["gzip", "deflate", "none"])
def test_over_http(make, http_server, encoding, compression):
    exporter = make(
        f"http://127.0.0.1:{http_server.port}/otlp/",
        f'encoding = "{encoding}"',
        f'compression = "{compression}"\nauth = otelcol.auth.bearer.b.handler',
        "otlphttp",
        'otelcol.auth.bearer "b" {\ntoken = "t0ken"\n}',
    )
    exporter.traces(numbered(1))
    wait_for(lambda: count(exporter, SENT, "spans") == 1)
    exporter.metrics(gauge(1.5))
    wait_for(lambda: count(exporter, SENT, "points") == 1)
    (path, headers, body), (second, _, _) = http_server.requests
    assert (path, second) == ("/otlp/v1/traces", "/otlp/v1/metrics")
    assert headers["authorization"] == "Bearer t0ken"
    assert headers.get("content-encoding", "none") == compression
    plain = {"gzip": gzip.decompress, "deflate": zlib.decompress}.get(compression, bytes)(body)
    if encoding == "proto":
        assert TracesData.FromString(plain) == numbered(1).message
    else:
        assert json.loads(plain)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"] == "s"


@pytest.mark.parametrize("status", [401, 403, 503])
def test_http_statuses_that_are_tried_again(make, http_server, status):
    http_server.replies += [(status, {}, b"")] * 2
    exporter = make(f"http://127.0.0.1:{http_server.port}", FAST % "", "", "otlphttp")
    exporter.traces(numbered(1))
    wait_for(lambda: count(exporter, SENT, "spans") == 1)
    assert http_server.statuses == [status, status, 200]


def test_endpoints_of_their_own(make, http_server):
    more = f'traces_endpoint = "http://127.0.0.1:{http_server.port}/mine?x=1"'
    exporter = make("http://127.0.0.1:1", more, "", "otlphttp")
    exporter.traces(numbered(1))
    wait_for(lambda: count(exporter, SENT, "spans") == 1)
    assert http_server.requests[0][0] == "/mine?x=1"
