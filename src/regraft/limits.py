# SPDX-License-Identifier: Apache-2.0
"""Every maximum in one place. Nothing that a peer or a file claims is believed beyond these."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1 << 10
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Maxima; sizes in bytes, times in seconds, the rest are counts. Defaults suit a device with 128 MiB of RAM."""

    # images and chunks
    image_size: int = 1 << 44  #: of an image, decoded
    chunk_size: int = 16 * MIB  #: decoded bytes of one unit
    stored_size: int = 17 * MIB  #: stored bytes of one unit
    chunks: int = 4_000_000  #: of one image
    patched_size: int = 256 * MIB  #: base or target of one bsdiff patch: each is in memory, on the build side
    dictionary_size: int = 4 * MIB  #: of a zstd dictionary
    header_size: int = 256 * MIB  #: of a chunked artifact; read in pieces, held as columns
    optional_elements: int = 64  #: of one zchunk header
    optional_element_size: int = MIB  #: of each of them
    zstd_window_log: int = 24  #: a frame may ask for 2 to this power bytes of window: 16 MiB, as much as zstd -19 does
    xz_memory: int = 80 * MIB  #: what xz -9 needs is 65 MiB
    chunker_window: int = 4096  #: bytes under the rolling hash of a chunker; those in use have 16 to 64
    metadata: int = 1024  #: entries of a bita archive
    layout_bytes: int = 512 * MIB  #: read of a file system to learn where its files begin
    layout_cuts: int = 500_000  #: places where they do, that are looked at

    # bundles
    description_size: int = MIB  #: of an sw-description
    signature_size: int = 64 * KIB  #: of its signature
    artifacts: int = 1024  #: entries of one cpio archive
    name_length: int = 255  #: of a name in an archive
    trailing_padding: int = 64 * KIB  #: zeros behind an archive's trailer
    nesting: int = 32  #: depth of groups, lists and references in an sw-description
    settings: int = 65_536  #: values in an sw-description
    string_length: int = 256 * KIB  #: of one value in an sw-description
    certificates: int = 32  #: in a file of trusted ones, or in a signature

    # transport
    connections: int = 4  #: to one server at once
    chunk_connections: int = 16  #: to a store of chunk files, where each chunk is a request
    retries: int = 8  #: tries of one request before its error counts
    redirects: int = 5  #: followed for one request
    idle_timeout: float = 60.0  #: without a byte, until a connection is given up
    connect_timeout: float = 20.0  #: until a connection must stand
    retry_wait: float = 120.0  #: longest wait between two tries, whatever Retry-After says
    low_speed: int = 64  #: bytes per second below which a transfer counts as stalled ...
    low_speed_time: float = 60.0  #: ... when it lasts this long
    ranges_per_request: int = 128  #: Apache answers more than 200 with the whole file
    server_ranges: int = 512  #: that our own server takes in one request; above that it sends the whole file
    range_header: int = 7 * KIB  #: characters of one Range header: common servers refuse 8 KiB
    request_size: int = 8 * MIB  #: bytes asked for at once
    part_header: int = 8 * KIB  #: of one part of a multipart answer

    # network block devices
    nbd_connections: int = 64  #: open at once; more are closed as they come
    nbd_handshake_time: float = 30.0  #: until a client must have chosen its export
    nbd_options: int = 1000  #: of one handshake
    nbd_option_size: int = 64 * KIB  #: payload of one option
    nbd_request_size: int = 32 * MIB  #: payload of one request
    nbd_reply_buffer: int = 320 * KIB  #: of one connection
    nbd_extents: int = 8192  #: in one answer to a block status request
    nbd_slow_reads: int = 8  #: of one client that wait for a peer at once
    nbd_workers: int = 32  #: threads for such reads, of all clients
    nbd_pending: int = 256  #: reads of one client that are begun or wait for a thread

    # views
    view_cache: int = 8 * MIB  #: decoded bytes kept in memory
    view_deadline: float = 30.0  #: until a read that waits for a peer fails
    view_ahead: int = 2 * MIB  #: bytes fetched ahead of a sequential reader

    # mounts
    mount_connections: int = 16  #: sockets between the kernel and one daemon
    fuse_threads: int = 8  #: that answer the kernel
    fuse_read_size: int = 256 * KIB  #: of one answer, for each thread
    netlink_message: int = 64 * KIB  #: that the kernel may answer with
    device_mapper_answer: int = MIB  #: that the kernel may answer with
    verity_tree: int = 64 * MIB  #: of the hash tree in an artifact: enough for an image of 8 GiB
    mount_record: int = 64 * KIB  #: of what is kept of one mount

    # chunk stores
    pack_size: int = 1 << 30  #: of one pack, unless a single chunk is larger
    pack_index_size: int = 64 * MIB  #: of the index of one pack
    description_file: int = 320 * MIB  #: of the description of one image; read whole
    packs: int = 100_000  #: of one store

    # execution
    buffer: int = 8 * MIB  #: bytes in flight between threads
    batch: int = MIB  #: bytes copied and hashed at once
    journal_interval: float = 1.0  #: time between two durable records
    journal_bytes: int = 64 * MIB  #: bytes written between two durable records
    journal_size: int = 64 * MIB  #: of the file

    # merging in place
    merge_window: int = 8 * MIB  #: rows that are read together before any of them is written, unless told otherwise
    merge_batch: int = 8 * MIB  #: bytes written directly between two records
    merge_conflicts: int = 64_000_000  #: pairs of rows of which one reads what the other writes


DEFAULT = Limits()
