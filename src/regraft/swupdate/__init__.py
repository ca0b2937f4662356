# SPDX-License-Identifier: Apache-2.0
"""SWUpdate's world: its description of a release, its handlers, its installer."""
