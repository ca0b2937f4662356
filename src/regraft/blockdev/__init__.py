# SPDX-License-Identifier: Apache-2.0
"""Block devices in user space: anything with a size, `read_into` and `extents`, served as a disk. Knows no plans."""
