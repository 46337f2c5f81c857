# SPDX-License-Identifier: Apache-2.0
"""What is compiled: the ring walk, the fast lane of plain HTTP/1 exchanges, what they count in."""
