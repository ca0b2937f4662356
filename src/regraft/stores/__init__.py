# SPDX-License-Identifier: Apache-2.0
"""Chunk stores: images as descriptions that share chunks, which lie in packs. `open_store` is the way in."""
