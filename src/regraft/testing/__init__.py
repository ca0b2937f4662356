# SPDX-License-Identifier: Apache-2.0
"""Parts for testing regraft, and programs that use it: media in memory, a crash laboratory, a slow link."""
