# SPDX-License-Identifier: Apache-2.0
"""One module per wire format: bytes to model and back. Pure: where the bytes come from is not known here."""
