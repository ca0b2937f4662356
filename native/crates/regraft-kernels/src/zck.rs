// SPDX-License-Identifier: Apache-2.0
//! zchunk's automatic chunker: exactly libzck's cuts, on all cores.
//!
//! libzck rolls one hash from cut to cut, and its state depends on where the last cut was. But 47 bytes after a cut the
//! hash is that of the last 48 bytes and nothing else. So workers look for matching positions in all segments at once,
//! and the rare positions found are then walked in order (`Cutter`). Only there, and only where libzck feeds a byte
//! twice, is the hash rolled byte by byte. Chunks are hashed as soon as they are cut, while they are in the cache.

mod cutter;
mod schedule;
#[cfg(test)]
pub mod tests;

use std::sync::{Condvar, Mutex};

use crate::digest::Algorithm;
use crate::pool;
use schedule::{Schedule, Turn};

/// Bytes of one segment: the search and then the hashing of its chunks stay within a core's cache.
pub const SEGMENT: usize = 512 << 10;

/// Chunks in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chunks {
    /// Their lengths in bytes. The sum is what was consumed.
    pub lengths: Vec<u32>,
    /// Their digests, joined; empty if none were asked for.
    pub digests: Vec<u8>,
}

/// Cut `data`, which starts at a cut, and digest the chunks.
///
/// A cut is known only when the byte after it is: the open chunk at the end is returned only if the data is `last`.
/// `threads` 0 means one for each core that this process may use. `segment` is `SEGMENT` except in tests.
#[must_use]
pub fn index(data: &[u8], last: bool, algorithm: Option<Algorithm>, threads: usize, segment: usize) -> Chunks {
    let segment = segment.max(1);
    let threads = pool::thread_count(threads).min(data.len() / segment + 1);
    let schedule = Mutex::new(Schedule::new(data, last, algorithm, segment, threads));
    let changed = Condvar::new();
    pool::run(threads, || work(data, &schedule, &changed));
    schedule.into_inner().map_or_else(|_| Chunks::default(), Schedule::finish)
}

/// Take turns until all is done.
fn work(data: &[u8], schedule: &Mutex<Schedule>, changed: &Condvar) {
    let Ok(mut guard) = schedule.lock() else { return };
    loop {
        match guard.next() {
            Turn::Search(search) => {
                drop(guard);
                let found = search.run(data);
                let Ok(again) = schedule.lock() else { return };
                guard = again;
                guard.searched(data, search, found);
                changed.notify_all();
            }
            Turn::Hash(job) => {
                drop(guard);
                let digests = job.run(data);
                let Ok(again) = schedule.lock() else { return };
                guard = again;
                guard.hashed(&job, &digests);
            }
            Turn::Wait => {
                let Ok(again) = changed.wait(guard) else { return };
                guard = again;
            }
            Turn::Done => return,
        }
    }
}
