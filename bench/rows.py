# SPDX-License-Identifier: Apache-2.0
"""The rows: each measures ours and the peer's in one run and gives a ratio."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from material import LARGE, OUT, PYTHON, REGRAFT, Material, peer
from process import Failed, Ran, Series, interleaved, run
from served import Served

MIB = 1 << 20
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """A line of the table. `holds` None: no goal, or it could not be measured."""

    name: str
    what: str
    ours: str
    peers: str
    ratio: float | None = None
    goal: str = ""
    holds: bool | None = None


def at_least(name: str, what: str, ours: str, peers: str, ratio: float, goal: float) -> Row:
    return Row(name, what, ours, peers, ratio, f">= {goal:g}", ratio >= goal)


def at_most(name: str, what: str, ours: str, peers: str, ratio: float, goal: float) -> Row:
    return Row(name, what, ours, peers, ratio, f"<= {goal:g}", ratio <= goal)


def pack(material: Material, runs: int) -> Iterator[Row]:
    """`regraft pack zck` beside `zck -u`."""
    zck = peer("zck")
    with scratch() as folder:
        ours, theirs = folder / "ours.zck", folder / "theirs.zck"
        found = interleaved(
            runs,
            ours=lambda: run([REGRAFT, "pack", "zck", material.new, "-o", ours, "--progress", "none"]),
            peer=lambda: run([zck, "-u", "--chunk-hash-type", "sha256", material.new, "-o", theirs]),
        )
    yield at_least("pack", "pack an image, against zck -u", *_spreads(found), _speed_up(found), 1.8)


def index(material: Material, runs: int) -> Iterator[Row]:
    """Chunk and digest a seed: as a whole process, and one core beside its own SHA-256."""
    zck = peer("zck")
    child = [PYTHON, _HERE / "index.py", material.old]
    with scratch() as folder:
        theirs = folder / "theirs.zck"
        found = interleaved(
            runs,
            ours=lambda: run([*child, "whole"]),
            peer=lambda: run(
                [zck, "-u", "--compression-format=none", "--chunk-hash-type", "sha256", material.old, "-o", theirs]
            ),
        )
    yield at_least(
        "index", "index a seed, against zck -u --compression-format=none", *_spreads(found), _speed_up(found), 5
    )
    told = [json.loads(run([*child, "rates"]).output) for _ in range(runs)]
    told.sort(key=lambda rates: rates["index"] / rates["sha256"])
    middle = told[len(told) // 2]
    yield at_least(
        "index-core",
        "index on one core, beside SHA-256 on that core",
        f"{middle['index'] / 1e9:.2f} GB/s",
        f"{middle['sha256'] / 1e9:.2f} GB/s",
        middle["index"] / middle["sha256"],
        0.4,
    )
    yield Row("index-all", "index on all cores, in process", f"{middle['all'] / 1e9:.2f} GB/s", "")


def casync(material: Material, runs: int) -> Iterator[Row]:
    """casync's chunker: an index of the image, beside `casync make`.

    casync always has a store to fill: it is given one that has every chunk already, so that it compresses and writes
    none, but looks for each. Ours looks into the same store. Both also digest the whole image.
    """
    tool = peer("casync")
    with scratch() as folder:
        store, ours, theirs = folder / "full.castr", folder / "ours.caibx", folder / "theirs.caibx"
        their_command = [tool, "make", f"--store={store}", theirs, material.new]
        run(their_command)
        command = [REGRAFT, "pack", "caibx", material.new, "-o", ours, "--progress", "none"]
        found = interleaved(runs, ours=lambda: run([*command, "--store", store]), peer=lambda: run(their_command))
        if ours.read_bytes() != theirs.read_bytes():
            raise Failed("the two indexes differ")
    what = "chunk and digest an image, against casync make with a store that has every chunk"
    yield at_least("casync", what, *_spreads(found), _speed_up(found), 2)


def install(material: Material, runs: int) -> Iterator[Row]:
    """A delta install of the pair by us and by stock swupdate, from the same server."""
    swupdate = peer("swupdate")
    with scratch() as folder, Served(material.artifact.parent) as server:
        site = _Site(material, folder, server)
        wire: dict[str, list[int]] = {"ours": [], "peer": []}
        requests: dict[str, list[int]] = {"ours": [], "peer": []}

        def counted(name: str, way: Ran) -> Ran:
            asked, taken = server.taken()
            wire[name].append(taken)
            requests[name].append(asked)
            return way

        found = interleaved(
            runs,
            ours=lambda: counted("ours", site.regraft(material.old)),
            peer=lambda: counted("peer", site.swupdate(swupdate, material.old)),
        )
    yield at_most("install", "delta install of the pair, against swupdate", *_spreads(found), 1 / _speed_up(found), 0.5)
    yield at_most(
        "wire",
        "the same, bytes on the wire",
        f"{max(wire['ours']) / 1e6:.1f} MB, {max(requests['ours'])} requests",
        f"{min(wire['peer']) / 1e6:.1f} MB, {min(requests['peer'])} requests",
        max(wire["ours"]) / min(wire["peer"]),
        1,
    )


def kept(material: Material, runs: int) -> Iterator[Row]:
    """The same install with and without the index that our last install left beside the source."""
    with scratch() as folder, Served(material.artifact.parent) as server:
        site = _Site(material, folder, server)
        source, old = folder / "source", folder / "old.zck"
        run([REGRAFT, "pack", "zck", material.old, "-o", old])
        run([REGRAFT, "unpack", old, "-o", source])
        left = source.with_name("source.regraft.index")
        saved = left.read_bytes()

        def without() -> Ran:
            left.unlink(missing_ok=True)
            return site.regraft(source)

        def with_index() -> Ran:
            left.write_bytes(saved)
            return site.regraft(source)

        found = interleaved(runs, ours=with_index, peer=without)
    yield at_most("kept", "the same with the kept index, against without", *_spreads(found), 1 / _speed_up(found), 0.5)


def link(material: Material, runs: int) -> Iterator[Row]:
    """Requests over a link of 20 Mbit/s and 100 ms, beside the time that the bytes alone take."""
    for what, name in (("scattered", "300 scattered ranges"), ("chunks", "missing chunks of the pair, first 6 MB")):
        told = [
            json.loads(run([PYTHON, _HERE / "link.py", what, material.old, material.artifact]).output)
            for _ in range(min(runs, 3))
        ]
        told.sort(key=lambda one: one["seconds"])
        one = told[len(told) // 2]
        yield at_most(
            f"link-{what}",
            f"{name} at 20 Mbit/s and 100 ms, beside pure transfer"
            f" ({one['ranges']} ranges; one request each would take {one['single']:.1f} s)",
            f"{one['seconds']:.2f} s, {one['requests']} requests",
            f"{one['pure']:.2f} s",
            one["seconds"] / one["pure"],
            1.3,
        )


def merging(_material: Material, runs: int) -> Iterator[Row]:
    """Order a million blocks; merge in place beside dd of as many bytes that syncs as often."""
    child = [PYTHON, _HERE / "merge.py"]
    told = [json.loads(run([*child, "order", "1000000"]).output) for _ in range(runs)]
    best = min(told, key=lambda one: one["seconds"])
    yield at_most(
        "order", f"order 1 M blocks, permuted ({best['conversions']} converted)", f"{best['seconds']:.2f} s", "2 s",
        best["seconds"] / 2, 1,
    )  # fmt: skip
    yield at_most(
        "order-memory", "the same, memory", f"{best['memory'] / MIB:.0f} MiB", "64 MiB", best["memory"] / (64 * MIB), 1
    )
    dd, size = peer("dd"), 256 * MIB
    for kind, goal in (("direct", 1.3), ("journaled", 2.5)):
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(runs):
            with scratch() as folder:
                ours.append(json.loads(run([*child, kind, folder, str(size)]).output)["seconds"])
                source = folder / ("stored" if kind == "direct" else "base")
                target = folder / "copy"
                with target.open("wb") as file:
                    file.write(bytes(size))
                os.sync()
                command = [dd, f"if={source}", f"of={target}", "bs=8M", "oflag=dsync", "conv=notrunc"]
                theirs.append(run(command).wall)
        ratios = sorted(one / other for one, other in zip(ours, theirs, strict=True))
        yield at_most(
            f"merge-{kind}", f"merge 256 MiB, {kind}, without reading back, against dd with a sync per 8 MiB",
            f"{min(ours):.2f} s at best", f"{min(theirs):.2f} s at best", ratios[len(ratios) // 2], goal,
        )  # fmt: skip


def update_diff(material: Material, runs: int) -> Iterator[Row]:
    """A diff for dm-update: its time, beside what cannot be done without, and its size."""
    child = [PYTHON, _HERE / "update_diff.py"]
    old, new = material.old, material.new
    with scratch() as folder:
        found = interleaved(
            runs,
            ours=lambda: run([*child, "make", old, new, folder / "diff.img"]),
            peer=lambda: run([*child, "bound", old, new]),
        )
    told = {name: [json.loads(one.output) for one in series.runs] for name, series in found.items()}
    ours, theirs = (sorted(one["seconds"] for one in told[name]) for name in ("ours", "peer"))
    ratios = sorted(one["seconds"] / two["seconds"] for one, two in zip(told["ours"], told["peer"], strict=True))
    changed = told["peer"][0]["changed"]
    yield at_most(
        "update-diff",
        f"make a diff ({changed / MIB:.0f} MiB of changed blocks), against reading both images + zstd on all cores",
        f"{ours[0]:.2f} s at best", f"{theirs[0]:.2f} s at best", ratios[len(ratios) // 2], 1.3,
    )  # fmt: skip
    whole = json.loads(run([*child, "size", old, new]).output)["size"]
    size, chunked = told["ours"][0]["size"], told["peer"][0]["size"]
    yield at_most(
        "update-diff-size",
        "its size, level 19, against one zstd stream of the changed blocks"
        f" (chunks of 64 KiB, which see nothing of each other, cost {chunked / whole:.2f} whoever makes them)",
        f"{size / MIB:.2f} MiB", f"{whole / MIB:.2f} MiB", size / whole, 1.1,
    )  # fmt: skip


def view(_material: Material, runs: int) -> Iterator[Row]:
    """Reads of the new image while it is a diff over its base, and while it is merged."""
    told: list[dict[str, float]] = []
    for _ in range(runs):
        with scratch() as folder:
            told.append(json.loads(run([PYTHON, _HERE / "view.py", folder, str(256 * MIB)]).output))

    def compared(ours: str, theirs: str) -> tuple[str, str, float]:
        middle = sorted(told, key=lambda one: one[ours] / one[theirs])[len(told) // 2]
        return f"{1e6 * middle[ours]:.0f} us", f"{1e6 * middle[theirs]:.0f} us", middle[ours] / middle[theirs]

    ours, theirs, ratio = compared("view", "base")
    yield Row("view-unchanged", "128 MiB of unchanged areas, against the same reads of the base", ours, theirs, ratio)
    yield at_most(
        "view-changed", "4 KiB at random of changed areas, against decoding a unit", *compared("read", "unit"), 2
    )
    yield at_most(
        "view-merging",
        "slowest hundredth of reads during the merge, against before it",
        *compared("during", "before"),
        3,
    )


def memory(material: Material, _runs: int) -> Iterator[Row]:
    """Peak resident memory of every device command on an image of 1 GiB."""
    quiet = ["--progress", "none"]
    with scratch() as folder, Served(material.large_artifact.parent) as server:
        old, large, zck = material.large_old, material.large, material.large_artifact
        site = _Site(material, folder, server, zck=zck)
        out = folder / "unpacked"
        url = f"{server.url}/{zck.name}"
        commands: dict[str, list[str | Path]] = {
            "install": site.command(old),
            "install -n": [*site.command(old), "-n"],
            "plan --seed": [REGRAFT, "plan", url, "--seed", old, *quiet],
            "unpack FILE": [REGRAFT, "unpack", zck, "-o", out, *quiet],
            "unpack --seed URL": [REGRAFT, "unpack", url, "--seed", old, "-o", out, *quiet],
            "unpack to stdout": [REGRAFT, "unpack", zck, "-o", "-", *quiet],
            "inspect": [REGRAFT, "inspect", zck],
            "header": [REGRAFT, "header", zck, "-o", folder / "header"],
            "swu verify": [REGRAFT, "swu", "verify", site.whole(large), "-k", site.certificate],
            "swu inspect": [REGRAFT, "swu", "inspect", site.bundle],
            "install, raw": [*site.command(None), "-i", site.whole_bundle],
        }
        for name, command in commands.items():
            try:
                ran = run(command, stdout=Path("/dev/null"))
            except Failed as error:
                yield Row(f"memory {name}", "peak memory, image of 1 GiB", "failed", str(error))
                continue
            out.unlink(missing_ok=True)
            yield Row(
                f"memory {name}",
                "peak memory, image of 1 GiB",
                f"{ran.peak / MIB:.1f} MiB",
                "64 MiB",
                ran.peak / (64 * MIB),
                "<= 1",
                ran.peak <= 64 * MIB,
            )


ROWS = {
    "pack": pack,
    "index": index,
    "casync": casync,
    "install": install,
    "kept": kept,
    "link": link,
    "merge": merging,
    "update-diff": update_diff,
    "view": view,
    "memory": memory,
}


class _Site:
    """A signed bundle for the pair, a slot, and the two commands that install it there."""

    def __init__(self, material: Material, folder: Path, server: Served, zck: Path | None = None) -> None:
        self.slot, self.bundle = folder / "slot", folder / "update.swu"
        self.folder = folder
        self.certificate, key = material.keys()
        self._key, self.whole_bundle = key, folder / "whole.swu"
        zck = zck or material.artifact
        self._size = LARGE if zck == material.large_artifact else material.new.stat().st_size
        self._server = server
        self._building = [
            REGRAFT, "swu", "build", "--delta", zck, "--device", self.slot, "--url", f"{server.url}/{zck.name}",
            "--hardware", "1.0", "--version", "2.0", "--key", key, "--cert", self.certificate, "-o", self.bundle,
        ]  # fmt: skip
        self._source: Path | None = None

    def whole(self, image: Path) -> Path:
        """A bundle with the image itself in it."""
        description = self.folder / "sw-description"
        description.write_text(
            'software = { version = "2.0"; hardware-compatibility = [ "1.0" ];'
            f' images: ( {{ filename = "{image.name}"; device = "{self.slot}"; type = "raw"; }} ); }}\n'
        )
        run([
            REGRAFT, "swu", "build", "--description", description, "--file", image,
            "--key", self._key, "--cert", self.certificate, "-o", self.whole_bundle,
        ])  # fmt: skip
        return self.whole_bundle

    def _ready(self, source: Path | None) -> None:
        """A bundle that names `source` (None: it needs none), an empty slot, nobody's writes still on their way."""
        if source is not None and source != self._source:
            run([*self._building, "--source", source])
            self._source = source
        for left in self.folder.glob("slot*"):
            left.unlink()
        with self.slot.open("wb") as slot:
            slot.truncate(self._size)
        os.sync()
        if source is not None:
            forget(source)
        self._server.taken()

    def command(self, source: Path | None) -> list[str | Path]:
        self._ready(source)
        return [REGRAFT, "install", "-i", self.bundle, "-k", self.certificate, "-H", "board:1.0", "--progress", "none"]

    def regraft(self, source: Path) -> Ran:
        return run(self.command(source))

    def swupdate(self, tool: Path, source: Path) -> Ran:
        """Again when it says that it was successful and exits 1: it asks for its own state too early sometimes."""
        config = self.folder / "swupdate.cfg"
        config.write_text("globals : {};\n")
        command = [tool, "-k", self.certificate, "-H", "board:1.0", "-f", config, "-M", "-m", "-i", self.bundle]
        for _ in range(8):
            self._ready(source)
            with tempfile.TemporaryDirectory(prefix="swu") as sockets:  # whose paths must be short
                try:
                    return run([*command[:1], "-v", *command[1:]], environment={"TMPDIR": sockets})
                except Failed as error:
                    if "successful" not in str(error):
                        raise
        raise Failed("swupdate said that it was successful and exited 1, eight times")


def forget(path: Path) -> None:
    """Drop the file from the page cache: a device has not just read the slot that it is about to update from."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for results, on the same disk as the checkout."""
    OUT.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=OUT, prefix="run-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _spreads(found: dict[str, Series]) -> tuple[str, str]:
    return found["ours"].spread(), found["peer"].spread()


def _speed_up(found: dict[str, Series]) -> float:
    return found["peer"].wall / found["ours"].wall


def measure(names: list[str], material: Material, runs: int) -> Iterator[Row]:
    """The rows of the groups `names`; one that cannot be measured says why."""
    for name in names:
        try:
            yield from ROWS[name](material, runs)
        except Failed as error:
            print(f"{name}: {error}", file=sys.stderr)
            yield Row(name, str(error), "-", "-")
