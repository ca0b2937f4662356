# SPDX-License-Identifier: Apache-2.0
"""`regraft doctor`: what is here, what is missing, and what to do about it. Looks, and changes nothing."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import ssl
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import click

import regraft
from regraft.cli._options import examples
from regraft.cli._output import emit_json

#: Distributions without which regraft does not work.
LIBRARIES = ("click", "cryptography", "rich", "urllib3", "zstandard")

#: Distributions of which a part of regraft has need, which part, and the cure.
OPTIONAL = (("brotli", "bita archives", "pip install 'regraft[bita]'"),)

#: Program, its Debian package, what it is good for. regraft itself runs none of them.
TOOLS = (
    ("zck", "zchunk", "conformance tests, comparison"),
    ("unzck", "zchunk", "conformance tests"),
    ("zck_read_header", "zchunk", "conformance tests"),
    ("zckdl", "zchunk", "conformance tests"),
    ("casync", "casync", "conformance tests, comparison"),
    ("swupdate", "swupdate", "conformance tests, comparison"),
    ("nginx", "nginx-light", "conformance tests"),
    ("openssl", "openssl", "conformance tests; making keys"),
    ("cpio", "cpio", "conformance tests"),
    ("zstd", "zstd", "conformance tests"),
    ("mkfs.ext4", "e2fsprogs", "making images"),
    ("mksquashfs", "squashfs-tools", "making images"),
    ("mkfs.erofs", "erofs-utils", "making images"),
    ("cargo", "rustup", "building the native kernels"),
)

#: Feature of the Linux kernel, the paths of which one shows it, what it is good for, what makes it appear.
FEATURES = (
    ("loop devices", ("/dev/loop-control",), "images as block devices", "modprobe loop"),
    ("network block devices", ("/dev/nbd0", "/sys/module/nbd"), "views as block devices", "modprobe nbd"),
    ("device-mapper", ("/dev/mapper/control",), "overlays, verity", "modprobe dm-mod"),
    ("dm-verity", ("/sys/module/dm_verity",), "verified views", "modprobe dm-verity"),
    ("FUSE", ("/dev/fuse",), "views as files", "modprobe fuse"),
)

#: Instructions that hashing and decoding profit from, as /proc/cpuinfo names them on x86 and ARM.
CPU_FEATURES = ("sha_ni", "sha1", "sha2", "sha512", "ssse3", "avx2", "avx512f", "asimd", "neon", "crc32", "aes")


@dataclass(frozen=True, slots=True)
class Item:
    """One thing looked for. `found` says what was found, empty if nothing."""

    name: str
    found: str
    purpose: str
    cure: str
    needed: bool = False


def libraries() -> list[Item]:
    """The Python packages that regraft needs, with their versions and those of the C libraries inside."""
    items = []
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
            found = metadata.version(name) + _inside(name)
        except (ImportError, metadata.PackageNotFoundError, AttributeError) as error:
            items.append(Item(name, "", f"cannot be used: {error}", f"pip install {name}", needed=True))
        else:
            items.append(Item(name, found, "", "", needed=True))
    for name, purpose, cure in OPTIONAL:
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = ""
        items.append(Item(name, found, purpose, cure))
    return items


def _inside(name: str) -> str:
    if name == "zstandard":
        import zstandard

        return f" (libzstd {'.'.join(map(str, zstandard.ZSTD_VERSION))})"
    if name == "cryptography":
        from cryptography.hazmat.backends.openssl import backend

        return f" ({backend.openssl_version_text()})"
    return ""


def tools() -> list[Item]:
    """The programs on the path, none of which regraft needs."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    return [
        Item(name, shutil.which(name, path=path) or "", purpose, _package_cure(package))
        for name, package, purpose in TOOLS
    ]


def _package_cure(package: str) -> str:
    if package == "rustup":
        return "install a Rust toolchain from https://rustup.rs, then: make native"
    return f"on Debian and Ubuntu: apt-get install {package}"


def features(root: Path = Path("/")) -> list[Item]:
    """What this kernel offers, seen from here: in a container a device may be missing that the host has."""
    items = []
    for name, paths, purpose, cure in FEATURES:
        seen = [path for path in paths if os.path.exists(root / path.lstrip("/"))]
        items.append(Item(name, seen[0] if seen else "", purpose, f"as root: {cure}"))
    return items


def cpu_features(cpuinfo: str) -> list[str]:
    """Those of `CPU_FEATURES` that the text of /proc/cpuinfo lists for the first processor."""
    for line in cpuinfo.splitlines():
        key, _colon, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            words = set(value.split())
            return [name for name in CPU_FEATURES if name in words]
    return []


def kernels() -> dict[str, Any]:
    """Which kernels are active, and as what they were built."""
    from regraft.kernels import build_info

    return build_info()


def examine() -> dict[str, Any]:
    """All of it, as the JSON object has it."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        cpuinfo = ""
    active = kernels()
    groups = {"libraries": libraries(), "tools": tools(), "features": features()}
    missing = [
        {"what": item.name, "needed": item.needed, "purpose": item.purpose, "cure": item.cure}
        for group in groups.values()
        for item in group
        if not item.found
    ]
    if active["kernels"] != "native":
        cure = "install a Rust toolchain from https://rustup.rs, then: make native (or: pip install ./native)"
        purpose = f"chunking some 20 times as fast on each core ({active['reason']})"
        missing.insert(0, {"what": "native kernels", "needed": False, "purpose": purpose, "cure": cure})
    return {
        "version": regraft.__version__,
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "executable": sys.executable,
            "openssl": ssl.OPENSSL_VERSION,
        },
        "system": {
            "kernel": f"{platform.system()} {platform.release()}",
            "machine": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "cpu_features": cpu_features(cpuinfo),
        },
        "kernels": active,
        **{name: [asdict(item) for item in group] for name, group in groups.items()},
        "missing": missing,
    }


def render(report: dict[str, Any]) -> str:
    """The report for a person."""
    python, system, active = report["python"], report["system"], report["kernels"]
    details = ", ".join(f"{active[key]}" for key in ("version", "profile", "target") if key in active)
    lines = [
        f"regraft {report['version']}",
        _line("Python", f"{python['version']} ({python['implementation']}), {python['executable']}"),
        _line("hashlib", python["openssl"]),
        _line("system", f"{system['kernel']}, {system['machine']}, {system['cores']} cores"),
        _line("processor", " ".join(system["cpu_features"]) or "no feature known that speeds up hashing"),
        _line("kernels", f"{active['kernels']}: {active['reason']}" + (f" ({details})" if details else "")),
    ]
    for name in ("libraries", "tools", "features"):
        lines += ["", name]
        lines += [_line(item["name"], item["found"] or f"- ({item['purpose']})") for item in report[name]]
    lines += ["", "missing"]
    for row in report["missing"]:
        what = f"  {row['what']}{'' if row['needed'] else ' (optional)'}: {row['purpose']}"
        lines += [what, f"    cure: {row['cure']}"]
    if not report["missing"]:
        lines.append("  nothing")
    return "\n".join(lines)


def _line(name: str, value: str) -> str:
    return f"  {name:22} {value}"


@click.command(
    short_help="What is here, what is missing, and the cure.",
    epilog=examples("regraft doctor", "regraft doctor --json | jq .missing"),
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> None:
    """Show which kernels are active, the versions of Python and of the libraries, which tools, kernel features and
    processor features there are, what is missing, and the cure.

    Programs are looked for and not run, nothing is changed, and the exit status is 0 whatever is missing.
    """
    report = examine()
    if as_json:
        emit_json("doctor", report)
    else:
        click.echo(render(report))
