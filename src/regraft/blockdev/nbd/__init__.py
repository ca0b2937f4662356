# SPDX-License-Identifier: Apache-2.0
"""A server of the NBD protocol (fixed newstyle, structured replies), as the NBD project's doc/proto.md defines it.

`protocol`, `handshake`, `requests` and `replies` are pure: bytes in, bytes out. `connection`, `server` and `handover`
hold the sockets and threads.
"""
