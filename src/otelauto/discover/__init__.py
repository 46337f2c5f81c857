# SPDX-License-Identifier: Apache-2.0
"""Which processes are watched, and how their services are called."""
