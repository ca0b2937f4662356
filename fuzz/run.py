# SPDX-License-Identifier: Apache-2.0
"""Run the fuzz targets: replay their seeds and corpora, then mutate them for some seconds each.

A target is a module `fuzz_<name>.py` beside this file with `target(data: bytes) -> None`, which lets nothing escape
that bytes from outside may cause, and `seeds() -> list[bytes]`. Further inputs lie in `corpus/<name>/`. Whatever
escapes, takes too long or too much memory, or ends the process, is kept in `crashes/` and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import mmap
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType
from typing import NoReturn, Protocol

from mutate import LONGEST, mutate

HERE = Path(__file__).resolve().parent


class Target(Protocol):
    """What a module of a target offers."""

    def target(self, data: bytes) -> None: ...
    def seeds(self) -> list[bytes]: ...


class TooLong(BaseException):
    """An input took more than its time. Not an `Exception`: a target must not swallow it."""


@dataclass(frozen=True)
class Settings:
    folder: Path
    seconds: float  #: of mutation per target; 0 only replays
    seed: int
    cap: float  #: seconds for one input
    memory: int  #: bytes that the inputs of one target may take, beyond what the process has at its start
    engine: str


def names(folder: Path) -> list[str]:
    """The targets in a folder."""
    return sorted(path.stem.removeprefix("fuzz_") for path in folder.glob("fuzz_*.py"))


def load(folder: Path, name: str) -> Target:
    """The module of a target."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    module: Target = importlib.import_module(f"fuzz_{name}")
    return module


def inputs(folder: Path, name: str, module: Target) -> list[bytes]:
    """The seeds, then the files of the corpus and of former crashes."""
    kept = [*(folder / "corpus" / name).glob("*"), *(folder / "crashes").glob(f"{name}-*")]
    return [*module.seeds(), *(path.read_bytes() for path in sorted(kept) if path.is_file())]


class Current:
    """The input under way, in memory shared with the parent: it survives even the death of this process."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1 << 24)

    def set(self, data: bytes) -> None:
        data = data[: len(self._memory) - 8]
        self._memory[8 : 8 + len(data)] = data
        self._memory[:8] = len(data).to_bytes(8, "little")

    def get(self) -> bytes:
        size = int.from_bytes(self._memory[:8], "little")
        return self._memory[8 : 8 + size]


def candidates(first: list[bytes], settings: Settings) -> Iterator[bytes]:
    """First what is there, then, until the time is over, mutants of it."""
    yield from first
    random = Random(settings.seed)
    pool = [data for data in first if len(data) <= LONGEST] or [b""]
    end = time.monotonic() + settings.seconds
    while time.monotonic() < end:
        parent = random.choice(pool)
        mutant = mutate(parent, pool, random)
        # Mutants of mutants get further; the first inputs must not drown in them.
        if random.random() < 0.02 and len(pool) < 4 * len(first) + 64:
            pool.append(mutant)
        yield mutant


def attempt(target: Callable[[bytes], None], data: bytes, cap: float) -> bool:
    """Give one input to a target; False, with a report on stderr, if that goes wrong."""

    def ring(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise TooLong(f"more than {cap} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, cap)
    try:
        target(data)
    except BaseException as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if isinstance(error, KeyboardInterrupt):
            raise
        traceback.print_exc()
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return True


def limit_memory(more: int) -> None:
    """Let this process grow by so many bytes and no further."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def fuzz(name: str, settings: Settings, current: Current) -> int:
    """Run one target in this process; the exit status."""
    module = load(settings.folder, name)
    first = inputs(settings.folder, name, module)
    limit_memory(settings.memory)
    start, count = time.monotonic(), 0
    for data in candidates(first, settings):
        current.set(data)
        if not attempt(module.target, data, settings.cap):
            return 1
        count += 1
    took = time.monotonic() - start
    print(f"{name:24} {len(first):6} seeds {count - len(first):9} mutants {took:7.1f} s   ok", flush=True)
    return 0


def fuzz_with_atheris(name: str, settings: Settings, current: Current) -> int:
    """Run one target under atheris, guided by coverage; does not return before the time is over."""
    import atheris  # type: ignore[import-not-found,unused-ignore]

    with atheris.instrument_imports(include=["regraft"]):
        module = load(settings.folder, name)

    def target(data: bytes) -> None:
        current.set(data)
        module.target(data)

    with tempfile.TemporaryDirectory() as corpus:
        for row, data in enumerate(inputs(settings.folder, name, module)):
            Path(corpus, f"seed-{row}").write_bytes(data)
        options = [f"-max_total_time={max(1, round(settings.seconds))}", f"-seed={settings.seed or 1}"]
        options += [f"-timeout={max(1, round(settings.cap))}", f"-rss_limit_mb={settings.memory >> 20}"]
        atheris.Setup([name, *options, f"-artifact_prefix={corpus}/", corpus], target)
        atheris.Fuzz()
    return 0


def in_child(name: str, settings: Settings) -> bool:
    """Run one target in a process of its own; keep the input that made it fail."""
    current = Current()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            engine = fuzz_with_atheris if settings.engine == "atheris" else fuzz
            status = engine(name, settings, current)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    status = wait(child, current, settings.cap)
    if status == 0:
        return True
    data = current.get()
    crashes = settings.folder / "crashes"
    crashes.mkdir(exist_ok=True)
    path = crashes / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}"
    path.write_bytes(data)
    ending = f"signal {-status}" if status < 0 else f"status {status}"
    print(f"{name:24} FAILED ({ending}): the input is {os.path.relpath(path)}", flush=True)
    print(f"{'':24} again: {sys.executable} {os.path.relpath(__file__)} --target {name} --replay", flush=True)
    return False


def wait(child: int, current: Current, cap: float) -> int:
    """The exit status of the child, negative for a signal. A child whose input is the same for far too long is deaf to
    its alarm, stuck in native code, and killed."""
    seen, since = b"", time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
        now = current.get()
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > 4 * cap + 30:
            os.kill(child, signal.SIGKILL)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the fuzz targets.")
    parser.add_argument("--target", action="append", metavar="NAME", help="only this one (may be given again)")
    parser.add_argument("--seconds", type=float, default=10, help="of mutation per target (default 10)")
    parser.add_argument("--replay", action="store_true", help="no mutation: seeds, corpora, former crashes")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers: the same gives the same mutants")
    parser.add_argument("--time", type=float, default=5, help="seconds that one input may take (default 5)")
    parser.add_argument("--memory", type=int, default=512, help="MiB that a target may take (default 512)")
    parser.add_argument("--engine", choices=("own", "atheris"), default="own", help="atheris is guided by coverage")
    parser.add_argument("--folder", type=Path, default=HERE, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    there = names(arguments.folder)
    wanted = arguments.target or there
    if unknown := sorted(set(wanted) - set(there)):
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(there)}")
    if arguments.engine == "atheris" and not importlib.util.find_spec("atheris"):
        parser.error("atheris is not installed: pip install atheris, or --engine own")
    settings = Settings(
        folder=arguments.folder.resolve(),
        seconds=0 if arguments.replay else arguments.seconds,
        seed=arguments.seed,
        cap=arguments.time,
        memory=arguments.memory << 20,
        engine="own" if arguments.replay else arguments.engine,
    )
    failed = [name for name in wanted if not in_child(name, settings)]
    print(f"{len(wanted)} targets, {len(failed)} failed{': ' if failed else ''}{', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
