# SPDX-License-Identifier: Apache-2.0
"""Bytes from elsewhere: ranged reads over HTTP, with every answer that real servers give."""
