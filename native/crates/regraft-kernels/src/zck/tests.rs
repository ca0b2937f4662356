// SPDX-License-Identifier: Apache-2.0
//! The definition, byte by byte, against which the fast way is held.

use super::{Chunks, SEGMENT, index};
use crate::digest::{Algorithm, digest_ranges};
use crate::table::TABLE;

/// Reproducible bytes without a pattern (splitmix64).
pub fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..count.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(count).collect()
}

/// libzck's loop, with its window and its fill count, and nothing clever. Also says how often a cut was refused.
fn definition(data: &[u8], last: bool) -> (Vec<u32>, usize) {
    let mut lengths = Vec::new();
    let (mut start, mut position, mut refused) = (0, 0, 0);
    let (mut window, mut fill, mut ring, mut hash) = ([0u8; 48], 0usize, 0, 0u32);
    while position < data.len() {
        let byte = data[position];
        let word = TABLE[usize::from(byte)];
        let reported = if fill < 48 {
            window[fill] = byte;
            fill += 1;
            hash ^= word.rotate_left(48 - u32::try_from(fill).unwrap());
            if fill == 48 { hash } else { 1 }
        } else {
            hash = hash.rotate_left(1) ^ TABLE[usize::from(window[ring])].rotate_left(16) ^ word;
            window[ring] = byte;
            ring = (ring + 1) % 48;
            hash
        };
        if reported & 0x7fff == 0 || position - start >= 131_072 {
            if position - start < 8192 {
                refused += 1;
            } else {
                lengths.push(u32::try_from(position - start).unwrap());
                start = position;
                (window, fill, ring, hash) = ([0; 48], 0, 0, 0);
            }
        } else {
            position += 1;
        }
    }
    if last && start < data.len() {
        lengths.push(u32::try_from(data.len() - start).unwrap());
    }
    (lengths, refused)
}

fn check(data: &[u8]) -> usize {
    let mut count = 0;
    for last in [false, true] {
        let (lengths, refused) = definition(data, last);
        for segment in [1000, 4096, 100_003, SEGMENT] {
            for threads in [1, 3] {
                let chunks = index(data, last, None, threads, segment);
                assert_eq!(chunks, Chunks { lengths: lengths.clone(), digests: vec![] }, "{segment} {threads}");
            }
        }
        count = refused;
    }
    count
}

/// 48 bytes whose hash matches, found by trying.
fn matching_window(seed: u64) -> [u8; 48] {
    let data = noise(1 << 20, seed);
    let mut found = Vec::new();
    crate::buzhash::matches_in(&data, 47, data.len(), &mut found);
    data[found[0] - 47..=found[0]].try_into().unwrap()
}

#[test]
fn noise_is_cut_as_defined_whatever_the_segments() {
    let refused: usize = (0..4).map(|seed| check(&noise(1_500_000, seed))).sum();
    assert!(refused > 4, "the early matches that are fed twice must be part of this");
}

#[test]
fn lengths_around_every_bound() {
    let data = noise(131_200, 99);
    let zeros = vec![0; 262_400];
    for length in [0, 1, 46, 47, 48, 49, 8191, 8192, 8193, 131_071, 131_072, 131_073, 131_200] {
        check(&data[..length]);
        check(&zeros[..length]);
        check(&zeros[..2 * length]);
    }
}

#[test]
fn a_match_is_fed_twice_wherever_it_lies() {
    let window = matching_window(5);
    let plain = noise(60_000, 6);
    for end in [47, 48, 60, 94, 95, 4000, 8144, 8145, 8146, 8160, 8190, 8191, 8192, 8193, 8238, 8239, 8240] {
        let mut data = plain.clone();
        data[end - 47..=end].copy_from_slice(&window);
        let refused = check(&data);
        assert!(end >= 8192 || refused >= 1, "{end}");
    }
}

#[test]
fn periods_of_matching_windows() {
    let window = matching_window(11);
    for repeat in [48, 49, 50, 60] {
        let mut data = Vec::new();
        while data.len() < 300_000 {
            data.extend_from_slice(&window);
            data.resize(data.len() + repeat - 48, 0x55);
        }
        assert!(check(&data) > 100);
        let mut mixed = vec![0; 77_777];
        mixed.extend_from_slice(&data[13..20_000]);
        mixed.extend(noise(200_000, 12));
        mixed.extend_from_slice(&data);
        check(&mixed);
    }
}

#[test]
fn short_periods() {
    let bytes = noise(64, 13);
    for period in 1..=32 {
        let data: Vec<u8> = bytes.iter().copied().take(period).cycle().take(150_000).collect();
        check(&data);
    }
}

#[test]
fn digests_are_those_of_the_chunks() {
    let mut data = noise(700_000, 3);
    data.extend(vec![0; 500_000]);
    data.extend(noise(300_000, 4));
    for algorithm in [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512, Algorithm::Sha512Half128] {
        for threads in [1, 4] {
            for last in [false, true] {
                let chunks = index(&data, last, Some(algorithm), threads, 10_000);
                let expected = digest_ranges(&data, &chunks.lengths, algorithm, threads).unwrap();
                assert_eq!(chunks.digests, expected);
                assert_eq!(expected.len(), chunks.lengths.len() * algorithm.size());
                let first = &data[..chunks.lengths[0] as usize];
                let mut digest = vec![0; algorithm.size()];
                algorithm.write(first, &mut digest);
                assert_eq!(digest, expected[..algorithm.size()]);
            }
        }
    }
}

#[test]
fn ranges_may_be_empty_but_not_end_behind_the_data() {
    let digests = digest_ranges(b"abc", &[0, 3, 0], Algorithm::Sha256, 0).unwrap();
    assert_eq!(digests[..32], digests[64..]);
    assert_eq!(digests[32..36], [0xba, 0x78, 0x16, 0xbf]);
    assert!(digest_ranges(b"abc", &[2, 2], Algorithm::Sha256, 1).is_err());
    assert!(digest_ranges(b"abc", &[u32::MAX; 3], Algorithm::Sha256, 1).is_err());
    assert_eq!(digest_ranges(b"abc", &[], Algorithm::Sha1, 1).unwrap(), []);
}
