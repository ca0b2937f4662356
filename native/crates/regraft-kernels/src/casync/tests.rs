// SPDX-License-Identifier: Apache-2.0
//! The definition, byte by byte, against which the fast way is held.

use super::{Parameters, Place, cut, greatest_remainder};
use crate::buzhash::hash_of;
use crate::digest::{Algorithm, digest_ranges};
use crate::rolling::ParameterError;
use crate::zck::tests::noise;

/// casync's loop: a window that is filled anew for each chunk, tested when full and after each further byte.
fn definition(data: &[u8], parameters: &Parameters) -> Vec<u32> {
    let mut lengths = Vec::new();
    let mut start = 0;
    for end in 1..=data.len() {
        let length = end - start;
        if length < 48 {
            continue;
        }
        let hash = hash_of(&data[end - 48..end]);
        let hit = length >= parameters.minimum && hash % parameters.discriminator == parameters.discriminator - 1;
        if hit || length >= parameters.maximum {
            lengths.push(u32::try_from(length).unwrap());
            start = end;
        }
    }
    if start < data.len() {
        lengths.push(u32::try_from(data.len() - start).unwrap());
    }
    lengths
}

/// The same from data that arrives in pieces.
fn streamed(data: &[u8], parameters: &Parameters, piece: usize) -> Vec<u32> {
    let mut lengths = Vec::new();
    let (mut start, mut known) = (0, 0);
    loop {
        let end = data.len().min(known + piece);
        let place = Place { searched: known - start, last: end == data.len() };
        let found = cut(&data[start..end], parameters, place, None, 2, Some(50)).unwrap().0;
        start += found.iter().map(|&length| length as usize).sum::<usize>();
        lengths.extend(found);
        known = end;
        if end == data.len() {
            return lengths;
        }
    }
}

fn settings() -> impl Iterator<Item = Parameters> {
    [
        (1, 1, 1),
        (1, 300, 1),
        (1, 48, 7),
        (16, 64, 32),
        (47, 400, 100),
        (48, 400, 100),
        (49, 400, 100),
        (60, 60, 9),
        (64, 4096, 200),
        (1000, 1000, 500),
        (512, 8192, 3075),
        (100, 5000, u32::MAX),
    ]
    .into_iter()
    .map(|(minimum, maximum, discriminator)| Parameters { minimum, maximum, discriminator })
}

#[test]
fn everything_is_cut_as_defined_whatever_the_pieces() {
    let mut mixed = noise(20_000, 3);
    mixed.extend(vec![0; 9000]);
    mixed.extend(noise(3000, 4));
    mixed.extend([0xff; 700]);
    for parameters in settings() {
        for size in [0, 1, 47, 48, 49, 63, 64, 65, 96, 400, 401, mixed.len()] {
            let data = &mixed[..size];
            let expected = definition(data, &parameters);
            for (threads, segment) in [(1, 1), (3, 100), (2, 1 << 20)] {
                let place = Place { searched: 0, last: true };
                let found = cut(data, &parameters, place, None, threads, Some(segment)).unwrap().0;
                assert_eq!(found, expected, "{parameters:?} {size}");
            }
            assert_eq!(streamed(data, &parameters, 777), expected, "{parameters:?} {size}");
        }
    }
}

#[test]
fn the_remainder_needs_no_division() {
    let words = noise(40_000, 9);
    let hashes = words.as_chunks::<4>().0.iter().map(|&word| u32::from_le_bytes(word));
    for divisor in [1, 2, 3, 5, 48, 255, 256, 3075, 49_535, 65_536, 886_711, 134_217_728, u32::MAX - 1, u32::MAX] {
        let test = greatest_remainder(divisor);
        let greatest = u32::MAX / divisor * divisor;
        let near =
            [0, 1, divisor - 2 + u32::from(divisor == 1), divisor - 1, divisor, greatest - 1, greatest, u32::MAX];
        for hash in hashes.clone().chain(near) {
            assert_eq!(test(hash), hash % divisor == divisor - 1, "{hash} {divisor}");
            let below = hash / divisor * divisor;
            assert_eq!(
                test(below.wrapping_sub(1)),
                below.wrapping_sub(1) % divisor == divisor - 1,
                "{below} {divisor}"
            );
        }
    }
}

#[test]
fn digests_are_those_of_the_chunks() {
    let data = noise(100_000, 5);
    let parameters = Parameters { minimum: 64, maximum: 4096, discriminator: 700 };
    let algorithm = Algorithm::named("sha512_256").unwrap();
    let place = Place { searched: 0, last: true };
    let (lengths, digests) = cut(&data, &parameters, place, Some(algorithm), 2, None).unwrap();
    assert_eq!(digests, digest_ranges(&data, &lengths, algorithm, 1).unwrap());
}

#[test]
fn sha512_256_has_its_published_value() {
    let digest = digest_ranges(b"abc", &[3], Algorithm::named("sha512_256").unwrap(), 1).unwrap();
    assert_eq!(digest[..8], [0x53, 0x04, 0x8e, 0x26, 0x81, 0x94, 0x1e, 0xf9]);
    assert_eq!(digest.len(), 32);
}

#[test]
fn impossible_parameters_are_refused() {
    let good = Parameters { minimum: 1, maximum: 10, discriminator: 4 };
    for bad in [
        Parameters { minimum: 0, ..good },
        Parameters { minimum: 11, ..good },
        Parameters { discriminator: 0, ..good },
        Parameters { maximum: 1 << 32, ..good },
    ] {
        assert_eq!(cut(b"abc", &bad, Place::default(), None, 1, None), Err(ParameterError));
    }
    let place = Place { searched: 4, last: true };
    assert_eq!(cut(b"abc", &good, place, None, 1, None), Err(ParameterError));
}
