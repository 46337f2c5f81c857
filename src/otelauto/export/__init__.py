# SPDX-License-Identifier: Apache-2.0
"""Spans to the world: one bounded queue and one thread for each exporter."""
