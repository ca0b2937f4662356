# SPDX-License-Identifier: Apache-2.0
"""`regraft store`: look after chunk stores, one verb per file."""

from regraft.cli._group import VerbGroup

command = VerbGroup(
    "store", __path__, __name__, help="Look after chunk stores, which `regraft clone` fills, and casync stores."
)
