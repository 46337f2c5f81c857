# SPDX-License-Identifier: Apache-2.0
"""Access tokens by client credentials, of a server that gives and checks them."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import grpc
import pytest
from tests.certificates import self_signed
from tests.unit.agent_parts import numbered, running, wait_for
from tests.unit.grpc_receiver import GrpcReceiver
from tests.unit.prometheus_parts import Request, web
from tests.unit.remote_write_parts import NO_METADATA, ONE, agent, endpoint
from tests.unit.test_otlp_http import Receiver

from otelauto.agent.pipeline import Health
from otelauto.agent.prometheus.counted import SAMPLES_SENT
from otelauto.agent.running.sending import ATTEMPTS_FAILED, SENT
from otelauto.agent.tokens import Tokens, _token
from otelauto.errors import ConfigError, OtelautoError

CLIENT, SECRET = "shop 1", "s3:cr&t="
Reply = tuple[int, dict[str, str], bytes]


class Issuer:
    """A token endpoint (RFC 6749, section 4.4). ``wants`` is where the credentials are to be."""

    def __init__(self, wants: str = "basic", lifetime_s: object = 3600) -> None:
        self.wants, self.lifetime_s = wants, lifetime_s
        self.secret = SECRET
        self.forms: list[dict[str, str]] = []
        self.tokens: set[str] = set()

    def answer(self, request: Request) -> Reply:
        form = dict(parse_qsl(request.body.decode()))
        self.forms.append(form)
        given = (form.get("client_id"), form.get("client_secret"))
        if self.wants == "basic":
            kind, _, pair = request.headers.get("authorization", "").partition(" ")
            decoded = base64.b64decode(pair).decode().split(":") if kind == "Basic" else []
            given = tuple(map(unquote_plus, decoded)) or (None, None)  # type: ignore[assignment]
        if given != (CLIENT, self.secret):
            said = {"error": "invalid_client", "error_description": "who?"}
            return 401, {"Content-Type": "application/json"}, json.dumps(said).encode()
        if form.get("grant_type") != "client_credentials":
            return 400, {}, b'{"error":"unsupported_grant_type"}'
        token = f"token-{len(self.tokens)}"
        self.tokens.add(token)
        body: dict[str, Any] = {"access_token": token, "token_type": "bearer"}
        if self.lifetime_s is not None:
            body["expires_in"] = self.lifetime_s
        return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()


def text(url: str, endpoint: str, more: str = "", kind: str = "otlphttp", client: str = "") -> str:
    return f"""
otelcol.auth.oauth2 "o" {{
  client_id     = "{CLIENT}"
  client_secret = "{SECRET}"
  token_url     = "{url}/token"
  {more}
}}
otelcol.exporter.{kind} "e" {{
  client {{
    endpoint = "{endpoint}"
    auth     = otelcol.auth.oauth2.o.handler
    {client}
  }}
  retry_on_failure {{
    initial_interval = "10ms"
    max_interval     = "20ms"
  }}
}}
"""


@pytest.fixture(name="sink")
def fixture_sink() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


def exported(graph: Any, kind: str = "otlphttp") -> Any:
    return graph.cells()[f"otelcol.exporter.{kind}.e"].running


@pytest.mark.parametrize("wants", ["basic", "body"])
def test_a_token_is_asked_for_once_and_used_while_it_lasts(
    tmp_path: Path, sink: Receiver, wants: str
) -> None:
    issuer = Issuer(wants)
    more = 'scopes = ["read", "write"]\nendpoint_params = {audience = ["a b", "c"]}'
    with web(issuer.answer) as server:
        graph = running(text(server.url, f"http://127.0.0.1:{sink.port}", more), tmp_path)
        assert server.requests == [], "nothing is asked before there is something to send"
        for number in range(20):
            exported(graph).traces(numbered(number))
        wait_for(lambda: exported(graph).context.counters.get(SENT, "spans") == 20)
        graph.stop(5)
    assert {headers["authorization"] for _, headers, _ in sink.requests} == {"Bearer token-0"}
    assert len(issuer.tokens) == 1
    asked = server.requests[-1]
    assert asked.path == "/token"
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    pairs = parse_qsl(asked.body.decode())
    assert [value for name, value in pairs if name == "audience"] == ["a b", "c"]
    assert dict(pairs)["scope"] == "read write"
    assert SECRET not in asked.body.decode() or wants == "body"


def test_a_wrong_secret_is_told_and_nothing_is_lost_when_it_is_put_right(
    tmp_path: Path, sink: Receiver
) -> None:
    issuer = Issuer()
    issuer.secret = "another"
    with web(issuer.answer) as server:
        graph = running(text(server.url, f"http://127.0.0.1:{sink.port}"), tmp_path)
        exporter, auth = exported(graph), graph.cells()["otelcol.auth.oauth2.o"].running
        exporter.traces(numbered(1))
        wait_for(lambda: exporter.health()[0] is Health.UNHEALTHY)
        assert "no access token: HTTP 401: invalid_client: who?" in exporter.health()[1]
        assert auth.health() == (Health.UNHEALTHY, exporter.health()[1])
        assert SECRET not in str(exporter.health())
        issuer.secret = SECRET
        wait_for(lambda: exporter.context.counters.get(SENT, "spans") == 1)
        assert exporter.context.counters.get(ATTEMPTS_FAILED, "retry") > 0
        assert auth.health() == (Health.HEALTHY, "")
        graph.stop(5)
    assert sink.span_numbers() == [1]


def test_over_grpc(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path, "server")
    pair = (Path(key).read_bytes(), Path(cert).read_bytes())
    server = GrpcReceiver(grpc.ssl_server_credentials([pair]))
    issuer = Issuer()
    client = f'tls {{\nca_file = "{cert}"\nserver_name = "localhost"\n}}'
    with web(issuer.answer) as tokens:
        config = text(tokens.url, f"127.0.0.1:{server.port}", kind="otlp", client=client)
        graph = running(config, tmp_path)
        exported(graph, "otlp").traces(numbered(1))
        wait_for(lambda: server.exports)
        graph.stop(5)
    assert server.exports[0][0]["authorization"] == "Bearer token-0"
    server.close()


def test_the_token_server_behind_tls_with_secrets_in_files(tmp_path: Path, sink: Receiver) -> None:
    cert, key = self_signed(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    (tmp_path / "id").write_text(f"{CLIENT}\n")
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    issuer = Issuer()
    with web(issuer.answer, context) as server:
        config = text(
            server.url,
            f"http://127.0.0.1:{sink.port}",
            f'tls {{\nca_file = "{cert}"\nserver_name = "localhost"\n}}',
        )
        config = config.replace(f'client_id     = "{CLIENT}"', f'client_id_file = "{tmp_path}/id"')
        config = config.replace(
            f'client_secret = "{SECRET}"', f'client_secret_file = "{tmp_path}/secret"'
        )
        graph = running(config, tmp_path)
        exported(graph).traces(numbered(1))
        wait_for(lambda: sink.requests)
        graph.stop(5)
    assert sink.requests[0][1]["authorization"] == "Bearer token-0"


def test_remote_write_has_the_same(tmp_path: Path) -> None:
    issuer = Issuer()
    block = f"""oauth2 {{
      client_id       = "{CLIENT}"
      client_secret   = "{SECRET}"
      token_url       = "%s/token"
      endpoint_params = {{audience = "x"}}
    }}"""
    with web(issuer.answer) as tokens, web(lambda _: (204, {}, b"")) as server:
        config = endpoint(server, f"{block % tokens.url}\n{NO_METADATA}")
        with agent(tmp_path, config) as made:
            made.component.append(ONE)
            wait_for(lambda: made.counted(SAMPLES_SENT) == len(ONE))
    assert {each.headers["authorization"] for each in server.requests} == {"Bearer token-0"}
    assert [form["audience"] for form in issuer.forms] == ["x"]


@pytest.mark.parametrize(
    ("lifetime_s", "after_s", "expected"),
    [
        (100, 89, 1),  # of 100 s the last 10 are not used
        (100, 90, 2),
        ("100", 90, 2),
        (8, 3, 1),
        (8, 4, 2),
        (None, 1e9, 1),
        (0, 1e9, 1),
        ("soon", 1e9, 1),
    ],
)
def test_when_a_token_is_renewed(
    monkeypatch: pytest.MonkeyPatch, lifetime_s: object, after_s: float, expected: int
) -> None:
    now = [1000.0]
    monkeypatch.setattr("otelauto.agent.tokens.time.monotonic", lambda: now[0])
    issuer = Issuer(lifetime_s=lifetime_s)
    tokens = tokens_of(issuer)
    assert tokens.header() == tokens.header() == "Bearer token-0"
    now[0] += after_s
    assert tokens.header() == f"Bearer token-{expected - 1}"
    assert len(issuer.forms) == expected


class Got:
    def __init__(self, reply: Reply) -> None:
        self.status, self.body = reply[0], reply[2]


def tokens_of(issuer: Issuer) -> Tokens:
    def post(headers: Any, body: bytes) -> Got:
        return Got(issuer.answer(Request("/token", dict(headers), body)))

    return Tokens(post, lambda: (CLIENT, SECRET), (), (), str)


def test_a_server_that_fails_is_left_alone_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("otelauto.agent.tokens.time.monotonic", lambda: now[0])
    issuer = Issuer()
    issuer.secret = "another"
    tokens = tokens_of(issuer)
    for _ in range(5):
        with pytest.raises(OtelautoError, match="invalid_client"):
            tokens.header()
    assert len(issuer.forms) == 2, "by the header, and in the body"
    issuer.secret = SECRET
    now[0] += 1
    assert tokens.header() == "Bearer token-0"


def test_many_threads_ask_once() -> None:
    issuer = Issuer()
    tokens = tokens_of(issuer)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(tokens.header())) for _ in range(20)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert found == ["Bearer token-0"] * 20
    assert len(issuer.forms) == 1


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (200, b"", "holds none"),
        (200, b"[]", "holds none"),
        (200, b'{"access_token": 7}', "holds none"),
        (200, b'{"access_token": ""}', "holds none"),
        (200, b'{"access_token": "a\\nb"}', "cannot be sent"),
        (200, b'{"access_token": "a", "token_type": "b c"}', "cannot be sent"),
        (200, b"[" * 100_000, "holds none"),
        (500, b"oh", "HTTP 500"),
        (403, b'{"error": "no\\nway"}', "HTTP 403: no way"),
    ],
)
def test_answers_that_are_no_token(status: int, body: bytes, problem: str) -> None:
    with pytest.raises(OtelautoError, match=problem):
        _token(Got((status, {}, body)))


@pytest.mark.parametrize(
    "more",
    [
        'tls {\nca_file = "/nowhere"\n}',
        'tls {\ncipher_suites = ["x"]\n}',
        'tls {\nmax_version = "TLS 1.2"\n}',
    ],
)
def test_what_cannot_be_used_is_said_at_once(tmp_path: Path, more: str) -> None:
    with pytest.raises(ConfigError):
        running(text("https://there", "http://127.0.0.1:1", more), tmp_path)


def test_a_receiver_cannot_check_others_by_it(tmp_path: Path) -> None:
    receiver = """otelcol.receiver.otlp "in" {
      http {
        endpoint = "127.0.0.1:0"
        auth     = otelcol.auth.oauth2.o.handler
      }
      output { }
    }"""
    with pytest.raises(ConfigError, match="cannot check requests"):
        running(text("http://there", "http://127.0.0.1:1") + receiver, tmp_path)
