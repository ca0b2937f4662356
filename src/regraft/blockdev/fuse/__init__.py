# SPDX-License-Identifier: Apache-2.0
"""An export as a file: the kernel's FUSE protocol (linux/fuse.h), spoken directly, for exactly one read-only file.

`protocol` is pure: messages in, answers out. `mount` holds the device, the threads and the mount.
"""
