# SPDX-License-Identifier: Apache-2.0
"""The world of SWUpdate: bundles, their descriptions, the handlers that install what they list."""
