# SPDX-License-Identifier: Apache-2.0
"""The hot loops. Native where `regraft_native` is installed, else their Python twins: the same results, slower.

Kernels take buffers and give back columns. They know no formats beyond a chunker's parameters, and no model.
"""

from __future__ import annotations
