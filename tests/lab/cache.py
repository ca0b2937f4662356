# SPDX-License-Identifier: Apache-2.0
"""What is built once and kept: a folder in the user's cache, files named by a digest of what they were made from."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def folder() -> Path:
    """Where kernels and root images are kept; made if it is not there."""
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "regraft-lab"
    path.mkdir(parents=True, exist_ok=True)
    return path


def key(parts: Iterable[str | bytes | Path]) -> str:
    """A digest of texts, and of the content of files."""
    total = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()[:16]


def built(name: str, suffix: str, build: Callable[[Path, Path], None], *, keep: int = 4) -> Path:
    """The file `NAME.SUFFIX` of the cache; if need be, `build(scratch folder, file)` makes it, whole or not at all.

    Of the files whose names differ from it behind the last hyphen only, the `keep` used last stay.
    """
    path = folder() / f"{name}{suffix}"
    if path.exists():
        os.utime(path)
        return path
    with tempfile.TemporaryDirectory(dir=folder(), prefix="making-") as scratch:
        unfinished = Path(scratch) / "unfinished"
        build(Path(scratch), unfinished)
        unfinished.replace(path)
    kin = path.parent.glob(f"{name.rpartition('-')[0]}-*{suffix}")
    for old in sorted(kin, key=lambda file: file.stat().st_mtime, reverse=True)[keep:]:
        old.unlink(missing_ok=True)
    return path


def built_folder(name: str, build: Callable[[Path], None]) -> Path:
    """The folder NAME of the cache; if need be, `build(folder)` fills it, whole or not at all."""
    path = folder() / name
    if not path.exists():
        unfinished = Path(tempfile.mkdtemp(dir=folder(), prefix="making-"))
        try:
            build(unfinished)
            unfinished.rename(path)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return path


@contextmanager
def turn(timeout: float = 900) -> Iterator[None]:
    """One laboratory at a time on this machine, whoever runs the tests: emulation wants a processor of its own."""
    path = Path(tempfile.gettempdir()) / f"regraft-lab-{os.getuid()}.lock"
    end = time.monotonic() + timeout
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TimeoutError(f"another laboratory has held {path} for {timeout} s") from None
                time.sleep(0.2)
        yield
