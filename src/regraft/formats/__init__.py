# SPDX-License-Identifier: Apache-2.0
"""One module per wire format: bytes to model and back. Pure: no files, no sockets."""
