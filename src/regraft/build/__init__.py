# SPDX-License-Identifier: Apache-2.0
"""Making artifacts, deltas, bundles and manifests."""
