# SPDX-License-Identifier: Apache-2.0
"""The first TLS call of a watched process: from then on it is seen what carries sessions.

Go's sessions are seen to be carried from the first Go program that is watched on, those of
libraries from the first call of one.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from pathlib import Path

from tests.e2e.harness.otelauto import Otelauto
from tests.e2e.harness.process import Process

SEES_CARRIERS = 'msg="seeing which connections carry TLS sessions'


def make_a_first_tls_call(port: int, otelauto: Otelauto) -> None:
    """A session of no exchange with the server on ``port``; returns when sockets are seen."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain):
        otelauto.process.wait_for(
            lambda: SEES_CARRIERS in otelauto.process.stderr(), "it is seen what carries sessions"
        )


SEES_THOSE_OF_LIBRARIES = 'carry TLS sessions object=tls"'
CALL = """
import socket, ssl, sys
sys.stdin.readline()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
session = context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
session.setblocking(False)
try:
    session.recv(1)
except ssl.SSLWantReadError:
    pass
sys.stdin.readline()
"""


class Caller:
    """A process to be watched, which makes the first call of a library when it is told to."""

    def __init__(self, port: int, errors: Path) -> None:
        words = (sys.executable, "-c", CALL, str(port))
        self.process = Process(words, errors, stdin=subprocess.PIPE)
        assert self.process.popen.stdin is not None
        self._stdin = self.process.popen.stdin

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._stdin.close()
        self.process.stop()

    def call(self, otelauto: Otelauto) -> None:
        """A session of no exchange; returns when sockets of libraries' sessions are seen."""
        self._stdin.write(b"\n")
        self._stdin.flush()
        otelauto.process.wait_for(
            lambda: SEES_THOSE_OF_LIBRARIES in otelauto.process.stderr(),
            "it is seen what carries sessions",
        )
