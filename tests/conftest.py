# SPDX-License-Identifier: Apache-2.0
"""Its place puts this folder on the import path: `from tools import tool`."""
