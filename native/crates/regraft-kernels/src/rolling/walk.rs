// SPDX-License-Identifier: Apache-2.0
//! From matching places to cuts, with the least and greatest length, and with what bita's BuzHash does to first zeros.

use super::buzhash::hash_of;
use super::{Kind, Parameters, Place, mask, word};

/// `carry` of a stream in which nothing is special any more.
const PLAIN: u32 = 1;

/// BuzHash fills its window with the first bytes of the stream. If the bytes fed next are zeros, it takes them for
/// repeats of a zero before the stream and, once it has counted a window of them, feeds no more: one byte too few. Until
/// a byte other than zero is fed, the last byte of the first window, the stale one, stays in the window.
///
/// Bytes that the chunker skips, because no chunk can end near them, are not fed and not looked at.
#[derive(Clone, Copy)]
struct FirstZeros {
    stale: u8,
    /// Zeros fed so far, at most the window's length.
    fed: usize,
}

impl FirstZeros {
    fn carried(carry: u32) -> Option<Self> {
        (carry > PLAIN).then_some(Self { stale: (carry >> 1 & 0xff) as u8, fed: (carry >> 9) as usize })
    }

    fn carry(self) -> u32 {
        word(self.fed) << 9 | u32::from(self.stale) << 1
    }
}

/// The lengths of the chunks, and what to carry on; `found` are the matching places from `place.searched` on.
pub fn walk(data: &[u8], parameters: &Parameters, place: &Place, found: &[u32]) -> (Vec<u32>, u32) {
    let window = parameters.window;
    let mut lengths = Vec::new();
    let mut start = place.before;
    let mut fresh = place.carry == 0 && parameters.kind == Kind::BuzHash;
    let mut zeros = FirstZeros::carried(place.carry);
    if fresh && data.len() >= window && data[window - 1] != 0 {
        zeros = Some(FirstZeros { stale: data[window - 1], fed: 0 });
    }
    let stale_matches = zeros.is_some_and(|zeros| {
        let mut stale = vec![0; window];
        stale[0] = zeros.stale;
        hash_of(&stale) & mask(parameters.bits) == mask(parameters.bits)
    });
    // Where a run of zeros ends that was measured before.
    let mut run_end = 0;
    let mut found = found.iter().map(|&position| position as usize).peekable();
    loop {
        let filled = if fresh { window } else { 0 };
        // The byte that ends the shortest possible chunk, and the longest.
        let earliest = start + parameters.minimum.max(filled + 1) - 1;
        let latest = earliest.max(start + parameters.maximum - 1);
        let mut end = latest;
        // Where bytes are fed again after the start of the chunk.
        let feeding = start + filled.max(parameters.minimum.saturating_sub(window).saturating_sub(1));
        let mut other = feeding;
        if let Some(FirstZeros { fed, .. }) = zeros {
            if feeding >= run_end {
                let rest = data.get(feeding..).unwrap_or_default();
                run_end = feeding + rest.iter().take_while(|&&byte| byte == 0).count();
            }
            other = run_end;
            let held = feeding + (window - 1).saturating_sub(fed);
            while found.next_if(|&at| at < earliest || (held..other).contains(&at)).is_some() {}
            if stale_matches && held.max(earliest) < other {
                end = end.min(held.max(earliest));
            }
        }
        while found.next_if(|&at| at < earliest).is_some() {}
        if let Some(&at) = found.peek() {
            end = end.min(at);
        }
        if end >= data.len() {
            break;
        }
        if let Some(FirstZeros { fed, .. }) = &mut zeros {
            *fed = window.min(*fed + (end + 1).saturating_sub(feeding));
            if other <= end {
                zeros = None;
            }
        }
        lengths.push(word(end + 1 - start));
        start = end + 1;
        fresh = false;
    }
    let carry = if lengths.is_empty() { place.carry } else { zeros.map_or(PLAIN, FirstZeros::carry) };
    if place.last && start < data.len() {
        lengths.push(word(data.len() - start));
    }
    (lengths, carry)
}
