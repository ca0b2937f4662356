// SPDX-License-Identifier: Apache-2.0
//! The definition, byte by byte, against which the fast way is held.

use super::buzhash::{TABLE, hash_of};
use super::{Cuts, Kind, MAXIMUM_WINDOW, ParameterError, Parameters, Place, SEGMENT, cut};
use crate::digest::{Algorithm, digest_ranges};
use crate::zck::tests::noise;

/// bita's hashers with their rings, fed a byte at a time.
struct Hasher {
    kind: Kind,
    ring: Vec<u8>,
    oldest: usize,
    one: u32,
    two: u32,
    filled: usize,
    repeated: u8,
    repeats: usize,
    /// Whether repeats are fed no more once the window should be full of them.
    counting: bool,
}

impl Hasher {
    fn new(kind: Kind, window: usize) -> Self {
        let width = u32::try_from(window).unwrap();
        let (one, two) = match kind {
            Kind::RollSum => (31 * width, 31 * width * (width - 1)),
            Kind::BuzHash => (0, 0),
        };
        Self { kind, ring: vec![0; window], oldest: 0, one, two, filled: 0, repeated: 0, repeats: 0, counting: true }
    }

    fn push(&mut self, byte: u8) -> u8 {
        let gone = std::mem::replace(&mut self.ring[self.oldest], byte);
        self.oldest = (self.oldest + 1) % self.ring.len();
        gone
    }

    fn init(&mut self, byte: u8) {
        let turns = u32::try_from(self.ring.len() - 1 - self.filled).unwrap();
        self.one ^= TABLE[usize::from(byte)].rotate_left(turns);
        self.push(byte);
        self.filled += 1;
    }

    fn feed(&mut self, byte: u8) {
        let width = u32::try_from(self.ring.len()).unwrap();
        if self.kind == Kind::RollSum {
            let gone = u32::from(self.push(byte));
            self.one = self.one.wrapping_add(u32::from(byte)).wrapping_sub(gone);
            self.two = self.two.wrapping_add(self.one).wrapping_sub(width.wrapping_mul(gone + 31));
            return;
        }
        self.repeats = if byte == self.repeated { self.repeats + 1 } else { 0 };
        self.repeated = byte;
        if self.repeats < self.ring.len() || !self.counting {
            let gone = self.push(byte);
            self.one = self.one.rotate_left(1) ^ TABLE[usize::from(gone)].rotate_left(width) ^ TABLE[usize::from(byte)];
        }
    }

    fn sum(&self) -> u32 {
        match self.kind {
            Kind::RollSum => self.one << 16 | self.two & 0xffff,
            Kind::BuzHash => self.one,
        }
    }
}

fn definition(data: &[u8], parameters: &Parameters, counting: bool) -> Vec<u32> {
    let &Parameters { kind, bits, minimum, maximum, window } = parameters;
    let mask = u32::MAX >> (32 - bits);
    let mut hasher = Hasher { counting, ..Hasher::new(kind, window) };
    let mut lengths = Vec::new();
    let (mut start, mut length) = (0, 0);
    if kind == Kind::BuzHash {
        for &byte in data.iter().take(window) {
            hasher.init(byte);
            length += 1;
        }
    }
    let skipped = minimum.saturating_sub(window);
    while start + length < data.len() {
        if skipped > 0 && length < skipped {
            length = (skipped - 1).min(data.len() - start);
        }
        while length + 1 < minimum && start + length < data.len() {
            hasher.feed(data[start + length]);
            length += 1;
        }
        while start + length < data.len() {
            hasher.feed(data[start + length]);
            length += 1;
            if hasher.sum() & mask == mask || length >= maximum {
                lengths.push(u32::try_from(length).unwrap());
                (start, length) = (start + length, 0);
                break;
            }
        }
    }
    if start < data.len() {
        lengths.push(u32::try_from(data.len() - start).unwrap());
    }
    lengths
}

/// The same from data that arrives in pieces.
fn streamed(data: &[u8], parameters: &Parameters, piece: usize, algorithm: Option<Algorithm>) -> Cuts {
    let mut all = Cuts::default();
    let (mut start, mut known) = (0, 0);
    let mut place = Place::default();
    while !place.last {
        let arrived = data.len().min(known + piece);
        place.last = arrived == data.len();
        place.before = start.min(parameters.window - 1);
        place.searched = known - start;
        known = arrived;
        let new = cut(&data[start - place.before..arrived], parameters, &place, algorithm, 1, SEGMENT).unwrap();
        start += new.lengths.iter().map(|&length| length as usize).sum::<usize>();
        place.carry = new.carry;
        all.lengths.extend(new.lengths);
        all.digests.extend(new.digests);
    }
    all
}

fn check(data: &[u8], parameters: &Parameters) -> Vec<u32> {
    let expected = definition(data, parameters, true);
    let place = Place { last: true, ..Place::default() };
    for (threads, segment) in [(1, SEGMENT), (3, 1000), (2, 37)] {
        let found = cut(data, parameters, &place, None, threads, segment).unwrap();
        assert_eq!(found.lengths, expected, "{parameters:?} {threads} {segment}");
    }
    for piece in [29, 1000, 4096] {
        assert_eq!(streamed(data, parameters, piece, None).lengths, expected, "{parameters:?} pieces of {piece}");
    }
    expected
}

fn settings() -> Vec<Parameters> {
    let mut all = Vec::new();
    for kind in [Kind::RollSum, Kind::BuzHash] {
        for (bits, minimum, maximum, window) in [
            (7, 10, 512, 16),
            (8, 16, 4096, 16),
            (8, 17, 4096, 16),
            (8, 0, 4096, 16),
            (8, 64, 4096, 33),
            (9, 100, 3000, 16),
            (9, 31, 3000, 16),
            (9, 32, 3000, 16),
            (9, 33, 3000, 16),
            (9, 34, 3000, 16),
            (4, 0, 300, 16),
            (1, 1, 20, 5),
            (2, 3, 8, 30),
            (3, 50, 20, 7),
            (2, 40, 90, 7),
            (12, 64, 2048, 64),
            (20, 64, 2048, 1),
            (32, 1, 700, 2),
        ] {
            all.push(Parameters { kind, bits, minimum, maximum, window });
        }
    }
    all
}

#[test]
fn known_values() {
    assert_eq!(hash_of(&[1, 2, 3, 4, 5]), 1_406_929_643);
    let mut hasher = Hasher::new(Kind::BuzHash, 5);
    for byte in [1, 2, 3, 4, 5] {
        hasher.init(byte);
    }
    assert_eq!(hasher.sum(), 1_406_929_643);
}

#[test]
fn noise_is_cut_as_defined_whatever_the_pieces() {
    for parameters in settings() {
        for size in [0, 1, 15, 16, 17, 18, 64, 511, 40_000] {
            check(&noise(size, 3), &parameters);
        }
    }
}

#[test]
fn runs_are_cut_as_defined() {
    for byte in [0, 0xff] {
        let mut data = noise(7000, 21);
        data.extend(vec![byte; 9000]);
        data.extend(noise(5000, 22));
        for parameters in settings() {
            check(&data, &parameters);
            check(&data[7000..], &parameters);
        }
    }
}

/// Zeros behind BuzHash's first window are hashed with a stale byte, which moves cuts.
#[test]
fn zeros_behind_the_first_window_keep_its_last_byte() {
    let mut moved = 0;
    for seed in 0..12 {
        for parameters in settings() {
            for run in [1, 10, 16, 17, 40, 700] {
                let mut data = noise(parameters.window, seed);
                data.resize(data.len() + run, 0);
                data.extend(noise(300, seed + 1));
                data.extend(vec![0; 90]);
                data.extend(noise(300, seed + 2));
                let lengths = check(&data, &parameters);
                moved += usize::from(lengths != definition(&data, &parameters, false));
            }
        }
    }
    assert!(moved > 20, "{moved}");
}

/// What the chunker skips it does not feed, so that it does not end the run of first zeros.
#[test]
fn bytes_that_are_skipped_do_not_count() {
    let mut moved = 0;
    for seed in 0..40 {
        let parameters = Parameters { kind: Kind::BuzHash, bits: 2, minimum: 100, maximum: 300, window: 16 };
        let mut data = noise(16, seed);
        data.resize(2000, 0);
        for at in [30, 130, 250, 340, 460] {
            data[at] = 7;
        }
        data.extend(noise(500, seed));
        moved += usize::from(check(&data, &parameters) != definition(&data, &parameters, false));
    }
    assert!(moved > 5, "{moved}");
}

#[test]
fn digests_are_those_of_the_chunks() {
    let mut data = noise(300_000, 5);
    data.extend(vec![0; 100_000]);
    let parameters = Parameters { kind: Kind::RollSum, bits: 9, minimum: 100, maximum: 70_000, window: 64 };
    for size in [4, 16, 64] {
        let algorithm = Algorithm::Blake2b512(size);
        let place = Place { last: true, ..Place::default() };
        let cuts = cut(&data, &parameters, &place, Some(algorithm), 3, 10_000).unwrap();
        assert_eq!(cuts.digests, digest_ranges(&data, &cuts.lengths, algorithm, 1).unwrap());
        assert_eq!(cuts.digests.len(), cuts.lengths.len() * usize::from(size));
        assert_eq!(streamed(&data, &parameters, 9999, Some(algorithm)).digests, cuts.digests);
        let mut single = vec![0; usize::from(size)];
        algorithm.write(&data[..cuts.lengths[0] as usize], &mut single);
        assert_eq!(single, cuts.digests[..usize::from(size)]);
    }
}

#[test]
fn a_digest_has_its_published_value() {
    let digest = digest_ranges(b"abc", &[3], Algorithm::named("blake2b512").unwrap(), 1).unwrap();
    assert_eq!(digest[..8], [0xba, 0x80, 0xa5, 0x3f, 0x98, 0x1c, 0x4d, 0x0d]);
    let short = digest_ranges(b"abc", &[3], Algorithm::named("blake2b512_32").unwrap(), 1).unwrap();
    assert_eq!(short, digest[..4]);
    for label in ["blake2b512_", "blake2b512_0", "blake2b512_12", "blake2b512_512", "blake2b512_-8", "blake2b"] {
        assert_eq!(Algorithm::named(label), None, "{label}");
    }
}

#[test]
fn impossible_parameters_are_refused() {
    let good = Parameters { kind: Kind::RollSum, bits: 8, minimum: 1, maximum: 10, window: 4 };
    let place = Place::default();
    for bad in [
        Parameters { bits: 0, ..good },
        Parameters { bits: 33, ..good },
        Parameters { maximum: 0, ..good },
        Parameters { window: 0, ..good },
        Parameters { window: MAXIMUM_WINDOW + 1, ..good },
    ] {
        assert_eq!(cut(b"abc", &bad, &place, None, 1, SEGMENT), Err(ParameterError));
    }
    for (before, searched) in [(4, 0), (0, 4), (2, 2), (usize::MAX, 1)] {
        let place = Place { before, searched, ..place };
        assert_eq!(cut(b"abc", &good, &place, None, 1, SEGMENT), Err(ParameterError));
    }
}
