# SPDX-License-Identifier: Apache-2.0
"""The first TLS call of a watched process: from then on it is seen what carries sessions."""

from __future__ import annotations

import socket
import ssl

from tests.e2e.harness.otelauto import Otelauto

SEES_CARRIERS = 'msg="seeing which connections carry TLS sessions'


def make_a_first_tls_call(port: int, otelauto: Otelauto) -> None:
    """A session of no exchange with the server on ``port``; returns when sockets are seen."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain):
        otelauto.process.wait_for(
            lambda: SEES_CARRIERS in otelauto.process.stderr(), "it is seen what carries sessions"
        )
