# SPDX-License-Identifier: Apache-2.0
"""Zero-code auto-instrumentation of Linux services: eBPF captures, Python understands."""

__version__ = "0.1.0"
