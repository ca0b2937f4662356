# SPDX-License-Identifier: Apache-2.0
"""The device's root: the Python that runs the tests and what regraft depends on; and, apart from it, regraft itself.

Both are squashfs images without compression: emulated processors are slow, disks are not.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from tools import missing, tool

from lab import cache
from lab.kernel import Kernel

#: Large parts of Python and of the dependencies that no device command imports.
UNUSED = {
    "test", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data", "distutils", "unittest",
    "site-packages", "dist-packages", "__pycache__", "pygments", "pycparser", "tests",
}  # fmt: skip
APPLETS = [
    "sh", "mount", "umount", "ip", "cat", "dd", "ls", "ps", "kill", "sleep", "sync", "dmesg", "losetup", "blockdev",
    "mkdir", "rm", "cp", "sha256sum", "hexdump",
]  # fmt: skip
#: Where the standard library lies, below the root.
STANDARD = f"usr/lib/python{sys.version_info.major}.{sys.version_info.minor}"
SOURCES = Path(__file__).parent


def base(kernel: Kernel, modules: list[Path]) -> Path:
    """The image with everything but regraft; `modules` lie in /lib/modules with their order."""
    packages = dependencies("regraft")
    key = cache.key(
        [
            Path(__file__),
            sys.version,
            kernel.name,
            *(module.name for module in modules),
            *sorted(f"{package.metadata['Name']} {package.version}" for package in packages),
        ]
    )

    def build(scratch: Path, image: Path) -> None:
        tree = scratch / "tree"
        _system(tree)
        _modules(tree, modules)
        _python(tree)
        site = tree / "usr/lib/dependencies"
        for package in packages:
            _package(package, site)
        _libraries(tree)
        compile_tree(tree / STANDARD, "/" + STANDARD, keep_sources=False)
        compile_tree(site, "/usr/lib/dependencies", keep_sources=False)
        squash(tree, image)

    return cache.built(f"base-{key}", ".squashfs", build)


def package(source: Path) -> Path:
    """The image with regraft from `source` (the folder src), its native kernels if they are here, and the agent."""
    files = sorted(path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    guest = [SOURCES / "__init__.py", SOURCES / "agent.py", SOURCES / "inside.py"]
    try:
        native = [metadata.distribution("regraft-native")]
    except metadata.PackageNotFoundError:
        native = []
    binaries = [
        Path(str(part.locate_file(file))) for part in native for file in part.files or () if file.suffix == ".so"
    ]
    names = [str(path.relative_to(source)) for path in files]
    key = cache.key([Path(__file__), sys.version, *names, *files, *guest, *binaries])

    def build(scratch: Path, image: Path) -> None:
        tree = scratch / "tree"
        for path in files:
            _copy(path, tree / path.relative_to(source))
        for part in native:
            _package(part, tree)
        for path in guest[1:]:
            _copy(path, tree / "lab" / path.name)
        (tree / "lab/__init__.py").write_text("")
        compile_tree(tree, "/usr/lib/regraft", keep_sources=True)
        squash(tree, image)

    return cache.built(f"package-{key}", ".squashfs", build)


def dependencies(name: str) -> list[metadata.Distribution]:
    """The distributions that an installation of `name` without extras needs, without itself."""
    found: dict[str, metadata.Distribution] = {}
    wanted = [name]
    while wanted:
        distribution = metadata.distribution(wanted.pop())
        for text in distribution.requires or ():
            need = Requirement(text)
            plain = re.sub(r"[-_.]+", "-", need.name).lower()
            if (
                plain not in found
                and plain not in UNUSED
                and (need.marker is None or need.marker.evaluate({"extra": ""}))
            ):
                found[plain] = metadata.distribution(plain)
                wanted.append(plain)
    return list(found.values())


def compile_tree(tree: Path, where: str, *, keep_sources: bool) -> None:
    """Byte code that is never compared with its source: looking costs more than it is worth on a read-only root."""
    layout = [] if keep_sources else ["-b"]
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", "-j", "2", *layout, "--invalidation-mode", "unchecked-hash",
         "-s", str(tree), "-p", where, str(tree)],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if not keep_sources:
        for path in tree.rglob("*.py"):
            path.unlink()


def squash(tree: Path, image: Path) -> None:
    """A squashfs image without compression, all files root's."""
    plain = ["-noI", "-noD", "-noF", "-noX", "-all-root", "-no-progress", "-quiet"]
    subprocess.run([tool("mksquashfs"), str(tree), str(image), *plain], check=True, capture_output=True)


def busybox() -> Path:
    """The static busybox: it runs before there are libraries."""
    path = Path(tool("busybox"))
    listed = subprocess.run(["ldd", str(path)], capture_output=True, check=False)
    return missing("busybox-static") if listed.returncode == 0 else path


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _system(tree: Path) -> None:
    for name in ("dev", "proc", "sys", "tmp", "run", "mnt", "var", "root", "etc", "bin", "lib64", "usr/lib/regraft"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    _copy(busybox(), tree / "bin/busybox")
    for applet in APPLETS:
        (tree / "bin" / applet).symlink_to("busybox")
    for name in ("nbd-client",):
        _copy(Path(tool(name)), tree / "bin" / name)
    (tree / "sbin").symlink_to("bin")
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n10.0.2.2 host\n")
    regraft = tree / "usr/bin/regraft"
    regraft.parent.mkdir(parents=True)
    regraft.write_text("#!/usr/bin/python3\nfrom regraft.cli import main\nmain()\n")
    regraft.chmod(0o755)


def _modules(tree: Path, modules: list[Path]) -> None:
    for module in modules:
        _copy(module, tree / "lib/modules" / module.name)
    (tree / "lib/modules/order").write_text("\n".join(module.name for module in modules))


def _python(tree: Path) -> None:
    _copy(Path(sys.executable).resolve(), tree / "usr/bin/python3")
    library = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(
        library,
        tree / STANDARD,
        ignore=lambda _, names: [name for name in names if name in UNUSED or name.startswith("config-")],
    )


def _package(package: metadata.Distribution, site: Path) -> None:
    for file in package.files or ():
        if ".." not in file.parts and not UNUSED.intersection(file.parts) and file.suffix != ".pyc":
            source = Path(str(package.locate_file(file)))
            if source.is_file():
                _copy(source, site / file)


def _libraries(tree: Path) -> None:
    """Copy the shared libraries that programs and extension modules need, as the loader of this machine finds them."""
    programs = [*(tree / "usr/bin").iterdir(), *(tree / "bin").iterdir(), *tree.rglob("*.so")]
    for program in programs:
        if program.is_symlink() or program.read_bytes()[:4] != b"\x7fELF":
            continue
        original = Path(sys.executable).resolve() if program.name == "python3" else program
        listed = subprocess.run(["ldd", str(original)], capture_output=True, text=True, check=False).stdout
        for path in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", listed, re.MULTILINE):
            folder = "lib64" if Path(path).name.startswith("ld-linux") else "lib"
            target = tree / folder / Path(path).name
            if not target.exists():
                _copy(Path(path).resolve(), target)
