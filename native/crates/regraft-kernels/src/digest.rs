// SPDX-License-Identifier: Apache-2.0
//! Digests of many ranges at once.

use std::sync::Mutex;

use blake2b_simd::Params;
use blake2b_simd::many::{HashManyJob, hash_many};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512, Sha512_256};

use crate::pool;

/// A range, and where its digest goes.
type Task<'data, 'out> = (&'data [u8], &'out mut [u8]);

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
    /// SHA-512/256 of FIPS 180-4, with initial values of its own, 32 bytes: as casync has it.
    Sha512To256,
    /// The first so many bytes, 1 to 64, of BLAKE2b with a digest of 64 bytes, as bita has it.
    Blake2b512(u8),
}

impl Algorithm {
    /// The algorithm with this label: `sha1`, `sha256`, `sha512`, `sha512_128`, `sha512_256`, `blake2b512`, or `blake2b512_` and
    /// the number of bits kept, a multiple of 8.
    #[must_use]
    pub fn named(label: &str) -> Option<Self> {
        match label {
            "sha1" => Some(Self::Sha1),
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            "sha512_128" => Some(Self::Sha512Half128),
            "sha512_256" => Some(Self::Sha512To256),
            "blake2b512" => Some(Self::Blake2b512(64)),
            _ => {
                let bits: u16 = label.strip_prefix("blake2b512_")?.parse().ok()?;
                let sound = bits.is_multiple_of(8) && (8..512).contains(&bits);
                sound.then(|| u8::try_from(bits / 8).ok().map(Self::Blake2b512))?
            }
        }
    }

    /// Bytes of one digest.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 | Self::Sha512To256 => 32,
            Self::Sha512 => 64,
            Self::Sha512Half128 => 16,
            Self::Blake2b512(size) => size as usize,
        }
    }

    /// Write the digest of `data` to `out`, which has `size()` bytes.
    pub(crate) fn write(self, data: &[u8], out: &mut [u8]) {
        let size = self.size();
        match self {
            Self::Sha1 => out.copy_from_slice(&Sha1::digest(data)),
            Self::Sha256 => out.copy_from_slice(&Sha256::digest(data)),
            Self::Sha512 | Self::Sha512Half128 => out.copy_from_slice(&Sha512::digest(data)[..size]),
            Self::Sha512To256 => out.copy_from_slice(&Sha512_256::digest(data)),
            Self::Blake2b512(_) => {
                out.copy_from_slice(&Params::new().hash(data).as_bytes()[..size]);
            }
        }
    }

    /// The same for many ranges, of which the processor may take several at once.
    fn write_many(self, tasks: &mut Vec<Task<'_, '_>>) {
        if let Self::Blake2b512(size) = self {
            let parameters = Params::new();
            let mut jobs: Vec<_> = tasks.iter().map(|task| HashManyJob::new(&parameters, task.0)).collect();
            hash_many(jobs.iter_mut());
            for ((_range, out), job) in tasks.drain(..).zip(&jobs) {
                out.copy_from_slice(&job.to_hash().as_bytes()[..usize::from(size)]);
            }
        }
        for (range, out) in tasks.drain(..) {
            self.write(range, out);
        }
    }

    /// Bytes of one turn of a worker: enough to make taking a turn cheap, little enough to share evenly.
    const fn turn(self) -> usize {
        match self {
            Self::Blake2b512(_) => 1 << 20,
            _ => 256 << 10,
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
    let threads = pool::thread_count(threads).min(data.len() / algorithm.turn() + 1);
    pool::run(threads, || {
        let mut turn = Vec::new();
        loop {
            let mut bytes = 0;
            if let Ok(mut tasks) = tasks.lock() {
                while bytes < algorithm.turn()
                    && let Some(task) = tasks.next()
                {
                    bytes += task.0.len().max(1);
                    turn.push(task);
                }
            }
            if turn.is_empty() {
                break;
            }
            algorithm.write_many(&mut turn);
        }
    });
    Ok(digests)
}
