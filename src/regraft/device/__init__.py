# SPDX-License-Identifier: Apache-2.0
"""What a device is and runs: hardware identity, installed versions, slots, boot environments."""
