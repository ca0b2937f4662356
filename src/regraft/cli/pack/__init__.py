# SPDX-License-Identifier: Apache-2.0
"""`regraft pack`: make chunked artifacts, one file per format."""

from regraft.cli._group import VerbGroup

command = VerbGroup("pack", __path__, __name__, help="Make a chunked artifact from an image.")
