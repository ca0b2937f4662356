# SPDX-License-Identifier: Apache-2.0
"""The publishing side: what devices fetch from."""
