# SPDX-License-Identifier: Apache-2.0
from regraft.cli import main

main()
