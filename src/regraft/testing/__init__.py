# SPDX-License-Identifier: Apache-2.0
"""Laboratories: worlds in which to try out regraft, for its own tests and for yours."""
