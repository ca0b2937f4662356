// SPDX-License-Identifier: Apache-2.0
//! From matching positions to cuts.

use crate::buzhash::{Rolling, WINDOW};

/// No content cuts a chunk before it has this many bytes.
pub const MINIMUM: usize = 8192;

/// No chunk has more bytes than this.
pub const MAXIMUM: usize = 131_072;

/// Walks the matching positions of the data in order and keeps the lengths of the chunks cut.
#[derive(Default)]
pub struct Cutter {
    /// Where the open chunk starts.
    start: usize,
    /// The first byte not yet fed. If the walk went on past the positions known so far, they do not count before it.
    position: usize,
    lengths: Vec<u32>,
}

impl Cutter {
    pub fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    pub fn into_lengths(self) -> Vec<u32> {
        self.lengths
    }

    /// Go on to `to`, given all `matching` positions before it that an earlier call has not had.
    pub fn advance(&mut self, data: &[u8], matching: &[usize], to: usize) {
        let mut matching = matching.iter().copied().peekable();
        loop {
            // The window is full, and the hash a pure function of it, from the 48th byte of a chunk on.
            let valid = self.position.max(self.start + WINDOW - 1);
            while matching.next_if(|&at| at < valid).is_some() {}
            let longest = self.start + MAXIMUM;
            match matching.peek() {
                Some(&at) if at < longest => {
                    if at - self.start < MINIMUM {
                        self.feed_twice(data, at);
                    } else {
                        self.cut(at);
                    }
                }
                _ if longest < to => self.cut(longest),
                _ => break,
            }
        }
        self.position = self.position.max(to);
    }

    /// What is left is a chunk.
    pub fn end(&mut self, data: &[u8]) {
        if self.start < data.len() {
            self.cut(data.len());
        }
    }

    fn cut(&mut self, at: usize) {
        // At most MAXIMUM, which is far below u32::MAX.
        self.lengths.push(u32::try_from(at - self.start).unwrap_or(u32::MAX));
        self.start = at;
        self.position = at;
    }

    /// A match at `at`, too early for a cut: libzck refuses the cut, leaves the window as it is and feeds the same byte
    /// again, and so for every match while the window still holds a byte twice.
    ///
    /// Ends with the first position whose window is again that of the data, with a cut, or with the data. It does end:
    /// no window of 48 equal bytes matches, so that a byte is fed at most 48 times more.
    fn feed_twice(&mut self, data: &[u8], at: usize) {
        let mut window = [0; WINDOW];
        window.copy_from_slice(&data[at + 1 - WINDOW..=at]);
        let mut rolling = Rolling::over(window);
        let (mut position, mut again) = (at, at);
        while position < data.len() && position < again + WINDOW - 1 {
            if !rolling.feed(data[position]) {
                position += 1;
            } else if position - self.start < MINIMUM {
                again = position;
            } else {
                return self.cut(position);
            }
        }
        self.position = position;
    }
}
