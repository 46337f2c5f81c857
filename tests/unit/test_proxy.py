# SPDX-License-Identifier: Apache-2.0
"""Which proxy is on the way, and exports that go through a real one."""

from __future__ import annotations

import base64
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.certificates import self_signed
from tests.unit.grpc_receiver import GrpcReceiver
from tests.unit.test_otlp_grpc import server_credentials
from tests.unit.test_otlp_http import Receiver

from otelauto.errors import ConfigError
from otelauto.export.otlp_grpc import OtlpGrpc
from otelauto.export.otlp_http import OtlpHttp
from otelauto.export.proxy import Proxy, proxy_for
from otelauto.export.tls import Tls
from otelauto.export.transport import Verdict

HERE = {"HTTPS_PROXY": "http://p:3128"}


@pytest.mark.parametrize(
    ("scheme", "host", "environ", "expected"),
    [
        ("https", "c.example", {}, None),
        ("https", "c.example", HERE, ("p", 3128)),
        ("https", "c.example", {"https_proxy": "q"}, ("q", 80)),
        ("https", "c.example", {**HERE, "https_proxy": "http://q:1"}, ("q", 1)),
        ("https", "c.example", {"HTTP_PROXY": "http://p:3128"}, None),
        ("http", "c.example", {"HTTP_PROXY": "http://p:3128"}, ("p", 3128)),
        ("https", "c.example", {**HERE, "NO_PROXY": "*"}, None),
        ("https", "c.example", {**HERE, "NO_PROXY": "x, example"}, None),
        ("https", "c.example", {**HERE, "NO_PROXY": ".example"}, None),
        ("https", "c.example", {**HERE, "NO_PROXY": "*.example"}, None),
        ("https", "c.example", {**HERE, "NO_PROXY": "C.Example:4317"}, None),
        ("https", "c.example", {**HERE, "NO_PROXY": "c.example:1"}, ("p", 3128)),
        ("https", "c.example", {**HERE, "NO_PROXY": "xample, c.exampl"}, ("p", 3128)),
        ("https", "c.example", {**HERE, "NO_PROXY": ",,"}, ("p", 3128)),
        ("https", "c.example", {**HERE, "no_proxy": "other", "NO_PROXY": "*"}, ("p", 3128)),
        ("https", "10.1.2.3", {**HERE, "NO_PROXY": "10.0.0.0/8"}, None),
        ("https", "11.1.2.3", {**HERE, "NO_PROXY": "10.0.0.0/8,1.2.3"}, ("p", 3128)),
        ("https", "10.1.2.3", {**HERE, "NO_PROXY": "10.1.2.3"}, None),
        ("https", "fd00::1", {**HERE, "NO_PROXY": "fd00::/8"}, None),
        ("https", "fd00::1", {**HERE, "NO_PROXY": "[fd00::1]:4317"}, None),
        ("https", "localhost", HERE, None),
        ("https", "127.0.0.9", HERE, None),
        ("https", "::1", HERE, None),
    ],
)
def test_which_proxy(
    scheme: str, host: str, environ: dict[str, str], expected: tuple[str, int] | None
) -> None:
    proxy = proxy_for(scheme, host, 4317, environ)
    assert (proxy and (proxy.host, proxy.port)) == expected


@pytest.mark.parametrize(
    "text", ["socks5://p:1", "https://p:1", "http://", "http://u:s3cret@p:x", "a b"]
)
def test_bad_proxies_are_refused_without_their_password(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        proxy_for("https", "c.example", 443, {"HTTPS_PROXY": text})
    assert "HTTPS_PROXY" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_password_is_not_shown() -> None:
    proxy = proxy_for("https", "c.example", 443, {"HTTPS_PROXY": "http://u:s3cret@p:1"})
    assert proxy is not None
    assert "s3cret" not in repr(proxy)
    pair = base64.b64encode(b"u:s3cret").decode()
    assert proxy.headers() == {"proxy-authorization": f"Basic {pair}"}


class _Proxy(socketserver.ThreadingTCPServer):
    """An HTTP proxy: tunnels for CONNECT, else forwards one request to ``127.0.0.1``."""

    daemon_threads = True

    def __init__(self, target: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = target
        self.heads: list[str] = []
        self.refuse = False
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.thread.start()

    def settings(self) -> Proxy:
        port = self.server_address[1]
        return Proxy("127.0.0.1", port, f"http://user:pass%21@127.0.0.1:{port}")

    def close(self) -> None:
        self.shutdown()
        self.thread.join(20)
        self.server_close()


class _Handler(socketserver.StreamRequestHandler):
    server: _Proxy

    def handle(self) -> None:
        head = ""
        while (line := self.rfile.readline().decode()) not in {"\r\n", ""}:
            head += line
        self.server.heads.append(head)
        if self.server.refuse:
            self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return
        upstream = socket.create_connection(("127.0.0.1", self.server.target))
        if head.startswith("CONNECT "):
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            method, url, rest = head.split(" ", 2)
            upstream.sendall(f"{method} /{url.split('/', 3)[3]} {rest}\r\n".encode())
        back = threading.Thread(target=self._copy, args=(upstream, self.connection))
        back.start()
        self._copy(self.connection, upstream)
        back.join(20)
        upstream.close()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        reads = self.rfile.read1 if source is self.connection else source.recv
        try:
            while data := reads(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return  # a reset ends the connection too


@pytest.fixture
def plain() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


AUTHORIZATION = "Basic " + base64.b64encode(b"user:pass!").decode()


def test_http_is_forwarded(plain: Receiver) -> None:
    proxy = _Proxy(plain.port)
    to = OtlpHttp("http://c.example:4318/v1/traces", version="1", proxy=proxy.settings())
    try:
        assert [to.post(b"").verdict for _ in range(2)] == [Verdict.ACCEPTED] * 2
        proxy.refuse = True
        to.close()
        assert "407" in to.post(b"").error
    finally:
        to.close()
        proxy.close()
    assert proxy.heads[0].startswith("POST http://c.example:4318/v1/traces HTTP/1.1\r\n")
    assert "Host: c.example:4318\r\n" in proxy.heads[0]
    assert f"proxy-authorization: {AUTHORIZATION}\r\n" in proxy.heads[0]
    assert plain.requests[0][0] == "/v1/traces"


def test_https_goes_through_a_tunnel(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path, "server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    receiver = Receiver(context)
    proxy = _Proxy(receiver.port)
    url = "https://localhost:4318/v1/traces"
    to = OtlpHttp(url, version="1", proxy=proxy.settings(), tls=Tls(cert))
    try:
        assert to.post(b"").verdict is Verdict.ACCEPTED
        to.close()
        proxy.refuse = True
        answer = to.post(b"")
        assert answer.verdict is Verdict.RETRY
        assert "407" in answer.error
    finally:
        to.close()
        proxy.close()
        receiver.close()
    assert proxy.heads[0].startswith("CONNECT localhost:4318 ")
    assert f"proxy-authorization: {AUTHORIZATION}\r\n" in proxy.heads[0]
    _, headers, _ = receiver.requests[0]
    assert "proxy-authorization" not in headers


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_grpc_goes_through_a_tunnel(scheme: str, tmp_path: Path) -> None:
    pair = self_signed(tmp_path, "server")
    receiver = GrpcReceiver(server_credentials(pair, pair[0]) if scheme == "https" else None)
    proxy = _Proxy(receiver.port)
    to = OtlpGrpc(
        scheme, "localhost", 4317, "traces", version="1", proxy=proxy.settings(),
        tls=Tls(pair[0], *pair),
    )  # fmt: skip
    try:
        assert to.post(b"").verdict is Verdict.ACCEPTED
    finally:
        to.close()
        receiver.close()
        proxy.close()
    assert proxy.heads[0].startswith("CONNECT localhost:4317 ")
    assert f"proxy-authorization: {AUTHORIZATION}".lower() in proxy.heads[0].lower()
    assert len(receiver.exports) == 1
