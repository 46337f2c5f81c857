# SPDX-License-Identifier: Apache-2.0
"""A client whose TLS is BoringSSL, linked into a module of Python's (curl_cffi).

It gets the addresses that its standard input names, a line each, when it has read them all; takes
any certificate.
"""

from __future__ import annotations

import sys

from curl_cffi import requests

with requests.Session(verify=False, timeout=30) as session:
    for address in sys.stdin.read().splitlines():
        session.get(address).raise_for_status()
