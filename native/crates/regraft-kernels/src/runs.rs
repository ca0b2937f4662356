// SPDX-License-Identifier: Apache-2.0
//! Where data lies between zeros.

/// Bytes looked at in one step; the compiler makes vector instructions of it.
const STEP: usize = 64;

/// Maximal runs of blocks that hold a byte other than zero, as start, end, start, end, ... in bytes.
///
/// Blocks have `block` bytes, which must not be 0; the last may be short.
#[must_use]
pub fn data_runs(data: &[u8], block: usize) -> Vec<u64> {
    let mut bounds: Vec<u64> = Vec::new();
    let mut position = 0;
    for piece in data.chunks(block) {
        let end = position + piece.len() as u64;
        if !is_zero(piece) {
            match bounds.last_mut() {
                Some(last) if *last == position => *last = end,
                _ => bounds.extend([position, end]),
            }
        }
        position = end;
    }
    bounds
}

fn is_zero(piece: &[u8]) -> bool {
    let (steps, rest) = piece.as_chunks::<STEP>();
    let zero = |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all | byte) == 0;
    steps.iter().all(|step| zero(step)) && zero(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_blocks_make_one_run_and_zeros_make_none() {
        let mut data = vec![0; 1000];
        assert_eq!(data_runs(&data, 100), []);
        for at in [150, 299, 300, 999] {
            data[at] = 1;
        }
        assert_eq!(data_runs(&data, 100), [100, 400, 900, 1000]);
        assert_eq!(data_runs(&data, 7).last(), Some(&1000));
        assert_eq!(data_runs(&data, 4096), [0, 1000]);
        assert_eq!(data_runs(&[], 1), []);
    }

    #[test]
    fn a_single_byte_is_found_anywhere() {
        for length in [1, 63, 64, 65, 200] {
            for at in 0..length {
                let mut data = vec![0; length];
                data[at] = 0x80;
                assert_eq!(data_runs(&data, 1), [at as u64, at as u64 + 1]);
                assert!(!is_zero(&data));
            }
        }
    }
}
