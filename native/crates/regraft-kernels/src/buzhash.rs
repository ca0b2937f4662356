// SPDX-License-Identifier: Apache-2.0
//! The cyclic polynomial hash of zchunk's automatic chunker and of casync's: 32 bits over a window of 48 bytes.

use crate::table::{OUTGOING, TABLE};

/// Bytes in the window.
pub const WINDOW: usize = 48;

/// A position matches when these bits of its hash are all zero.
pub const MASK: u32 = 0x7fff;

/// The hash of a full window, with the window itself, so that a byte can be fed out of turn.
pub struct Rolling {
    window: [u8; WINDOW],
    oldest: usize,
    hash: u32,
}

impl Rolling {
    /// The state after exactly these bytes.
    pub fn over(window: [u8; WINDOW]) -> Self {
        Self { window, oldest: 0, hash: hash_of(&window) }
    }

    /// Feed one byte; true if the hash now matches.
    pub fn feed(&mut self, byte: u8) -> bool {
        let gone = std::mem::replace(&mut self.window[self.oldest], byte);
        self.oldest = (self.oldest + 1) % WINDOW;
        self.hash = step(self.hash, gone, byte);
        matches(self.hash)
    }
}

/// Append to `found` every position in `from..to` whose window, the 48 bytes that end with it, matches.
///
/// This is a pure function of the data: it knows of no chunk. `from` must be at least 47.
pub fn matches_in(data: &[u8], from: usize, to: usize, found: &mut Vec<usize>) {
    places_where(matches, data, from, to, found);
}

/// The same for any test of the hash.
pub fn places_where(matches: impl Fn(u32) -> bool, data: &[u8], from: usize, to: usize, found: &mut Vec<usize>) {
    debug_assert!(from >= WINDOW - 1 && to <= data.len());
    let hash_at = |position: usize| hash_of(&data[position + 1 - WINDOW..=position]);
    let half = to.saturating_sub(from) / 2;
    if half > 0 {
        // Two independent chains of dependent steps fill the units of the processor that one leaves idle.
        let (left, right) = (from, from + half);
        let (mut one, mut two) = (hash_at(left), hash_at(right));
        let mut later = Vec::new();
        if matches(one) {
            found.push(left);
        }
        if matches(two) {
            later.push(right);
        }
        let lanes = slides(data, left, half).zip(slides(data, right, half));
        for (offset, ((gone, new), (gone_too, new_too))) in (1..).zip(lanes) {
            one = step(one, *gone, *new);
            two = step(two, *gone_too, *new_too);
            if matches(one) {
                found.push(left + offset);
            }
            if matches(two) {
                later.push(right + offset);
            }
        }
        found.append(&mut later);
    }
    if from + 2 * half < to && matches(hash_at(to - 1)) {
        found.push(to - 1);
    }
}

/// Pairs of (byte that leaves, byte that enters) as the window slides from `from` to `from + count - 1`.
fn slides(data: &[u8], from: usize, count: usize) -> impl Iterator<Item = (&u8, &u8)> {
    let leaving = &data[from + 1 - WINDOW..from + count - WINDOW];
    leaving.iter().zip(&data[from + 1..from + count])
}

/// The hash of a full window: its words, each rotated once more than the one after it.
pub fn hash_of(window: &[u8]) -> u32 {
    window.iter().fold(0, |hash: u32, &byte| hash.rotate_left(1) ^ TABLE[usize::from(byte)])
}

fn step(hash: u32, gone: u8, new: u8) -> u32 {
    hash.rotate_left(1) ^ OUTGOING[usize::from(gone)] ^ TABLE[usize::from(new)]
}

fn matches(hash: u32) -> bool {
    hash & MASK == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Why feeding a byte again and again ends: after 48 times the window holds nothing else.
    #[test]
    fn no_window_of_one_byte_matches() {
        for byte in 0..=u8::MAX {
            assert!(!matches(hash_of(&[byte; WINDOW])), "byte {byte}");
        }
    }

    #[test]
    fn a_fed_byte_gives_the_hash_of_the_last_48() {
        let data = crate::zck::tests::noise(200, 1);
        let mut rolling = Rolling::over(data[..WINDOW].try_into().unwrap());
        for end in WINDOW..data.len() {
            rolling.feed(data[end]);
            assert_eq!(rolling.hash, hash_of(&data[end + 1 - WINDOW..=end]));
        }
    }

    #[test]
    fn two_lanes_find_what_one_window_at_a_time_finds() {
        let data = crate::zck::tests::noise(300_000, 7);
        let slow: Vec<usize> =
            (WINDOW - 1..data.len()).filter(|&end| matches(hash_of(&data[end + 1 - WINDOW..=end]))).collect();
        assert!(slow.len() > 3);
        for from in [47, 48, 49, 1000] {
            for to in [from, from + 1, from + 97, from + 98, from + 99, data.len() - 1, data.len()] {
                let mut found = Vec::new();
                matches_in(&data, from, to, &mut found);
                let expected: Vec<usize> = slow.iter().copied().filter(|p| (from..to).contains(p)).collect();
                assert_eq!(found, expected, "{from}..{to}");
            }
        }
    }
}
