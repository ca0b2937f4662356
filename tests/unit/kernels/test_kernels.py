# SPDX-License-Identifier: Apache-2.0
"""What the public functions take, give and refuse, and how the implementation is chosen."""

from __future__ import annotations

import hashlib
import mmap
import os
import subprocess
import sys
from array import array
from typing import Any

import pytest
from tools import native_kernels

from regraft import kernels

DATA = bytes(range(256)) * 600


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def test_the_open_chunk_is_returned_only_at_the_end() -> None:
    zeros = bytes(131072)
    assert kernels.zck_cuts(zeros, final=False) == array("I")
    assert kernels.zck_cuts(zeros, final=True) == array("I", [131072])
    assert kernels.zck_cuts(zeros + b"\0", final=False) == array("I", [131072])
    assert kernels.zck_cuts(b"", final=True) == array("I")


def test_an_index_has_a_digest_per_chunk() -> None:
    lengths, digests = kernels.zck_index(DATA, final=True, algorithm="sha512_128")
    assert list(lengths) == [131072, 22528]
    assert digests == hashlib.sha512(DATA[:131072]).digest()[:16] + hashlib.sha512(DATA[131072:]).digest()[:16]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(data).cast("I")])
def test_every_kind_of_buffer_will_do(kind: Any) -> None:
    lengths = array("I", [3, 5])
    assert kernels.digest_ranges(kind(DATA), lengths, algorithm="sha1") == (
        hashlib.sha1(DATA[:3]).digest() + hashlib.sha1(DATA[3:8]).digest()
    )
    assert sum(kernels.zck_cuts(kind(DATA), final=True)) == len(DATA)


def test_a_mapped_file_is_not_copied(tmp_path: Any) -> None:
    path = tmp_path / "image"
    path.write_bytes(DATA)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = memoryview(mapped)
        assert kernels.zck_index(view, final=True, algorithm="sha256") == kernels.zck_index(
            DATA, final=True, algorithm="sha256"
        )
        view.release()


def test_what_is_no_buffer_or_not_contiguous_is_refused() -> None:
    with pytest.raises(TypeError):
        kernels.zck_cuts(memoryview(DATA)[::2], final=True)
    with pytest.raises(TypeError):
        kernels.zck_cuts("text", final=True)  # type: ignore[arg-type]


def test_runs_of_data_end_with_the_data() -> None:
    assert kernels.data_runs(bytes(4096) + b"x" * 5000, 4096) == array("Q", [4096, 9096])


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="md5"):
        kernels.zck_index(DATA, final=True, algorithm="md5")
    with pytest.raises(ValueError, match="md5"):
        kernels.digest_ranges(DATA, array("I"), algorithm="md5")
    with pytest.raises(ValueError, match="end behind"):
        kernels.digest_ranges(b"abc", array("I", [2, 2]), algorithm="sha256")
    with pytest.raises(ValueError, match="block"):
        kernels.data_runs(DATA, 0)


def test_the_build_says_which_kernels_are_active() -> None:
    info = kernels.build_info()
    assert info["kernels"] == ("native" if kernels.native else "python")
    assert info["reason"]


def test_the_environment_forces_the_twins() -> None:
    code = "from regraft import kernels; print(kernels.build_info(), kernels.zck_cuts(bytes(131073), final=True))"
    process = run(code, REGRAFT_KERNELS="python")
    assert process.stdout == "{'kernels': 'python', 'reason': 'REGRAFT_KERNELS=python'} array('I', [131072, 1])\n"


def test_the_environment_forces_the_native_kernels() -> None:
    native_kernels()
    process = run("from regraft import kernels; print(kernels.native)", REGRAFT_KERNELS="native")
    assert process.stdout == "True\n", process.stderr


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("raise ModuleNotFoundError(name='regraft_native')", "regraft-native is not installed"),
        ("raise ImportError('wrong architecture')", "regraft-native cannot be loaded: wrong architecture"),
        ("__version__ = '0.0.9'", "regraft-native 0.0.9 does not belong to regraft"),
    ],
)
def test_without_a_usable_native_module_the_twins_work(tmp_path: Any, module: str, reason: str) -> None:
    (tmp_path / "regraft_native.py").write_text(module)
    code = "from regraft import kernels; print(kernels.native, kernels.build_info()['reason'])"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    process = run(code, PYTHONPATH=path, REGRAFT_KERNELS="")
    assert process.stdout.startswith(f"False {reason}"), process.stderr
    process = run(code, PYTHONPATH=path, REGRAFT_KERNELS="native")
    assert f"REGRAFT_KERNELS=native, but {reason}" in process.stderr


def test_another_wish_is_an_error() -> None:
    process = run("from regraft import kernels", REGRAFT_KERNELS="fast")
    assert "UsageError: REGRAFT_KERNELS is 'fast'" in process.stderr
