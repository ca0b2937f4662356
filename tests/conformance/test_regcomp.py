# SPDX-License-Identifier: Apache-2.0
"""Regular expressions against the C library's own: whatever regraft accepts, it answers alike."""

from __future__ import annotations

import ctypes
import ctypes.util
import random

from tools import missing

from regraft.device.ere import compile_pattern
from regraft.errors import RegraftError

TOKENS = [*"aab.^$()|*+?[]-1(", "{2}", "{1,}", "{0,2}", "[ab]", "[^a]", "[a-b]", "\\.", "(a|b)", "[[:alpha:]]", "\\w",
          "[]a]", "[a-]", "[\\.]", "^a", "b$"]  # fmt: skip
EXTENDED, NO_SUBMATCHES = 1, 8


def test_every_accepted_pattern_matches_as_regexec_does() -> None:
    name = ctypes.util.find_library("c")
    library = ctypes.CDLL(name) if name else missing("the C library")
    if not hasattr(library, "gnu_get_libc_version"):
        missing("the GNU C library")

    def theirs(pattern: str, text: str) -> bool | None:
        compiled = ctypes.create_string_buffer(512)  # a regex_t, which is smaller
        if library.regcomp(compiled, pattern.encode(), EXTENDED | NO_SUBMATCHES):
            return None
        found = library.regexec(compiled, text.encode(), 0, None, 0)
        library.regfree(compiled)
        return bool(found == 0)

    chance = random.Random(1003_1)
    compared = 0
    for _ in range(12_000):
        pattern = "".join(chance.choices(TOKENS, k=chance.randint(1, 7)))
        text = "".join(chance.choices("ab.1-", k=chance.randint(0, 6)))
        try:
            ours = compile_pattern(pattern).matches(text)
        except RegraftError:
            continue
        compared += 1
        assert ours == theirs(pattern, text), (pattern, text)
    assert compared > 4_000
