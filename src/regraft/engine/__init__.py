# SPDX-License-Identifier: Apache-2.0
"""From recipe to image: index seeds, match, cost; then write, stream, verify, resume."""
