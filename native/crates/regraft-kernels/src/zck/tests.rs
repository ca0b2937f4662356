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

/// Bytes that, repeated, match every `period` positions, first at the 48th.
fn dense(period: usize) -> Vec<u8> {
    let units = noise(1 << 20, 14);
    for unit in units.chunks_exact(period) {
        let data: Vec<u8> = unit.iter().copied().cycle().take(48 + period).collect();
        let mut found = Vec::new();
        crate::buzhash::matches_in(&data, 47, data.len(), &mut found);
        if let Some(at) = found.first() {
            return data[at - 47..][..period].to_vec();
        }
    }
    panic!("2**20 tries find about 32");
}

#[test]
fn a_byte_fed_twice_hides_what_matches_within_the_window() {
    for period in [5, 16, 23, 24, 31, 45, 46, 47] {
        let unit = dense(period);
        for before in [0, 1, 20, 8000, 8145] {
            let mut data = vec![1; before];
            data.extend(unit.iter().cycle().take(30_000));
            assert!(check(&data) > 1);
        }
    }
}

/// A match at 47; one at 62 only in the window that holds byte 47 twice; and one of the data at 103, which disappears if
/// byte 62 is fed twice too.
#[test]
fn what_is_refused_while_a_byte_is_there_twice_is_fed_twice_too() {
    #[rustfmt::skip]
    let bytes = [
        0xbf, 0xde, 0xf3, 0x79, 0x70, 0xef, 0x9e, 0xa4, 0xc0, 0xef, 0x31, 0xdf, 0x31, 0x9d, 0x88, 0x39,
        0x6f, 0x6c, 0x5f, 0xb3, 0xe7, 0x49, 0xb8, 0x9f, 0xcb, 0x6e, 0x8e, 0x6d, 0xb6, 0x2a, 0xf0, 0xa4,
        0x97, 0x84, 0xb2, 0xa2, 0x4b, 0x49, 0x64, 0xdf, 0x02, 0xfb, 0x38, 0xf2, 0x19, 0xe5, 0xfc, 0x85,
        0xc7, 0x19, 0x79, 0x58, 0xd8, 0x71, 0x26, 0x58, 0x3e, 0x44, 0x34, 0xc7, 0x96, 0x1f, 0x18, 0x4d,
        0x3c, 0x95, 0xb7, 0x9c, 0x9c, 0x70, 0x6e, 0xe5, 0xbb, 0xd7, 0x2e, 0xd3, 0x55, 0x16, 0x07, 0x95,
        0xff, 0x9c, 0x13, 0x5c, 0xe4, 0xed, 0x2c, 0xcd, 0x71, 0x06, 0x13, 0xa1, 0x75, 0x16, 0x72, 0xdc,
        0x22, 0x43, 0x4a, 0x64, 0x1c, 0x8d, 0x6a, 0x24, 0x6f, 0xec, 0x42, 0xd5, 0x9b,
    ];
    for before in 8192 - 103..8192 - 62 {
        let mut data = vec![1; before];
        data.extend(bytes);
        data.resize(30_000, 0);
        assert_eq!(check(&data), 2);
        assert_eq!(definition(&data, true).0, [30_000]);
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
