# SPDX-License-Identifier: Apache-2.0
"""`regraft overlay`: the new image at once, merged under the running system; one verb per file."""

from regraft.cli._group import VerbGroup

command = VerbGroup(
    "overlay", __path__, __name__, help="Devices that are the new image at once, while their base becomes it."
)
