# SPDX-License-Identifier: Apache-2.0
"""The agent: a pipeline of telemetry components, configured in the River language. No BPF here."""
