# SPDX-License-Identifier: Apache-2.0
"""`regraft nbd` against `nbdkit file` and `qemu-nbd`: the same flat file, the same client, in turns.

The client is fio with libnbd, which takes more of the processor than most servers do, and then a lean one of our own
(simple replies only, a sliding window), which shows more of the servers.

Every server gets its turn in each round, so that a busy machine is unfair to all alike. Printed are the best round of
each server, the ratio of the bests, and the median of the ratios within a round, ours to theirs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

MIB = 1 << 20
OURS = "regraft"


@dataclass(frozen=True)
class Load:
    name: str
    pattern: str
    block: str
    depth: int
    jobs: int = 1


LOADS = (
    Load("4 KiB random, QD1", "randread", "4k", 1),
    Load("4 KiB random, QD32", "randread", "4k", 32),
    Load("128 KiB sequential, QD4", "read", "128k", 4),
    Load("4 connections, 4 KiB random, QD8", "randread", "4k", 8, 4),
)


def commands(folder: Path, image: Path) -> dict[str, list[str]]:
    """How to start each server that is here, by name; each listens on a socket of its name."""
    program = shutil.which("qemu-nbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    nbdkit = shutil.which("nbdkit", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    found = {OURS: [sys.executable, "-m", "regraft.cli", "nbd", str(image), "--socket", str(folder / OURS)]}
    if nbdkit:
        found["nbdkit"] = [nbdkit, "-f", "-r", "-U", str(folder / "nbdkit"), "file", str(image)]
    if program:
        found["qemu-nbd"] = [program, "-r", "-t", "-e", "16", "-f", "raw", "-k", str(folder / "qemu-nbd"), str(image)]
    return found


@contextmanager
def running(command: list[str], path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not path.exists():
            if process.poll() is not None:
                sys.exit(f"{command[0]} ended with status {process.returncode}")
            time.sleep(0.05)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(10)


def measure(path: Path, load: Load, image: Path, seconds: float) -> float:
    """Requests per second."""
    command = ["fio", "--name=load", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={path}", f"--rw={load.pattern}"]
    command += [f"--bs={load.block}", f"--iodepth={load.depth}", f"--numjobs={load.jobs}", "--group_reporting"]
    command += ["--time_based", f"--runtime={seconds}", f"--size={image.stat().st_size}", "--readonly", "--thread=0"]
    command += ["--norandommap", "--randrepeat=0", "--output-format=json"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (job,) = json.loads(out[out.index("{") :])["jobs"]
    if job["error"]:
        sys.exit(f"fio reports error {job['error']}")
    return float(job["read"]["iops"])


def pipeline(path: Path, load: Load, image: Path, seconds: float, out: Connection) -> None:
    """One connection of the lean client: keeps `depth` reads in flight; how many are answered in a second."""
    length = {"4k": 4096, "128k": 131_072}[load.block]
    blocks = image.stat().st_size // length
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(path))
        stream = line.makefile("rb")
        stream.read(18)
        line.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">IIIH", 7, 6, 0, 0))
        while True:
            _, _, reply, size = struct.unpack(">QIII", stream.read(20))
            stream.read(size)
            if reply == 1:
                break
        random, row = Random(1), 0
        buffer = bytearray(max(1 << 18, 4 * (length + 16)))
        answered = partial = 0
        wanted = load.depth
        start = time.perf_counter()
        while (now := time.perf_counter()) < start + seconds:
            requests = []
            for _ in range(wanted):
                at = random.randrange(blocks) if load.pattern == "randread" else row % blocks
                requests.append(struct.pack(">IHHQQI", 0x25609513, 0, 0, row, at * length, length))
                row += 1
            line.sendall(b"".join(requests))
            wanted = 0
            while not wanted:
                partial += line.recv_into(buffer)
                wanted, partial = divmod(partial, length + 16)
            answered += wanted
        out.send(answered / (now - start))
        # To the end: nbdkit does not survive clients that just go away.
        left = (load.depth - wanted) * (length + 16) - partial
        while left > 0:
            left -= line.recv_into(buffer)
        line.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 2, 0, 0, 0))


def measure_lean(path: Path, load: Load, image: Path, seconds: float) -> float:
    """Requests per second of all connections, each in a process of its own."""
    pipes, processes = [], []
    for _ in range(load.jobs):
        ours, theirs = Pipe(duplex=False)
        processes.append(Process(target=pipeline, args=(path, load, image, seconds, theirs)))
        processes[-1].start()
        theirs.close()
        pipes.append(ours)
    total = sum(pipe.recv() for pipe in pipes)
    for process in processes:
        process.join()
    return float(total)


def peak(process: subprocess.Popen[bytes]) -> float:
    """MiB of memory the process had at most."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def report(results: dict[str, dict[str, list[float]]]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for load, by_server in results.items():
        ours = by_server[OURS]
        for server, rates in by_server.items():
            ratios = [mine / theirs for mine, theirs in zip(ours, rates, strict=True)]
            rows.append(
                {
                    "load": load,
                    "server": server,
                    "best": round(max(rates)),
                    "ratio of bests": round(max(ours) / max(rates), 2),
                    "median ratio": round(statistics.median(ratios), 2),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="per server, load and round")
    parser.add_argument("--size", type=int, default=256, help="MiB of the image")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    clients = {"fio": measure, "lean": measure_lean}
    if not shutil.which("fio"):
        print("fio is missing (apt-get install fio): only the lean client", file=sys.stderr)
        del clients["fio"]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        image = folder / "image"
        with image.open("wb") as file:
            for _ in range(arguments.size):
                file.write(os.urandom(MIB))
        servers = commands(folder, image)
        processes = {
            server: stack.enter_context(running(command, folder / server)) for server, command in servers.items()
        }
        results: dict[str, dict[str, list[float]]] = {
            f"{client}: {load.name}": {server: [] for server in servers} for client in clients for load in LOADS
        }
        for turn in range(arguments.rounds):
            order = list(servers)[turn % len(servers) :] + list(servers)[: turn % len(servers)]
            for client, measured in clients.items():
                for load in LOADS:
                    for server in order:
                        rate = measured(folder / server, load, image, arguments.seconds)
                        results[f"{client}: {load.name}"][server].append(rate)
        memory = {server: round(peak(process), 1) for server, process in processes.items()}
    rows = report(results)
    if arguments.json:
        print(json.dumps({"rows": rows, "peak MiB": memory}, indent=2))
        return
    for row in rows:
        print(
            "{load:40} {server:9} {best:9} /s   ours is {ratio of bests:5} x, median {median ratio:5} x".format(**row)
        )
    print("peak memory:", ", ".join(f"{server} {mib} MiB" for server, mib in memory.items()))


if __name__ == "__main__":
    main()
