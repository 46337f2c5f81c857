# SPDX-License-Identifier: Apache-2.0
"""What is compiled: the ring walk, the fast lane of plain exchanges, HTTP/2, what is counted."""
