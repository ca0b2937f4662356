# SPDX-License-Identifier: Apache-2.0
<<<<<<< HEAD
"""Makes artifacts, bundles and their descriptions, and lints them against what old devices accept."""
=======
"""The publisher's side: make artifacts, descriptions and bundles, and lint them."""
>>>>>>> main
