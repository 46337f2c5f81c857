# SPDX-License-Identifier: Apache-2.0
"""Exchanges -> spans: a chain of plain functions (service, parent, route, select)."""
