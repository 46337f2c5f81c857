# SPDX-License-Identifier: Apache-2.0
"""Who is served with a web configuration file, and which files are refused."""

from __future__ import annotations

import base64
import contextlib
import http.client
import ssl
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
from tests.certificates import self_signed

from otelauto.errors import ConfigError
from otelauto.export.exposition import Format
from otelauto.export.prometheus import Prometheus
from otelauto.export.web_config import WebConfig

HASH = bcrypt.hashpw(b"s3cret:\xc3\xbc", bcrypt.gensalt(4)).decode()
PAGE = {"/metrics": lambda fmt: iter((b"# EOF\n" if fmt is Format.OPENMETRICS else b"up 1\n",))}


@contextlib.contextmanager
def serving(file: Path) -> Iterator[Prometheus]:
    server = Prometheus("127.0.0.1", 0, PAGE, web=WebConfig(str(file)))
    server.start()
    try:
        yield server
    finally:
        server.close(5)


def basic(user: str, password: str) -> dict[str, str]:
    text = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {text}"}


def get(
    server: Prometheus, tls: ssl.SSLContext | None = None, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    port = server.address[1]
    connection: http.client.HTTPConnection
    if tls is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    else:
        connection = http.client.HTTPSConnection("localhost", port, timeout=20, context=tls)
    try:
        connection.request(method, "/metrics", headers=headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def client(authority: str, pair: tuple[str, str] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority)
    if pair is not None:
        context.load_cert_chain(*pair)
    return context


def test_users_with_a_password(tmp_path: Path) -> None:
    file = tmp_path / "web.yml"
    file.write_text(f"basic_auth_users:\n  alice: {HASH}\n  '': {HASH}\n")
    with serving(file) as server:
        for _ in range(2):  # the second time from memory
            assert get(server, **basic("alice", "s3cret:\u00fc"))[::2] == (200, b"up 1\n")
        assert get(server, **basic("", "s3cret:\u00fc"))[0] == 200
        refused = [
            {},
            basic("alice", "s3cret:"),
            basic("alice", ""),
            basic("alice", "s3cret:\u00fc\0"),
            basic("alice", "x" * 100),
            basic("bob", "s3cret:\u00fc"),
            {"Authorization": "Basic"},
            {"Authorization": "Basic %%%"},
            {"Authorization": "Bearer " + basic("alice", "s3cret:\u00fc")["Authorization"][6:]},
            {"Authorization": "Basic YWxpY2U="},
        ]
        for headers in refused:
            for method in ("GET", "HEAD"):
                status, answered, body = get(server, method=method, **headers)
                assert (status, answered["WWW-Authenticate"]) == (401, "Basic")
                assert b"up 1" not in body
        assert server.status()["scrapes"] == 3


def test_tls_with_client_certificates(tmp_path: Path) -> None:
    own, friend, stranger = (self_signed(tmp_path, name) for name in ("own", "friend", "stranger"))
    file = tmp_path / "web.yml"
    text = """
tls_server_config:
  cert_file: own.pem
  key_file: own.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: friend.pem
http_server_config:
  http2: true
  headers: {X-Frame-Options: deny}
"""
    file.write_text(text)
    with serving(file) as server:
        assert server.urls == [f"https://127.0.0.1:{server.address[1]}/metrics"]
        status, headers, body = get(server, client(own[0], friend))
        assert (status, headers["X-Frame-Options"], body) == (200, "deny", b"up 1\n")
        for tls in (client(own[0]), client(own[0], stranger), client(stranger[0], friend), None):
            with pytest.raises((OSError, http.client.HTTPException)):
                get(server, tls)
        old = client(own[0], friend)
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
        assert get(server, old)[0] == 200
        file.write_text(text.replace("client_auth", "min_version: TLS13\n  client_auth"))
        with pytest.raises(OSError, match=r"(?i)version|alert"):
            get(server, old)
        sans = "client_allowed_sans: [{}]\n  client_auth_type"
        file.write_text(text.replace("client_auth_type", sans.format("elsewhere")))
        with pytest.raises((OSError, http.client.HTTPException)):
            get(server, client(own[0], friend))
        file.write_text(text.replace("client_auth_type", sans.format("localhost")))
        assert get(server, client(own[0], friend))[0] == 200
        assert server.status()["last_error"] is None


def test_files_are_read_again_and_bad_ones_serve_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = self_signed(tmp_path, "one"), self_signed(tmp_path, "two")
    file = tmp_path / "web.yml"
    file.write_text("tls_server_config: {cert_file: server.pem, key_file: server.key}\n")

    def use(pair: tuple[str, str]) -> None:
        for source, name in zip(pair, ("server.pem", "server.key"), strict=True):
            new = tmp_path / "new"
            new.write_bytes(Path(source).read_bytes())
            new.replace(tmp_path / name)

    use(one)
    with serving(file) as server:
        assert get(server, client(one[0]))[0] == 200
        use(two)
        assert get(server, client(two[0]))[0] == 200
        (tmp_path / "server.key").write_text("rubbish")
        for _ in range(3):
            with pytest.raises((OSError, http.client.HTTPException)):
                get(server, client(two[0]))
        assert "cannot be used" in str(server.status()["last_error"])
        assert len([r for r in caplog.records if "nobody is served" in r.getMessage()]) == 1
        use(one)
        assert get(server, client(one[0]))[0] == 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n", "keys and values"),
        ("a: [\n", "no YAML"),
        ("\x00", "no YAML"),
        ("tls_config: {}\n", '"tls_config" is not supported'),
        ("tls_server_config: {cipher_suites: [A]}\n", '"cipher_suites" is not supported'),
        ("tls_server_config: 1\n", '"tls_server_config" must have keys'),
        ("tls_server_config: {cert_file: a}\n", "needs cert_file and key_file"),
        ("tls_server_config: {cert_file: [a], key_file: b}\n", "must be the path"),
        ("tls_server_config: {cert_file: none, key_file: none}\n", "cannot be used"),
        (
            "tls_server_config: {cert_file: a, client_auth_type: RequireAnyClientCert}",
            '"client_auth_type" cannot be "RequireAnyClientCert"',
        ),
        ("tls_server_config: {cert_file: a, key_file: b, client_ca_file: c}", "need each other"),
        (
            "tls_server_config: {cert_file: a, key_file: b, client_allowed_sans: [x]}",
            "cannot be used|client_allowed_sans needs",
        ),
        ("tls_server_config: {cert_file: a, key_file: b, min_version: SSL3}", '"min_version"'),
        ("http_server_config: {headers: {X-Evil: a}}", '"X-Evil"'),
        ('http_server_config: {headers: {X-Frame-Options: "a\\r\\nb"}}', '"X-Frame-Options"'),
        ("basic_auth_users: {alice: secret}", 'user "alice" is no bcrypt hash'),
        (f"basic_auth_users: {{a: '{HASH.replace('$04$', '$31$')}'}}", "of cost 4 to 16"),
        ("basic_auth_users: {1: x}", "keys and values"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "web.yml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        WebConfig(str(file))
    assert caught.value.remedy
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_and_none() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        WebConfig("/nowhere/web.yml")
    assert WebConfig().admits(None)
    assert not WebConfig().encrypted
