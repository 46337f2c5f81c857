# SPDX-License-Identifier: Apache-2.0
"""The servers' own record of what they served: one JSON object a line, appended atomically."""

from __future__ import annotations

import json
import os
import time


class AccessLog:
    """Appends to the file named by ``ACCESS_LOG``; safe for several processes on one file."""

    def __init__(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(os.environ["ACCESS_LOG"], flags, 0o644)

    def write(
        self,
        method: str,
        path: str,
        status: int,
        request_bytes: int,
        response_bytes: int,
        started_ns: int,
        peer_port: int = 0,
    ) -> None:
        """``started_ns`` is ``time.monotonic_ns()`` when the server's own code got the request.

        Byte counts are those of the bodies, after any transfer coding is undone. ``peer_port`` 0:
        the server does not tell.
        """
        line = {
            "id": path.rsplit("/", 1)[-1],
            "method": method,
            "path": path,
            "status": status,
            "request_bytes": request_bytes,
            "response_bytes": response_bytes,
            "duration_us": (time.monotonic_ns() - started_ns) // 1000,
            "peer_port": peer_port,
        }
        os.write(self._fd, json.dumps(line).encode() + b"\n")
