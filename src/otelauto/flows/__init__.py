# SPDX-License-Identifier: Apache-2.0
"""Records -> connections -> exchanges, without any knowledge of a protocol."""
