# SPDX-License-Identifier: Apache-2.0
"""Every error regraft raises on purpose: a class per cure, each with its exit status.

RegraftError                     1   any other failure
├── UsageError                   2   the command line or a configuration is wrong
├── FormatError                 10   bytes that are not what they claim to be
│   └── UnsupportedError        11   valid, but a feature regraft does not have
├── LimitError                  12   a length, count or depth above its maximum in `limits`
├── VerificationError           20   not what was signed, or a part that nothing signed covers
│   ├── SignatureError          21   missing, empty, wrong, or by nobody trusted
│   ├── DigestError             22   bytes that differ from their signed digest
│   └── UnlistedError           23   an artifact without an entry or a digest in signed metadata
├── PolicyError                 30   a valid bundle that this device must not install
│   ├── HardwareError           31   made for another board or revision
│   └── VersionError            32   a downgrade, a re-installation, or above the maximum
├── TransportError              40   the network or the server
│   ├── StatusError             41   an HTTP status that no retry cures
│   ├── StallError              42   too slow or silent for too long
│   ├── ChangedError            43   the file behind a URL or path changed while it was read
│   └── RedirectError           44   a redirect that policy does not allow
├── MediumError                 50   reading or writing a file or block device failed
│   ├── TooSmallError           51   the target cannot hold the image
│   ├── SourceError             52   a seed or source cannot be read and nothing replaces it
│   ├── SpaceError              53   no space left
│   └── MountError              54   the kernel refused to make a device or a mount
├── StateError                  60   a journal or index on disk that cannot be used
│   └── BusyError               61   another process works on the same target
└── MissingError                70   a part of the system or of regraft that is not here

The exit status is an attribute of the class; `docs/reference/exit-statuses.md` is generated from this tree.
"""

from __future__ import annotations

from typing import ClassVar


class RegraftError(Exception):
    """Base of all: `str(error)` is the cause, `cure` says what to do about it."""

    exit_status: ClassVar[int] = 1
    default_cure: ClassVar[str] = ""

    def __init__(self, cause: str, *, cure: str = "") -> None:
        super().__init__(cause)
        self.cure = cure or self.default_cure


class UsageError(RegraftError):
    exit_status = 2
    default_cure = "see --help for what the command takes"


class FormatError(RegraftError):
    """Malformed bytes. `offset` is where in the input, in bytes, if known."""

    exit_status = 10
    default_cure = "the file is damaged or of another kind: fetch or build it again"

    def __init__(self, cause: str, *, offset: int | None = None, cure: str = "") -> None:
        super().__init__(cause if offset is None else f"{cause} (at byte {offset})", cure=cure)
        self.offset = offset


class UnsupportedError(FormatError):
    exit_status = 11
    default_cure = "build the file without this feature"


class LimitError(RegraftError):
    exit_status = 12
    default_cure = "if the file is to be trusted with this much, raise the limit named here"


class VerificationError(RegraftError):
    exit_status = 20
    default_cure = "do not install this; get the file again from its publisher"


class SignatureError(VerificationError):
    exit_status = 21
    default_cure = "sign the bundle with a key this device trusts, or give the right certificate with -k"


class DigestError(VerificationError):
    exit_status = 22


class UnlistedError(VerificationError):
    exit_status = 23
    default_cure = "every artifact needs an entry with its sha256 in the signed sw-description"


class PolicyError(RegraftError):
    exit_status = 30
    default_cure = "this bundle is not for this device"


class HardwareError(PolicyError):
    exit_status = 31
    default_cure = "give the right BOARD:REVISION with -H, or build for this hardware"


class VersionError(PolicyError):
    exit_status = 32
    default_cure = "relax the version limits on the command line if this is intended"


class TransportError(RegraftError):
    exit_status = 40
    default_cure = "check the link and the server, then run the same command again: it continues where it stopped"


class StatusError(TransportError):
    """`status` is the HTTP status."""

    exit_status = 41
    default_cure = "check the URL and the credentials"

    def __init__(self, cause: str, *, status: int, cure: str = "") -> None:
        super().__init__(cause, cure=cure)
        self.status = status


class StallError(TransportError):
    exit_status = 42


class ChangedError(TransportError):
    exit_status = 43
    default_cure = "the publisher replaced the file: get the bundle that belongs to the new one"


class RedirectError(TransportError):
    exit_status = 44
    default_cure = "use the final URL, or allow the host explicitly"


class MediumError(RegraftError):
    exit_status = 50
    default_cure = "check the device and its log (dmesg), then run the same command again"


class TooSmallError(MediumError):
    exit_status = 51
    default_cure = "the target must be at least as large as the image"


class SourceError(MediumError):
    exit_status = 52
    default_cure = "give another seed, or a URL from which the bytes can be fetched"


class SpaceError(MediumError):
    exit_status = 53
    default_cure = "free some space, then run the same command again"


class MountError(MediumError):
    exit_status = 54
    default_cure = "see the kernel's log (dmesg); `regraft doctor` lists what this kernel has"


class StateError(RegraftError):
    exit_status = 60
    default_cure = "remove the state file named here; the work is then done again from the start"


class BusyError(StateError):
    exit_status = 61
    default_cure = "wait for the other process, or stop it"


class MissingError(RegraftError):
    exit_status = 70
    default_cure = "`regraft doctor` lists what is here and what is missing"


def tree(root: type[RegraftError] = RegraftError) -> list[type[RegraftError]]:
    """All error classes of regraft, parents before children, by exit status."""
    found = [root]
    for child in sorted(root.__subclasses__(), key=lambda c: c.exit_status):
        found.extend(tree(child))
    return found
