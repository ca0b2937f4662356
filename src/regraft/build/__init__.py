# SPDX-License-Identifier: Apache-2.0
"""Makes artifacts, bundles and their descriptions, and lints them against what old devices accept."""
