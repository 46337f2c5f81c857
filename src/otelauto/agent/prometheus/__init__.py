# SPDX-License-Identifier: Apache-2.0
"""What the prometheus.* components are made of: names, samples, the log on disk, the wire."""
