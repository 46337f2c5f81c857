# SPDX-License-Identifier: Apache-2.0
"""Telling the service manager: ready, stopping. Source: sd_notify(3), its protocol."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from typing import Final

log = logging.getLogger("otelauto")

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
TELL_S: Final = 1.0  # for a manager whose queue is full


def notify(state: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send ``state`` to the socket that ``NOTIFY_SOCKET`` names; nothing if there is none.

    A name that begins with ``@`` is in the abstract name space. A manager that cannot be told is a
    warning: it may end what it takes for one that hangs.
    """
    name = environ.get("NOTIFY_SOCKET", "")
    if not name:
        return
    address = f"\0{name[1:]}" if name.startswith("@") else name
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(TELL_S)
            sender.connect(address)
            sender.sendall(state.encode())
    except (OSError, ValueError) as error:
        log.warning("the service manager cannot be told %s: %s", state, error)
