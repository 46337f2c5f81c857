# SPDX-License-Identifier: Apache-2.0
"""The real servers: how each is started, and what it can do."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.certificates import self_signed
from tests.e2e.harness.plan import Features
from tests.e2e.harness.process import Process, accepts, free_port

HERE = Path(__file__).parent.parent
SERVERS = HERE / "servers"
BUILT = HERE.parent.parent / ".build" / "e2e"
PYTHON = SERVERS / "python"
COMMON = Features()
NO_PIPELINING = Features(pipelining=False)
ANSWERS_EARLY = Features(answers_early=True)


@dataclass(frozen=True)
class Server:
    """``command(port, directory)`` gives the words to run; ``env`` is added to the environment.

    ``upstream`` is whether an application must listen on the unix socket that it proxies to.
    """

    name: str
    command: Callable[[int, Path], list[str | Path]]
    features: Features = COMMON
    env: Mapping[str, str] = field(default_factory=dict)
    upstream: bool = False
    tls: bool = False  # it is told its certificate and key by TLS_CERT and TLS_KEY


@dataclass(frozen=True)
class Running:
    """A server that listens. ``upstream`` is the application behind a proxy, on a unix socket."""

    port: int
    process: Process
    log: Path
    upstream: Process | None = None
    upstream_log: Path | None = None


def _python(script: str) -> Callable[[int, Path], list[str | Path]]:
    return lambda port, _: [sys.executable, PYTHON / script, str(port)]


def _gunicorn(bind: str) -> list[str | Path]:
    words = "-m gunicorn --workers 4 --worker-class gthread --threads 4 --keep-alive 60"
    return [sys.executable, *words.split(), "--bind", bind, "flask_app:application"]


def _gunicorn_tls(port: int, directory: Path) -> list[str | Path]:
    cert, key = certificate(directory)
    return [*_gunicorn(f"127.0.0.1:{port}"), "--certfile", cert, "--keyfile", key]


def _uvicorn_tls(port: int, directory: Path) -> list[str | Path]:
    cert, key = certificate(directory)
    return [*_uvicorn(port, directory), "--ssl-certfile", cert, "--ssl-keyfile", key]


def _uvicorn(port: int, _: Path) -> list[str | Path]:
    words = "-m uvicorn --no-access-log --log-level warning --timeout-keep-alive 60 --port"
    return [sys.executable, *words.split(), str(port), "fastapi_app:application"]


def _node(script: str) -> Callable[[int, Path], list[str | Path]]:
    return lambda port, _: ["node", SERVERS / "node" / script, str(port)]


def _built(program: str) -> Callable[[int, Path], list[str | Path]]:
    return lambda port, _: [BUILT / program, str(port)]


def _java(port: int, _: Path) -> list[str | Path]:
    options = ["-Xmx128m", "-Dsun.net.httpserver.nodelay=true"]
    return ["java", *options, "-cp", BUILT / "java", "Server", str(port)]


def _epoll(*options: str) -> Callable[[int, Path], list[str | Path]]:
    def command(port: int, directory: Path) -> list[str | Path]:
        log = directory / "access.log"
        return [BUILT / "epoll", "-p", str(port), "-l", log, *options]

    return command


def _jetty(port: int, _: Path) -> list[str | Path]:
    classes = f"{BUILT / 'jetty'}:{BUILT / 'jetty'}/*"
    return ["java", "-Xmx128m", "-cp", classes, "Http2", str(port)]


def _hypercorn_tls(port: int, directory: Path) -> list[str | Path]:
    cert, key = certificate(directory)
    words = ["--certfile", cert, "--keyfile", key, "--bind", f"127.0.0.1:{port}"]
    return [sys.executable, "-m", "hypercorn", *words, "fastapi_app:application"]


def _nginx(
    configuration: str, *, tls: str = "", program: str | Path = "nginx"
) -> Callable[[int, Path], list[str | Path]]:
    """``tls`` is what is said of it where it listens."""

    def command(port: int, directory: Path) -> list[str | Path]:
        filled = {
            "@PORT@": str(port), "@DIR@": str(directory), "@LOG@": str(directory / "access.log"),
            "@UPSTREAM@": str(directory / "upstream.sock"), "@SSL@": "", "@CERTIFICATE@": "",
        }  # fmt: skip
        if tls:
            cert, key = certificate(directory)
            filled["@SSL@"] = f" {tls}"
            filled["@CERTIFICATE@"] = f"ssl_certificate {cert}; ssl_certificate_key {key};"
        for name in (configuration, "common.conf"):
            text = (SERVERS / "nginx" / name).read_text()
            for mark, value in filled.items():
                text = text.replace(mark, value)
            (directory / name).write_text(text)
        _make_files(directory / "files")
        return [program, "-p", directory, "-c", directory / configuration]

    return command


def certificate(directory: Path) -> tuple[str, str]:
    """Certificate and key of the server whose files are in ``directory``; made when first asked."""
    cert, key = directory / "server.pem", directory / "server.key"
    return (str(cert), str(key)) if cert.exists() else self_signed(directory, "server")


def _make_files(directory: Path) -> None:
    directory.mkdir()
    for name, size in (("empty", 0), ("1k", 1024), ("64k", 65_536), ("200k", 200_000)):
        (directory / name).write_bytes(b"f" * size)
    (directory / "ssi").write_text("<!--# set var='x' value='included' --><!--# echo var='x' -->\n")


MULTIPATH = {"GODEBUG": "multipathtcp=2"}  # what Go 1.24 and newer does by default on listeners
SINGLE_PATH = {"GODEBUG": "multipathtcp=0"}
APPLICATION = {"PYTHONPATH": str(PYTHON)}
OPENSSL_1_1 = BUILT / "openssl-1.1"  # of an older distribution, and an nginx that was built with it
LIBRARIES = "lib/x86_64-linux-gnu"

ALL = (
    Server("python-http.server", _python("http_server.py")),
    Server(
        "gunicorn-flask",
        lambda port, _: _gunicorn(f"127.0.0.1:{port}"),
        NO_PIPELINING,
        APPLICATION,
    ),
    Server("uvicorn-fastapi", _uvicorn, env=APPLICATION),
    Server("go-net/http", _built("nethttp"), env=SINGLE_PATH),
    Server("go-gin", _built("gin"), env=MULTIPATH),
    Server("go-gorilla", _built("gorilla"), env=MULTIPATH),
    Server("node-http", _node("http.js")),
    Server("node-express", _node("express.js")),
    Server("nginx-static", _nginx("static.conf"), ANSWERS_EARLY),
    Server("nginx-proxy-unix", _nginx("proxy.conf"), upstream=True),
    Server("jvm-httpserver", _java),
    Server("rust-hyper", _built("hyper-server")),
    Server("c-epoll", _epoll()),
    Server("c-epoll-batch", _epoll("-b")),
    Server("c-epoll-two-threads", _epoll("-t")),
    Server("c-epoll-zerocopy", _epoll("-z")),
)

# The same over TLS: libraries that own the socket (Python's threads, nginx), and such as are handed
# ciphertext and give it back (asyncio, Node's own OpenSSL inside its program).
TLS = (
    Server("python-http.server-tls", _python("http_server.py"), tls=True),
    Server("nginx-static-tls", _nginx("static.conf", tls="ssl"), ANSWERS_EARLY, tls=True),
    Server(
        "nginx-openssl-1.1-tls",
        _nginx("static.conf", tls="ssl", program=OPENSSL_1_1 / "usr" / "sbin" / "nginx"),
        ANSWERS_EARLY,
        {"LD_LIBRARY_PATH": f"{OPENSSL_1_1}/usr/{LIBRARIES}:{OPENSSL_1_1}/{LIBRARIES}"},
        tls=True,
    ),
    Server("gnutls-microhttpd-tls", _built("microhttpd"), tls=True),
    Server("gunicorn-flask-tls", _gunicorn_tls, NO_PIPELINING, APPLICATION, tls=True),
    Server("uvicorn-fastapi-tls", _uvicorn_tls, env=APPLICATION, tls=True),
    Server("node-https", _node("http.js"), tls=True),
    Server("go-net/http-tls", _built("nethttp"), env=SINGLE_PATH, tls=True),
    Server("go-net/http-tls-stripped", _built("nethttp-stripped"), env=MULTIPATH, tls=True),
)

# What speaks HTTP/2 without TLS.
HTTP2 = (
    Server("go-h2c", _built("h2c"), env=MULTIPATH),
    Server("node-http2", _node("http2.js")),
)
HTTP2_PAIRS = (
    Server("nginx-static-tls", _nginx("static.conf", tls="ssl http2"), ANSWERS_EARLY, tls=True),
    Server("node-http2-tls", _node("http2.js"), tls=True),
    Server("go-net/http-tls", _built("nethttp"), env={**MULTIPATH, "HTTP2": "1"}, tls=True),
    Server("hypercorn-fastapi-tls", _hypercorn_tls, env=APPLICATION, tls=True),
    Server("rust-hyper", _built("hyper-server")),
    Server("java-jetty", _jetty),
)
WEBSOCKET = (
    Server("python-websockets", _python("websocket_server.py")),
    Server("go-websocket", _built("websocket"), env=SINGLE_PATH),
)
# Its servers inside TLS: such as use a session in one thread at a time.
WEBSOCKET_TLS = (
    Server("python-websockets-tls", _python("websocket_server_asyncio.py"), tls=True),
    Server("go-websocket-tls", _built("websocket"), env=SINGLE_PATH, tls=True),
)
EVENTS = Server("node-events", _node("events.js"))
GRPC = (
    Server("go-grpc", _built("grpc"), env=SINGLE_PATH),
    Server("python-grpcio", _python("grpc_server.py")),
)
TONIC = Server("rust-tonic", _built("tonic-server"))


@contextlib.contextmanager
def running(server: Server, directory: Path, port: int = 0) -> Iterator[Running]:
    """Starts ``server`` (and what it proxies to) with its files in ``directory``; ends it after.

    ``port`` 0 is any that is free.
    """
    port, log = port or free_port(), directory / "access.log"
    tls: dict[str, str] = {}
    if server.tls:
        tls = dict(zip(("TLS_CERT", "TLS_KEY"), certificate(directory), strict=True))
    with contextlib.ExitStack() as stack:
        upstream = upstream_log = None
        if server.upstream:
            upstream_log, socket = directory / "upstream.log", directory / "upstream.sock"
            upstream = stack.enter_context(
                Process(
                    _gunicorn(f"unix:{socket}"),
                    directory / "upstream.err",
                    env={"ACCESS_LOG": str(upstream_log), **APPLICATION},
                )
            )
            upstream.wait_for(lambda: accepts(socket), "the upstream listens")
        process = stack.enter_context(
            Process(
                server.command(port, directory),
                directory / "server.err",
                env={"ACCESS_LOG": str(log), **server.env, **tls},
            )
        )
        process.wait_for(lambda: accepts(port), f"{server.name} listens")
        yield Running(port, process, log, upstream, upstream_log)


def php_fpm() -> Path:
    """The program; its name has the version of PHP in it."""
    return max(Path("/usr/sbin").glob("php-fpm*"))


def missing() -> list[str]:
    """What of the built servers and clients is not there (``install.sh`` makes it)."""
    programs = (
        "client", "epoll", "fetch", "gin", "gorilla", "grpc", "grpcclient", "h2c", "hyper-server",
        "microhttpd", "nethttp", "nethttp-pie", "nethttp-stripped", "openssl-1.1/usr/sbin/nginx",
        "tlsecho", "tonic-client", "tonic-server", "websocket", "java/Server.class",
        "jetty/Http2.class",
    )  # fmt: skip
    lacking = [name for name in programs if not (BUILT / name).exists()]
    if not os.access(SERVERS / "node" / "node_modules" / "express", os.R_OK):
        lacking.append("express")
    return lacking
