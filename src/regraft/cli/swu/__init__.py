# SPDX-License-Identifier: Apache-2.0
"""`regraft swu`: SWUpdate's bundles, one verb per file."""

from regraft.cli._group import VerbGroup

command = VerbGroup("swu", __path__, __name__, help="Make, look into and check SWUpdate bundles (.swu).")
