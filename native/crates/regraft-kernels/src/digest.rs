// SPDX-License-Identifier: Apache-2.0
//! Digests of many ranges at once.

use std::sync::Mutex;

use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use crate::pool;

/// Bytes of one turn of a worker: enough to make taking a turn cheap, little enough to share evenly.
const TURN: usize = 256 << 10;

/// The digests that regraft's formats name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
    /// The first 16 bytes of SHA-512, as zchunk has it.
    Sha512Half128,
}

impl Algorithm {
    /// The algorithm with this label: `sha1`, `sha256`, `sha512` or `sha512_128`.
    #[must_use]
    pub fn named(label: &str) -> Option<Self> {
        match label {
            "sha1" => Some(Self::Sha1),
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            "sha512_128" => Some(Self::Sha512Half128),
            _ => None,
        }
    }

    /// Bytes of one digest.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
            Self::Sha512Half128 => 16,
        }
    }

    /// Write the digest of `data` to `out`, which has `size()` bytes.
    pub(crate) fn write(self, data: &[u8], out: &mut [u8]) {
        let size = self.size();
        match self {
            Self::Sha1 => out.copy_from_slice(&Sha1::digest(data)),
            Self::Sha256 => out.copy_from_slice(&Sha256::digest(data)),
            Self::Sha512 | Self::Sha512Half128 => out.copy_from_slice(&Sha512::digest(data)[..size]),
        }
    }
}

/// The lengths add up to more than the data has.
#[derive(Debug, PartialEq, Eq)]
pub struct RangeError;

/// Digests, joined, of consecutive ranges of `data` that start at 0 and have these lengths in bytes.
///
/// `threads` 0 means one for each core that this process may use.
///
/// # Errors
/// `RangeError` if the ranges end behind the data.
pub fn digest_ranges(
    data: &[u8],
    lengths: &[u32],
    algorithm: Algorithm,
    threads: usize,
) -> Result<Vec<u8>, RangeError> {
    let total: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
    if total > data.len() as u64 {
        return Err(RangeError);
    }
    let mut digests = vec![0; lengths.len() * algorithm.size()];
    let rows = digests.chunks_exact_mut(algorithm.size());
    let mut rest = data;
    let tasks = Mutex::new(lengths.iter().zip(rows).map(|(&length, out)| {
        let (range, after) = rest.split_at(length as usize);
        rest = after;
        (range, out)
    }));
    let threads = pool::thread_count(threads).min(data.len() / TURN + 1);
    pool::run(threads, || {
        let mut turn = Vec::new();
        loop {
            let mut bytes = 0;
            if let Ok(mut tasks) = tasks.lock() {
                while bytes < TURN
                    && let Some(task) = tasks.next()
                {
                    bytes += task.0.len().max(1);
                    turn.push(task);
                }
            }
            if turn.is_empty() {
                break;
            }
            for (range, out) in turn.drain(..) {
                algorithm.write(range, out);
            }
        }
    });
    Ok(digests)
}
