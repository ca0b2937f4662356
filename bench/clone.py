# SPDX-License-Identifier: Apache-2.0
"""Chunk stores: clones beside casync's and bita's, images served from a store beside a flat file, memory."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import nbd
from material import PYTHON, REGRAFT, Material, peer
from process import Failed, Ran, Series, interleaved, run
from rows import Row, at_least, at_most, forget, scratch
from served import Served

MIB = 1 << 20
_HERE = Path(__file__).parent
_QUIET = ("--progress", "none")
_ROUND_TRIP, _BANDWIDTH = 0.1, 125e6
_SLICE = 48 * MIB  # of the pair, for the row in which casync waits for each chunk


@dataclass(frozen=True)
class _Site:
    """The pair as the artifacts of casync and bita, served; a store that has the old image."""

    old: Path
    new: Path
    folder: Path

    @property
    def www(self) -> Path:
        return self.folder / "www"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def publish(self) -> str:
        """The same chunks for all: casync's usual sizes, zstd, in one store; and a bita archive. Its compression."""
        self.www.mkdir()
        chunks = ("--store", self.www / "default.castr", "--compression", "zstd", *_QUIET)
        for name, image in (("old", self.old), ("new", self.new)):
            run([REGRAFT, "pack", "caibx", image, "-o", self.www / f"{name}.caibx", *chunks])
        codec = "brotli"  # as bita makes them, if it can be had here
        for name, image in (("old", self.old), ("new", self.new)):
            command = [REGRAFT, "pack", "cba", image, "-o", self.www / f"{name}.cba", *_QUIET]
            try:
                run([*command, "--compression", codec, "--compression-level", "2"])
            except Failed:
                codec = "none"
                run([*command, "--compression", codec])
        for kind in ("caibx", "cba"):
            run([REGRAFT, "clone", self.www / f"old.{kind}", self.store / f"old-{kind}", *_QUIET])
        return codec

    def clone(self, source: str, *options: str | Path, into: Path | None = None) -> Ran:
        """Into a store that has not got it: made so again afterwards."""
        store = into or self.store
        forget(self.old)
        ran = run([REGRAFT, "clone", source, store / "new", *_QUIET, *options])
        run([REGRAFT, "store", "rm", store, "new"])
        run([REGRAFT, "store", "gc", store, *_QUIET])
        return ran

    def casync(self, tool: Path, url: str) -> Ran:
        out = self.folder / "extracted"
        chunks = f"--store={url}/default.castr"
        return self._written([tool, "extract", chunks, f"--seed={self.old}", f"{url}/new.caibx", out], out)

    def bita(self, tool: Path, url: str) -> Ran:
        out = self.folder / "cloned"
        return self._written([tool, "clone", "--seed", self.old, f"{url}/new.cba", out], out)

    def _written(self, command: list[str | Path], out: Path) -> Ran:
        """What a peer takes to have its image on the disk, as ours is when it ends: the sync included."""
        out.unlink(missing_ok=True)
        forget(self.old)
        ran = run(command)
        began = time.monotonic()
        with out.open("rb") as file:
            os.fsync(file.fileno())
        if out.stat().st_size != self.new.stat().st_size:
            raise Failed(f"{command[0]} made an image of another size")
        return replace(ran, wall=ran.wall + time.monotonic() - began)


def clone(material: Material, runs: int) -> Iterator[Row]:
    """Clones of the pair over loopback, of the same chunks from the same server as the peer's."""
    old, new = material.old, material.new
    with ExitStack() as stack:
        site = _Site(old, new, stack.enter_context(scratch()))
        codec = site.publish()
        url = stack.enter_context(Served(site.www)).url
        chunks = ("--store", f"{url}/default.castr")
        try:
            tool = peer("casync")
            found = interleaved(
                runs,
                ours=lambda: site.clone(f"{url}/new.caibx", *chunks),
                seeded=lambda: site.clone(f"{url}/new.caibx", *chunks, "--seed", old, into=site.folder / "empty"),
                peer=lambda: site.casync(tool, url),
            )
            yield _faster(
                "clone", "clone the new image into a store that has the old one, against casync extract --seed OLD"
                " and a sync, both from the same index and chunk files (zstd)", found, "ours", 0.5,
            )  # fmt: skip
            yield _faster(
                "clone-seed", "the same into an empty store, with the old image as a seed that has to be cut first,"
                " as casync does: all of the image is written", found, "seeded", 0.5,
            )  # fmt: skip
        except Failed as error:
            yield Row("clone", str(error), "-", "-")
        try:
            bita = peer("bita")
            found = interleaved(
                runs,
                ours=lambda: site.clone(f"{url}/new.cba"),
                seeded=lambda: site.clone(f"{url}/new.cba", "--seed", old, into=site.folder / "empty"),
                peer=lambda: site.bita(bita, url),
            )
            what = f"against bita clone --seed OLD and a sync, both from the same archive ({codec})"
            yield _faster("clone-bita", f"clone into a store that has the old image, {what}", found, "ours", 0.5)
            yield _faster("clone-bita-seed", f"clone into an empty store with --seed OLD, {what}", found, "seeded", 0.5)
        except Failed as error:
            yield Row("clone-bita", str(error), "-", "-")
    yield from _second(material, runs)
    yield from _slow(material, runs)


def _faster(name: str, what: str, found: dict[str, Series], ours: str, goal: float) -> Row:
    ratio = found[ours].wall / found["peer"].wall
    return at_most(name, what, found[ours].spread(), found["peer"].spread(), ratio, goal)


def _second(material: Material, runs: int) -> Iterator[Row]:
    """The same command again, beside the first clone of an image into an empty store."""
    with scratch() as folder, Served(material.large_artifact.parent) as server:
        store, url = folder / "second", f"{server.url}/{material.large_artifact.name}"

        def clone() -> Ran:
            return run([REGRAFT, "clone", url, store / "new", *_QUIET])

        def first() -> Ran:
            shutil.rmtree(store, ignore_errors=True)
            return clone()

        found = interleaved(runs, ours=first, again=clone, start=lambda: run([REGRAFT, "--version"]))
    yield at_most(
        "clone-second", "clone an image of 1 GiB again, nothing changed, against the first time"
        f" (of it {found['start'].wall:.2f} s are the start of Python)", found["again"].spread(),
        found["ours"].spread(), found["again"].wall / found["ours"].wall, 0.05,
    )  # fmt: skip


def _slow(material: Material, runs: int) -> Iterator[Row]:
    """At 100 ms round trip, where what counts is how many round trips are waited for, one after the other."""
    tool = peer("casync")
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        old, new = folder / "old.img", folder / "new.img"
        for image, whole in ((old, material.old), (new, material.new)):
            with whole.open("rb") as file:
                file.seek(whole.stat().st_size // 4 // 4096 * 4096)
                image.write_bytes(file.read(_SLICE))
        site = _Site(old, new, folder)
        site.publish()
        server = stack.enter_context(Served(site.www))
        url = stack.enter_context(_relayed(server.url))
        chunks = ("--store", f"{url}/default.castr")
        server.taken()
        asked: list[int] = []

        def counted(way: Callable[[], Ran]) -> Ran:
            ran = way()
            asked.append(server.taken()[0])
            return ran

        found = interleaved(
            min(runs, 2),
            ours=lambda: counted(lambda: site.clone(f"{url}/new.caibx", *chunks)),
            cba=lambda: counted(lambda: site.clone(f"{url}/new.cba")),
            peer=lambda: counted(lambda: site.casync(tool, url)),
        )
    what = f"clone {_SLICE >> 20} MiB of the pair at 100 ms round trip, 1 Gbit/s, into a store that has the old,"
    yield _faster(
        "clone-100ms", f"{what} against casync extract --seed OLD; the same index and chunk files"
        f" ({asked[0]} requests, casync {asked[2]})", found, "ours", 0.1,
    )  # fmt: skip
    yield _faster(
        "clone-100ms-cba", f"{what} as a bita archive ({asked[1]} requests), against the same casync", found, "cba", 0.1
    )


@contextmanager
def _relayed(url: str) -> Iterator[str]:
    """The server behind a long link."""
    command = [
        str(PYTHON),
        str(_HERE / "relay.py"),
        url.rsplit(":", 1)[1].strip("/"),
        str(_ROUND_TRIP),
        str(_BANDWIDTH),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait()


def served(material: Material, runs: int) -> Iterator[Row]:
    """The image in a chunk store, beside a flat file; by fio if it is there, else by a client of ours."""
    measure = nbd.measure if shutil.which("fio") else nbd.measure_lean
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        run([REGRAFT, "pack", "cba", material.new, "-o", folder / "new.cba", "--compression", "none", *_QUIET])
        run([REGRAFT, "clone", folder / "new.cba", folder / "store/new", *_QUIET])
        for name, what in (("flat", material.new), ("kept", folder / "store/new")):
            command = [str(REGRAFT), "nbd", str(what), "--socket", str(folder / name)]
            stack.enter_context(nbd.running(command, folder / name))
        cold = measure(folder / "kept", nbd.LOADS[0], material.new, 1.0)
        flat_rate = measure(folder / "flat", nbd.LOADS[0], material.new, 1.0)
        yield Row(
            "nbd-store first reads",
            "the same while chunks are read, and so verified, for the first time: 4 KiB random, QD1",
            f"{cold:.0f} reads/s", f"{flat_rate:.0f} reads/s", cold / flat_rate,
        )  # fmt: skip
        run([PYTHON, _HERE / "read_all.py", folder / "kept"])
        for load in nbd.LOADS:
            rates: dict[str, list[float]] = {"flat": [], "kept": []}
            for _ in range(max(runs, 3)):
                for name, found in rates.items():
                    found.append(measure(folder / name, load, material.new, 1.0))
            ratio = statistics.median(kept / flat for kept, flat in zip(rates["kept"], rates["flat"], strict=True))
            kept, flat = (f"{statistics.median(rates[name]):.0f} reads/s" for name in ("kept", "flat"))
            yield at_least(
                f"nbd-store {load.pattern} {load.depth}x{load.jobs}",
                f"an image in a chunk store, its chunks verified, over NBD, against a flat file: {load.name}",
                kept, flat, ratio, 0.7 if load.pattern == "read" else 0.5,
            )  # fmt: skip


def store_memory(material: Material, _runs: int) -> Iterator[Row]:
    """Peak resident memory of what works with stores, on an image of 1 GiB."""
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        zck, image = material.large_artifact, material.large
        url = f"{stack.enter_context(Served(zck.parent)).url}/{zck.name}"
        yield _peak("clone", run([REGRAFT, "clone", url, folder / "s/v", *_QUIET]).peak)
        yield _peak("clone, unchanged", run([REGRAFT, "clone", url, folder / "s/v", *_QUIET]).peak)
        yield _peak("store verify --full", run([REGRAFT, "store", "verify", folder / "s", "--full", *_QUIET]).peak)
        for name, what in (
            ("nbd STORE/NAME", [folder / "s/v"]),
            ("nbd URL --keep STORE/NAME", [url, "--keep", folder / "t/v"]),
        ):
            command = [str(part) for part in (REGRAFT, "nbd", *what, "--socket", folder / "socket", *_QUIET)]
            with nbd.running(command, folder / "socket") as process:
                for load in (nbd.LOADS[3], nbd.LOADS[2]):
                    nbd.measure_lean(folder / "socket", load, image, 4)
                end = time.monotonic() + 120
                while "--keep" in command and not (folder / "t/v.image").exists() and time.monotonic() < end:
                    time.sleep(0.2)
                peak = nbd.peak(process) * MIB
                process.send_signal(signal.SIGTERM)
            yield _peak(name, int(peak))


def _peak(name: str, peak: int) -> Row:
    return at_most(
        f"memory {name}", "peak memory, image of 1 GiB", f"{peak / MIB:.1f} MiB", "64 MiB", peak / (64 * MIB), 1
    )
