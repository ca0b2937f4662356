# SPDX-License-Identifier: Apache-2.0
"""Signatures, certificates, ciphers. Pure: bytes and keys in, proof or a typed error out."""
