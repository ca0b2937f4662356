# SPDX-License-Identifier: Apache-2.0
"""`read_all.py SOCKET`: read the first export at an NBD server's Unix socket from its first byte to its last."""

from __future__ import annotations

import socket
import struct
import sys

STEP = 1 << 20

with socket.socket(socket.AF_UNIX) as line:
    line.connect(sys.argv[1])
    stream = line.makefile("rb")
    stream.read(18)
    line.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">IIIH", 7, 6, 0, 0))
    size = 0
    while True:
        _, _, reply, length = struct.unpack(">QIII", stream.read(20))
        content = stream.read(length)
        if reply == 3 and content[:2] == b"\0\0":
            (size,) = struct.unpack_from(">Q", content, 2)
        if reply == 1:
            break
    for at in range(0, size, STEP):
        count = min(STEP, size - at)
        line.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, at, at, count))
        _, error, _ = struct.unpack(">IIQ", stream.read(16))
        if error or len(stream.read(count)) < count:
            sys.exit(f"reading at {at}: error {error}")
    line.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 2, 0, 0, 0))
