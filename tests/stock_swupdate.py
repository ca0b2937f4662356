# SPDX-License-Identifier: Apache-2.0
"""Asks the real swupdate whether it takes a bundle: `swupdate -c`, in a folder of its own."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from swu_facts import archive
from tools import tool

#: swupdate's client can take an early "idle" for the end of the installation; such a run says nothing and is repeated
TRIES = 20
WORKERS = 6


def own_network() -> list[str]:
    """A prefix that gives a command a network of its own: swupdate's abstract sockets exist once in each."""
    for command in (["unshare", "-n"], ["unshare", "-rn"]):
        try:
            if subprocess.run([*command, "true"], capture_output=True, check=False, timeout=10).returncode == 0:
                return command
        except OSError:
            break
    return []


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """For a swupdate that needs this machine's loopback: in one network only one of them runs well at a time."""
    with open(Path(tempfile.gettempdir()) / "regraft-tests-swupdate.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Question:
    """A description, the artifacts it comes with, and how swupdate is called."""

    description: bytes
    artifacts: tuple[tuple[str, bytes], ...] = ()
    hardware: str = "b:1.0"
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    accepted: bool
    log: str

    def lines(self, function: str) -> list[str]:
        """What `function` of swupdate had to say."""
        mark = f"[{function}] : "
        return [line.partition(mark)[2] for line in self.log.splitlines() if mark in line]


class Stock:
    """swupdate with a key pair made for the occasion."""

    def __init__(self, folder: Path) -> None:
        self._swupdate, self._openssl = tool("swupdate"), tool("openssl")
        self._folder = folder
        self._alone = own_network()
        self._key, self._certificate = folder / "key.pem", folder / "certificate.pem"
        (folder / "swupdate.cfg").write_text("globals: { };\n")
        self._run_openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", self._key, "-out", self._certificate,
            "-days", "30", "-subj", "/CN=test", "-addext", "keyUsage=digitalSignature",
            "-addext", "extendedKeyUsage=emailProtection",
        )  # fmt: skip

    def _run_openssl(self, *arguments: str | Path) -> None:
        subprocess.run([self._openssl, *arguments], check=True, capture_output=True, timeout=60)

    def ask_all(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers in the order of the questions. swupdate sleeps a lot, so several run at once."""
        with ThreadPoolExecutor(WORKERS if self._alone else 1) as pool:
            return list(pool.map(self.ask, questions))

    def ask(self, question: Question) -> Answer:
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            folder = Path(name)
            (folder / "sw-description").write_bytes(question.description)
            self._run_openssl(
                "cms", "-sign", "-in", folder / "sw-description", "-out", folder / "signature", "-signer",
                self._certificate, "-inkey", self._key, "-outform", "DER", "-nosmimecap", "-binary",
            )  # fmt: skip
            signature = (folder / "signature").read_bytes()
            head = [("sw-description", question.description), ("sw-description.sig", signature)]
            (folder / "bundle.swu").write_bytes(archive([*head, *question.artifacts]))
            for number in range(TRIES):
                answer, log = self._try(folder, question, number)
                if answer is not None:
                    return Answer(answer, log)
                time.sleep(min(number, 4) / 4)  # another swupdate on this machine may have the socket
        raise AssertionError(f"swupdate gave no answer in {TRIES} tries: {question}\n{log}")

    def _try(self, folder: Path, question: Question, number: int) -> tuple[bool | None, str]:
        temporary = folder / f"try{number}"
        temporary.mkdir()
        hardware = ["-H", question.hardware] if question.hardware else []
        command = [
            *self._alone, self._swupdate, "-M", "-m", "-v", "-f", self._folder / "swupdate.cfg",
            "-k", self._certificate,
            *hardware, *question.options, "-c", "-i", folder / "bundle.swu",
        ]  # fmt: skip
        environment = {**os.environ, "TMPDIR": str(temporary)}
        run = subprocess.run(command, env=environment, capture_output=True, timeout=60, cwd=folder, check=False)
        log = (run.stdout + run.stderr).decode(errors="replace")
        gone = [line for line in log.splitlines() if "cannot" in line and str(temporary) in line]
        if any("include file" not in line for line in gone):
            return None, log  # its own temporary files were gone
        # what it logged counts: its exit status suffers from the same race
        if "SWUPDATE successful" in log:
            return True, log
        return (False if "Image invalid or corrupted" in log or "Installation failed" in log else None), log
