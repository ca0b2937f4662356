# SPDX-License-Identifier: Apache-2.0
"""Delta updates of whole images for embedded Linux devices."""

__version__ = "0.1.0"
