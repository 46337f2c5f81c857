# SPDX-License-Identifier: Apache-2.0
"""How ``prometheus.remote_write`` reaches its servers: credentials, redirects, proxies, TLS."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path

import pytest
from tests.certificates import self_signed
from tests.e2e.harness.process import wait_until
from tests.unit.prometheus_parts import (
    Request,
    decoded_request,
    labels,
    series_of,
    web,
)
from tests.unit.remote_write_parts import (
    NO_METADATA,
    ONE,
    QUICK,
    Agent,
    agent,
    endpoint,
    script,
)

from otelauto.agent.pipeline import Sample
from otelauto.agent.prometheus.counted import (
    SAMPLES_SENT,
)
from otelauto.errors import ConfigError

AUTHORIZED = base64.b64encode(b"me:k/e?y").decode()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ('basic_auth {\nusername = "me"\npassword = "k/e?y"\n}', f"Basic {AUTHORIZED}"),
        ('basic_auth {\nusername = "me"\npassword_file = "FILE"\n}', f"Basic {AUTHORIZED}"),
        ('bearer_token = "t"', "Bearer t"),
        ('bearer_token_file = "FILE"', "Bearer k/e?y"),
        ('authorization {\ntype = "Own"\ncredentials = "c"\n}', "Own c"),
        ('authorization {\ncredentials_file = "FILE"\n}', "Bearer k/e?y"),
        ('headers = { "Authorization" = "mine", "X-Scope-OrgID" = "7" }', "mine"),
    ],
)
def test_credentials(tmp_path, more: str, expected: str) -> None:
    (tmp_path / "key").write_text("k/e?y\n")
    more = more.replace("FILE", str(tmp_path / "key")) + "\n" + NO_METADATA
    with web(script()) as server, agent(tmp_path, endpoint(server, more)) as running:
        running.component.append(ONE)
        wait_until(lambda: server.requests, "sent")
        assert server.requests[0].headers["authorization"] == expected
        if "OrgID" in more:
            assert server.requests[0].headers["x-scope-orgid"] == "7"


def test_credentials_in_the_url_are_used_and_not_shown(tmp_path) -> None:
    with web(script()) as server:
        url = server.url.replace("//", "//me:k%2Fe%3Fy@")
        text = f'endpoint {{\nurl = "{url}/push?token=t"\n{NO_METADATA}\n{QUICK}\n}}'
        with agent(tmp_path, text) as running:
            running.component.append(ONE)
            wait_until(lambda: server.requests, "sent")
            assert server.requests[0].headers["authorization"] == f"Basic {AUTHORIZED}"
            assert server.requests[0].path == "/push?token=t"
            status = running.component.status()
            assert status["endpoint url"] == f"{server.url}/push"


def test_redirects(tmp_path) -> None:
    with web(script()) as other, web(script()) as server:
        answers = {"/push": f"{server.url}/next", "/next": f"{other.url}/there"}

        def answer(request: Request):
            return 307, {"Location": answers[request.path]}, b""

        server.answer = answer
        with agent(tmp_path, endpoint(server, 'bearer_token = "t"\n' + NO_METADATA)) as running:
            running.component.append(ONE)
            wait_until(lambda: running.counted(SAMPLES_SENT) == 2, "sent")
    assert [r.headers.get("authorization") for r in server.requests] == ["Bearer t"] * 2
    assert [r.headers.get("authorization") for r in other.requests] == [None]
    assert len(series_of(decoded_request(other.requests[0].body))) == 2


def test_a_proxy(tmp_path) -> None:
    with web(script()) as proxy:
        url = proxy.url.replace("//", "//u:p@")
        text = f'endpoint {{\nurl = "http://far.example/push"\nproxy_url = "{url}"\n'
        with agent(tmp_path, f"{text}{NO_METADATA}\n{QUICK}\n}}") as running:
            running.component.append(ONE)
            wait_until(lambda: proxy.requests, "sent")
    assert proxy.requests[0].path == "http://far.example:80/push"
    assert proxy.requests[0].headers["proxy-authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('url = "https://:@/api/prom/push"', "has no host"),
        ('url = "http://h/"\noauth2 {\nclient_id = "c"\ntoken_url = "http:t/"\n}', "has no host"),
        ('url = "https://h/"\ntls_config {\nca_file = "/nowhere"\n}', "certificate"),
        ('url = "http://h/"\nproxy_url = "https://h"', "proxy"),
        ('url = "http://h/"\nwrite_relabel_config {\nregex = "("\n}', "regular expression"),
    ],
)
def test_what_cannot_work_is_said_at_once(tmp_path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Agent(tmp_path, f"endpoint {{\n{text}\n}}")


def test_tls_with_a_name_and_a_certificate_of_the_client(tmp_path) -> None:
    """Against a TLS server that asks for the client's certificate."""
    server_cert, server_key = self_signed(tmp_path, "server")
    client_cert, client_key = self_signed(tmp_path, "client")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server_cert, server_key)
    context.load_verify_locations(client_cert)
    context.verify_mode = ssl.CERT_REQUIRED
    pem = {name: Path(p).read_text() for name, p in (("c", client_cert), ("k", client_key))}
    tls = (
        f'tls_config {{\nca_file = "{server_cert}"\nserver_name = "localhost"\n'
        f"cert_pem = `{pem['c']}`\nkey_pem = `{pem['k']}`\n}}"
    )
    with web(script(), context) as server:
        with agent(tmp_path, endpoint(server, f"{tls}\n{NO_METADATA}")) as running:
            running.component.append(ONE)
            wait_until(lambda: running.counted(SAMPLES_SENT) == 2, "sent")
        other = tls.replace('"localhost"', '"elsewhere"')
        with agent(tmp_path, endpoint(server, f"{other}\n{NO_METADATA}"), 0.1) as running:
            running.component.append([Sample(labels("n"), 1.0, 2000)])
            wait_until(lambda: "not trusted" in running.component.health()[1], "seen")
