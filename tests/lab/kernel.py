# SPDX-License-Identifier: Apache-2.0
"""Debian's 6.1 cloud kernel, downloaded by apt and unpacked into the cache: nothing is installed.

QEMU without KVM boots this series dependably; 6.12 and the microvm machine it does not.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from lab import cache

META = "linux-image-cloud-amd64"
#: What a device needs to reach its root file system and to speak with us.
EARLY = ("virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "squashfs")
#: What tests mount and attach. The kernel's own dependencies follow by themselves.
LATE = ("virtio_net", "nbd", "loop", "dm-mod", "dm-verity", "dm-log-writes", "erofs", "overlay", "fuse")
TRIES = 4


class NoKernelError(Exception):
    """No kernel can be had: no apt, no network, not this architecture."""


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package."""

    name: str
    image: Path
    modules: Path

    def load_order(self, wanted: tuple[str, ...]) -> list[Path]:
        """The files of the modules and of all they depend on, each behind its dependencies.

        Raises LookupError for a module that is neither a file nor built in.
        """
        files = {file.name.removesuffix(".ko").replace("-", "_"): file for file in self.modules.rglob("*.ko")}
        inside = {
            Path(line).stem.replace("-", "_") for line in (self.modules / "modules.builtin").read_text().splitlines()
        }
        order: dict[str, Path] = {}

        def add(name: str, path: tuple[str, ...] = ()) -> None:
            name = name.replace("-", "_")
            if name in order or name in inside:
                return
            if name not in files or name in path:
                raise LookupError(f"module {name} (for {path}) is not in {self.modules}")
            for other in depends(files[name].read_bytes()):
                add(other, (*path, name))
            order[name] = files[name]

        for name in wanted:
            add(name)
        return list(order.values())


def depends(module: bytes) -> list[str]:
    """The names in a module's `depends=`: its direct dependencies."""
    fields = dict(part.split(b"=", 1) for part in section(module, b".modinfo").split(b"\0") if b"=" in part)
    return [name.decode() for name in fields.get(b"depends", b"").split(b",") if name]


def section(elf: bytes, name: bytes) -> bytes:
    """A section of a 64-bit little-endian ELF file, as elf(5) lays it out."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + row * size) for row in range(count)]
    _, _, _, _, start, length = headers[names]
    strings = elf[start : start + length]
    for name_at, _, _, _, start, length in headers:
        if strings[name_at : strings.index(b"\0", name_at)] == name:
            return elf[start : start + length]
    raise LookupError(f"no section {name.decode()}")


def obtain() -> Kernel:
    """The newest kernel that apt knows; without apt's lists the newest one in the cache.

    Raises NoKernelError.
    """
    try:
        package = _newest()
    except NoKernelError:
        kept = sorted(cache.folder().glob("linux-image-*"), key=lambda path: path.stat().st_mtime)
        if not kept:
            raise
        return _unpacked(kept[-1])
    return _unpacked(cache.built_folder(package, lambda folder: _download(package, folder)))


def _unpacked(folder: Path) -> Kernel:
    (image,) = folder.glob("boot/vmlinuz-*")
    (modules,) = folder.glob("lib/modules/*")
    return Kernel(modules.name, image, modules)


def _newest() -> str:
    for program in ("apt-cache", "apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise NoKernelError(f"{program} is missing: only Debian's kernels are known to boot")
    listed = subprocess.run(["apt-cache", "depends", META], capture_output=True, text=True, check=False)
    found = re.search(r"Depends: (linux-image-6\.1\.[\w.-]+-cloud-amd64)\b", listed.stdout)
    if found is None:
        raise NoKernelError(f"apt knows no 6.1 kernel as {META} (Debian 12 has it)")
    return found[1]


def _download(package: str, folder: Path) -> None:
    scratch = folder / "download"
    scratch.mkdir()
    for again in range(TRIES):
        time.sleep(5 * again)
        done = subprocess.run(
            ["apt-get", "download", package], cwd=scratch, capture_output=True, text=True, check=False, timeout=120
        )
        if done.returncode == 0:
            break
    else:
        raise NoKernelError(f"apt-get download {package}: {done.stderr.strip()}")
    (archive,) = scratch.glob("*.deb")
    subprocess.run(["dpkg", "-x", str(archive), str(folder)], check=True)
    shutil.rmtree(scratch)
