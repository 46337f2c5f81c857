# SPDX-License-Identifier: Apache-2.0
"""The River language, which is also Alloy's: lexer, parser, values, evaluator, formatter."""
