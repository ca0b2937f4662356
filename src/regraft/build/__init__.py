# SPDX-License-Identifier: Apache-2.0
"""The publisher's side: make artifacts, descriptions and bundles, and lint them."""
