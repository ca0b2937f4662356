// SPDX-License-Identifier: Apache-2.0
//! rsync's pair of sums over the last bytes of a stream that zeros precede.

use super::{mask, word};

/// Added to each byte, so that zeros count.
const OFFSET: u32 = 31;

struct Sums {
    one: u32,
    two: u32,
    window: u32,
}

impl Sums {
    /// Over the window that ends before `end`.
    fn before(data: &[u8], end: usize, window: usize) -> Self {
        let width = word(window);
        let mut sums = Self {
            one: OFFSET.wrapping_mul(width),
            two: OFFSET.wrapping_mul(width).wrapping_mul(width - 1),
            window: width,
        };
        for &byte in &data[end.saturating_sub(window)..end] {
            sums.feed(0, byte);
        }
        sums
    }

    fn feed(&mut self, gone: u8, new: u8) {
        self.one = self.one.wrapping_add(u32::from(new)).wrapping_sub(u32::from(gone));
        self.two = self.two.wrapping_add(self.one).wrapping_sub(self.window.wrapping_mul(u32::from(gone) + OFFSET));
    }

    fn value(&self) -> u32 {
        self.one << 16 | self.two & 0xffff
    }
}

/// Append to `found` every position in `from..to` at which the sum matches.
pub fn matches_in(data: &[u8], from: usize, to: usize, window: usize, bits: u32, found: &mut Vec<u32>) {
    let mask = mask(bits);
    let mut sums = Sums::before(data, from, window);
    // Up to here zeros leave the window, which lie before the stream.
    let full = to.min(window.max(from));
    for (position, &byte) in (from..).zip(&data[from..full]) {
        sums.feed(0, byte);
        if sums.value() & mask == mask {
            found.push(word(position));
        }
    }
    if full == to {
        return;
    }
    let slides = data[full - window..to - window].iter().zip(&data[full..to]);
    for (position, (&gone, &new)) in (full..).zip(slides) {
        sums.feed(gone, new);
        if sums.value() & mask == mask {
            found.push(word(position));
        }
    }
}
