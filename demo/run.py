# SPDX-License-Identifier: Apache-2.0
"""One delta update from end to end: two images, an artifact, a signed bundle, a server, a slow link, a device.

Everything is done by the installed `regraft`; this only makes keys, calls it, checks what it did and draws the report.
Ends with 0 only if every image came out right. Leaves all of it in demo/out, to look around.

REGRAFT_CORPUS: folder with the pair of images, or where to put it. REGRAFT_SHARED: where `corpus/make_corpus` is.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path

import imagepair
import keys
import svg
from program import Program, StepError
from results import BANDWIDTH, ROUND_TRIP, Killed, Results, duration, size
from terminal import Teller, console

from regraft.testing.link import DelayedLink

OUT = Path(__file__).resolve().parent / "out"
#: At most one request's answer may be lost by a kill.
REQUEST = 8 << 20


def main() -> int:
    begin = time.monotonic()
    OUT.mkdir(parents=True, exist_ok=True)
    teller = Teller(console(), OUT)
    teller.title("regraft: one delta update, from end to end")
    try:
        results = demo(teller)
    except (StepError, imagepair.ImagesError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    teller.report(results)
    drawn = OUT / "report.svg"
    drawn.write_text(svg.draw(results), encoding="utf-8")
    (OUT / "report.json").write_text(json.dumps(asdict(results), indent=2) + "\n", encoding="utf-8")
    teller.title("Done")
    teller.found(
        f"{duration(time.monotonic() - begin)} in all. The picture: {_short(drawn)}, the figures: report.json beside it"
    )
    program = _short(Path(sys.executable).with_name("regraft"))
    teller.found(f"Look around: {program} swu inspect {_short(OUT / 'update.swu')} -k {_short(OUT / 'cert.pem')}")
    teller.screen.print()
    return 0


def demo(teller: Teller) -> Results:
    """All steps. Raises StepError if one of them fails or an image is not right."""
    teller.step("Two images, old and new")
    pair = imagepair.obtain(Path(os.environ.get("REGRAFT_CORPUS") or OUT / "corpus"), teller.found)
    total = pair.new.stat().st_size
    teller.found(f"{pair.story}, {size(total)}")
    if pair.note:
        teller.found(f"not the corpus: {pair.note}")
    for name, image in (("old.img", pair.old), ("new.img", pair.new)):
        (OUT / name).unlink(missing_ok=True)
        (OUT / name).symlink_to(image.resolve())
    shutil.rmtree(OUT / "site", ignore_errors=True)
    (OUT / "site").mkdir()
    slot = OUT / "slot-b.img"
    _empty(slot, total)
    keys.make(OUT / "key.pem", OUT / "cert.pem")
    program = Program(OUT)
    kernels = program.run("doctor", "--json").json["kernels"]["kernels"]

    teller.step("Pack the new image: this is uploaded once, and serves devices on whatever old release")
    packing = ("pack", "zck", "new.img", "-o", "site/rootfs.zck")
    teller.command(*packing)
    packed = program.run(*packing, "--json", live=True)
    facts = packed.json
    teller.found(f"{facts['chunks']} chunks, {size(total)} in {size(facts['size'])}, {duration(packed.seconds)}")
    looking = ("inspect", "site/rootfs.zck", "--json")
    if program.run(*looking).json["image_size"] != total:
        raise StepError("the artifact is not of this image")
    heading = ("header", "site/rootfs.zck", "-o", "rootfs.zck.header")
    teller.command(*heading)
    teller.found(program.run(*heading).words)

    with (
        program.serving("site") as port,
        DelayedLink("127.0.0.1", port, round_trip=ROUND_TRIP, bandwidth=BANDWIDTH) as link,
    ):
        teller.step("Build the bundle: the header, what to do with it, and a signature")
        building = (
            "swu", "build", "--delta", "site/rootfs.zck", "--device", str(slot), "--source", str(OUT / "old.img"),
            "--url", f"{link.url}/rootfs.zck", "--hardware", "1.0", "--version", "2.0.0",
            "--key", "key.pem", "--cert", "cert.pem", "-o", "update.swu",
        )  # fmt: skip
        teller.command(*building)
        teller.found(program.run(*building).words)
        for checking in (("swu", "lint", "update.swu"), ("swu", "verify", "update.swu", "-k", "cert.pem")):
            teller.command(*checking)
            teller.found(program.run(*checking).words)

        installing = ("install", "-i", "update.swu", "-k", "cert.pem", "-H", "demo:1.0")
        teller.step("Ask the device what it would cost, behind a link of 20 Mbit/s and 100 ms")
        teller.command(*installing, "-n")
        forecast = program.run(*installing, "-n", "--json").json["entries"][0]["cost"]
        teller.found(
            f"{size(forecast['transfer'])} in {forecast['requests']} requests, {duration(forecast['seconds'])};"
            f" {size(forecast['reused'])} from the old slot, {size(forecast['zeros'])} zeros"
        )

        teller.step("Install: from the old slot and the network into the spare slot")
        teller.command(*installing)
        before = link.received
        installed = program.run(*installing, "--json", live=True)
        wire = link.received - before
        entry = installed.json["entries"][0]
        teller.found(
            f"{size(entry['wire'])} in {entry['requests']} requests, {size(entry['from_seeds'])} from the old slot,"
            f" {duration(installed.seconds)}"
        )
        _same(slot, pair.new, teller)

        teller.step("The same once more: the kept index knows what lies in the slot, and the slot is verified again")
        teller.command(*installing)
        before = link.received
        again = program.run(*installing, "--json")
        again_wire = link.received - before
        teller.found(f"{size(again_wire)} over the network, {duration(again.seconds)}")
        if again_wire:
            raise StepError("an update that is already there moved bytes")
        _same(slot, pair.new, teller)

        teller.step("An empty slot again, SIGKILL half-way, and the same command once more")
        killed = _interrupt(program, teller, link, installing, slot, pair.new, entry, wire)

    return Results(
        story=pair.story,
        note=pair.note,
        image=total,
        artifact=facts["size"],
        bundle=(OUT / "update.swu").stat().st_size,
        chunks=facts["chunks"],
        pack_seconds=packed.seconds,
        forecast=forecast,
        install=entry,
        install_seconds=installed.seconds,
        memory=installed.memory,
        again_wire=again_wire,
        again_seconds=again.seconds,
        killed=killed,
        kernels=kernels,
    )


def _interrupt(
    program: Program,
    teller: Teller,
    link: DelayedLink,
    installing: tuple[str, ...],
    slot: Path,
    new: Path,
    undisturbed: dict[str, int],
    wire: int,
) -> Killed:
    """Kill an installation, run it again, and compare with the undisturbed one."""
    for share in (0.5, 0.3, 0.1):
        _empty(slot, new.stat().st_size)
        teller.command(*installing)
        before = link.received
        reached = program.kill_when(*installing, fetched=int(share * undisturbed["from_network"]))
        if reached is not None:
            break
        teller.found("it was done before it could be killed; earlier this time")
    else:
        raise StepError("the installation could not be interrupted: it was always done before")
    time.sleep(3 * ROUND_TRIP)  # what was on its way when it died has left the link
    first = link.received - before
    teller.found(f"killed: {size(first)} had passed the link")
    teller.command(*installing)
    before = link.received
    second = program.run(*installing, "--json", live=True)
    entry = second.json["entries"][0]
    more = link.received - before
    teller.found(
        f"it continues: {size(entry['in_place'])} of the image found in place, {size(more)} fetched,"
        f" {duration(second.seconds)}"
    )
    _same(slot, new, teller)
    if not entry["resumed"]:
        raise StepError("the second run did not continue the first one")
    extra = first + more - wire
    if extra > REQUEST:
        raise StepError(f"the two runs moved {size(extra)} more than an undisturbed one")
    teller.right(f"{size(first)} + {size(more)} over the link, undisturbed it was {size(wire)}")
    return Killed(first, more, entry)


def _empty(slot: Path, length: int) -> None:
    """A spare slot that was never written: a sparse file. Without the state of earlier updates."""
    for leftover in slot.parent.glob(slot.name + "*"):
        leftover.unlink()
    with slot.open("wb") as file:
        file.truncate(length)


def _same(slot: Path, new: Path, teller: Teller) -> None:
    """Compare byte by byte, in pieces."""
    if slot.stat().st_size != new.stat().st_size:
        raise StepError(f"{slot.name} has another size than the new image")
    with slot.open("rb") as left, new.open("rb") as right:
        offset = 0
        while piece := left.read(1 << 20):
            if piece != right.read(1 << 20):
                raise StepError(f"{slot.name} differs from the new image within the MiB at byte {offset}")
            offset += len(piece)
    teller.right("the slot is the new image, byte for byte")


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(main())
