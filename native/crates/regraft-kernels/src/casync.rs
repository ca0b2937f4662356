// SPDX-License-Identifier: Apache-2.0
//! casync's content-defined chunker.
//!
//! The hash begins anew with each chunk, and is tested for the first time when its window is full. So whatever is tested
//! is a pure function of the last 48 bytes: all threads look for places where a chunk may end, and one then walks the
//! few that were found and applies the least and greatest length.

#[cfg(test)]
mod tests;

use crate::buzhash::{WINDOW, places_where};
use crate::digest::{Algorithm, digest_ranges};
use crate::pool;
use crate::rolling::{ParameterError, SEGMENT};

/// How the chunks are cut. A chunk may end where the remainder of the hash is the greatest that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// No content ends a chunk before it has this many bytes, nor before the window is full.
    pub minimum: usize,
    /// No chunk has more bytes than this, unless the window is longer.
    pub maximum: usize,
    /// What the hash is divided by.
    pub discriminator: u32,
}

/// Where in the stream the data lies, which starts at a cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Bytes at the start of the data of which an earlier call has said that no chunk ends there.
    pub searched: usize,
    /// Whether the stream ends with this data.
    pub last: bool,
}

/// Lengths of the complete chunks of `data`, in bytes, and their digests, joined; none if none are asked for.
///
/// `threads` 0 means one for each core that this process may use. `segment` is `SEGMENT` except in tests.
///
/// # Errors
/// `ParameterError`
pub fn cut(
    data: &[u8],
    parameters: &Parameters,
    place: Place,
    algorithm: Option<Algorithm>,
    threads: usize,
    segment: Option<usize>,
) -> Result<(Vec<u32>, Vec<u8>), ParameterError> {
    let sound = (1..=parameters.maximum).contains(&parameters.minimum)
        && u32::try_from(parameters.maximum).is_ok()
        && parameters.discriminator > 0
        && place.searched <= data.len()
        && u32::try_from(data.len()).is_ok();
    if !sound {
        return Err(ParameterError);
    }
    let from = place.searched.max(WINDOW - 1).min(data.len());
    let segment = segment.unwrap_or(SEGMENT).max(1);
    let test = greatest_remainder(parameters.discriminator);
    let found = pool::gather(from..data.len(), segment, threads, |range, found| {
        places_where(test, data, range.start, range.end, found);
    });
    let lengths = walk(data.len(), parameters, place.last, &found);
    let digests = match algorithm {
        Some(algorithm) => digest_ranges(data, &lengths, algorithm, threads).map_err(|_| ParameterError)?,
        None => Vec::new(),
    };
    Ok((lengths, digests))
}

/// Whether `hash % divisor == divisor - 1`, without a division for each hash.
///
/// With a factor of 2^64 / divisor, rounded up, the low 64 bits of the product are the remainder as a fraction of 2^64,
/// exactly enough for any hash and divisor of 32 bits (Lemire, Kaser and Kurz, "Faster remainder by direct computation",
/// 2019): the remainder is the greatest if that fraction is at least (divisor - 1) / divisor.
fn greatest_remainder(divisor: u32) -> impl Fn(u32) -> bool + Copy {
    let wide = u128::from(divisor);
    // For a divisor of 1 the factor is 2^64, of which 0 is left, and so is the bound: every hash passes.
    let factor = low_half((1_u128 << 64).div_ceil(wide));
    let bound = low_half(((wide - 1) << 64).div_ceil(wide));
    move |hash| factor.wrapping_mul(u64::from(hash)) >= bound
}

#[allow(clippy::cast_possible_truncation)] // on purpose
fn low_half(wide: u128) -> u64 {
    wide as u64
}

/// From places where a chunk may end to lengths of chunks.
fn walk(size: usize, parameters: &Parameters, last: bool, found: &[usize]) -> Vec<u32> {
    let mut lengths = Vec::new();
    let mut start = 0;
    let mut found = found.iter().copied().peekable();
    let shortest = parameters.minimum.max(WINDOW);
    let longest = parameters.maximum.max(WINDOW);
    loop {
        while found.next_if(|&at| at < start + shortest - 1).is_some() {}
        let latest = start + longest;
        let end = found.peek().map_or(latest, |&at| latest.min(at + 1));
        if end > size {
            break;
        }
        lengths.push(word(end - start));
        start = end;
    }
    if last && start < size {
        lengths.push(word(size - start));
    }
    lengths
}

/// A length in data of which `cut` has checked that it has less than 2^32 bytes.
#[allow(clippy::cast_possible_truncation)] // checked before, see above
fn word(length: usize) -> u32 {
    length as u32
}
