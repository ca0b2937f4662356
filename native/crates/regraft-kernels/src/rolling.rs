// SPDX-License-Identifier: Apache-2.0
//! The content-defined chunkers of bita: a sum or hash that rolls over the whole stream, across cuts.
//!
//! Since the window is never emptied, where a chunk may end is a pure function of the bytes before it. So all threads
//! look for such places (`search`), and one then walks the few that were found and applies the least and greatest
//! length (`walk`). The chunks are hashed on all threads again.

mod buzhash;
mod rollsum;
#[cfg(test)]
mod tests;
mod walk;

use crate::digest::{Algorithm, digest_ranges};
use crate::pool;

/// Bytes that one turn of a thread searches.
pub const SEGMENT: usize = 256 << 10;

/// The longest window; bita itself uses 16 and 64 bytes.
pub const MAXIMUM_WINDOW: usize = 4096;

/// Which bytes the window is reduced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Two sums, as in rsync.
    RollSum,
    /// A cyclic polynomial hash.
    BuzHash,
}

/// What an archive says about its cuts. A place matches when the low `bits` bits of its sum are all set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// The rolling hash.
    pub kind: Kind,
    /// 1 to 32.
    pub bits: u32,
    /// No content ends a chunk before it has this many bytes.
    pub minimum: usize,
    /// No chunk has more bytes than this, unless `minimum` is greater.
    pub maximum: usize,
    /// Bytes in the window.
    pub window: usize,
}

/// Where in the stream the data lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Bytes at the start of the data that belong to earlier chunks: `window - 1`, or all if there are fewer.
    pub before: usize,
    /// Bytes after them of which an earlier call has said that no chunk ends there.
    pub searched: usize,
    /// 0 at the start of the stream, else what the call before returned.
    pub carry: u32,
    /// Whether the stream ends with this data.
    pub last: bool,
}

/// Chunks in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cuts {
    /// Their lengths in bytes.
    pub lengths: Vec<u32>,
    /// Their digests, joined; empty if none were asked for.
    pub digests: Vec<u8>,
    /// For the next call.
    pub carry: u32,
}

/// The parameters are none that a chunker can have, or the place lies outside of the data.
#[derive(Debug, PartialEq, Eq)]
pub struct ParameterError;

/// Cut `data` from `place.before` on, which is where a chunk starts, and digest the chunks.
///
/// `threads` 0 means one for each core that this process may use. `segment` is `SEGMENT` except in tests.
///
/// # Errors
/// `ParameterError`
pub fn cut(
    data: &[u8],
    parameters: &Parameters,
    place: &Place,
    algorithm: Option<Algorithm>,
    threads: usize,
    segment: usize,
) -> Result<Cuts, ParameterError> {
    let sound = (1..=32).contains(&parameters.bits)
        && (1..=MAXIMUM_WINDOW).contains(&parameters.window)
        && parameters.maximum > 0
        && place.before.checked_add(place.searched).is_some_and(|end| end <= data.len())
        && u32::try_from(data.len()).is_ok();
    if !sound {
        return Err(ParameterError);
    }
    let found = search(data, parameters, place, threads, segment.max(1));
    let (lengths, carry) = walk::walk(data, parameters, place, &found);
    let digests = match algorithm {
        Some(algorithm) => {
            digest_ranges(&data[place.before..], &lengths, algorithm, threads).map_err(|_| ParameterError)?
        }
        None => Vec::new(),
    };
    Ok(Cuts { lengths, digests, carry })
}

/// The matching places in order. Of a stream's first bytes BuzHash has no hash until the window is full.
fn search(data: &[u8], parameters: &Parameters, place: &Place, threads: usize, segment: usize) -> Vec<u32> {
    let mut from = place.before + place.searched;
    if parameters.kind == Kind::BuzHash {
        from = from.max(parameters.window - 1);
    }
    pool::gather(from..data.len(), segment, threads, |range, found| match parameters.kind {
        Kind::RollSum => {
            rollsum::matches_in(data, range.start, range.end, parameters.window, parameters.bits, found);
        }
        Kind::BuzHash => {
            buzhash::matches_in(data, range.start, range.end, parameters.window, parameters.bits, found);
        }
    })
}

/// The low `bits` bits.
fn mask(bits: u32) -> u32 {
    u32::MAX >> (32 - bits)
}

/// A place in data of which `cut` has checked that it has less than 2^32 bytes.
#[allow(clippy::cast_possible_truncation)] // checked before, see above
fn word(place: usize) -> u32 {
    place as u32
}
