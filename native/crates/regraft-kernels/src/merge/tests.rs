// SPDX-License-Identifier: Apache-2.0

use super::*;

const BLOCK: u64 = 4096;

/// Blocks that read the blocks `from`.
fn blocks(from: &[u64]) -> (Vec<u64>, Vec<u64>, Vec<u8>) {
    let bounds = (0..=from.len() as u64).map(|block| block * BLOCK).collect();
    let role = (0..).zip(from).map(|(block, &source)| if source == block { STAY } else { READ }).collect();
    (bounds, from.iter().map(|&source| source * BLOCK).collect(), role)
}

fn ordered(from: &[u64], cost: &[u32], window: u64) -> Order {
    let (bounds, at, role) = blocks(from);
    let rows = Rows { bounds: &bounds, at: &at, role: &role };
    let sizes = Sizes { window: window * BLOCK, batch: 64 * BLOCK, worth: 16 * BLOCK };
    let found = order(rows, cost, sizes, 1 << 20).unwrap();
    if found.needed == 0 {
        let mut role = role.clone();
        for &row in &found.converted {
            role[row as usize] = WRITE;
        }
        let rows = Rows { role: &role, ..rows };
        assert_eq!(check(rows, &found.order, &found.starts, &found.journaled, sizes.window), Ok(None));
    }
    found
}

#[test]
fn a_shift_needs_no_conversion() {
    let from: Vec<u64> = (1..=1000).collect();
    let found = ordered(&from, &[1; 1000], 10);
    assert_eq!(found.converted, []);
    assert_eq!(found.order.len(), 1000);
    assert!(found.journaled.contains(&1));
}

#[test]
fn a_cycle_that_fits_the_window_is_journaled_and_a_longer_one_loses_its_cheapest_row() {
    let from = [1, 2, 3, 4, 0, 5];
    let found = ordered(&from, &[9, 9, 3, 9, 9, 1], 5);
    assert_eq!((found.converted, found.journaled), (vec![], vec![1]));
    let found = ordered(&from, &[9, 9, 3, 9, 9, 1], 4);
    assert_eq!(found.converted, [2]);
    let found = ordered(&from, &[NEVER; 6], 4);
    assert_eq!(found.needed, 5 * BLOCK);
}

#[test]
fn rows_in_no_conflict_are_written_directly() {
    let found = ordered(&[9, 9, 9, 3, 9, 9, 9, 9, 9, 9], &[1; 10], 4);
    assert_eq!((found.starts, found.journaled), (vec![0, 8], vec![0]));
}

#[test]
fn an_order_that_overwrites_what_is_still_needed_is_found_out() {
    let (bounds, at, role) = blocks(&[1, 2, 3, 4, 4]);
    let rows = Rows { bounds: &bounds, at: &at, role: &role };
    let replay = |order: &[u32], starts: &[u32], journaled: &[u8]| check(rows, order, starts, journaled, 2 * BLOCK);
    assert_eq!(replay(&[0, 1, 2, 3], &[0, 1, 2, 3, 4], &[0; 4]), Ok(None));
    assert_eq!(replay(&[0, 1, 2, 3], &[0, 2, 4], &[1, 1]), Ok(None));
    assert_eq!(replay(&[0, 1, 2, 3], &[0, 2, 4], &[0, 1]), Ok(Some(0)));
    assert_eq!(replay(&[1, 0, 2, 3], &[0, 1, 2, 3, 4], &[0; 4]), Ok(Some(1)));
    assert_eq!(replay(&[0, 1, 2, 3], &[0, 4], &[1]), Ok(Some(0)));
    assert_eq!(replay(&[0, 1, 2], &[0, 1, 2, 3], &[0; 3]), Ok(Some(3)));
    assert_eq!(replay(&[0, 0, 2, 3], &[0, 1, 2, 3, 4], &[0; 4]), Ok(Some(1)));
    assert_eq!(replay(&[0, 9, 2, 3], &[0, 1, 2, 3, 4], &[0; 4]), Ok(Some(1)));
    assert_eq!(replay(&[0, 1], &[0, 1], &[0]), Err(Fault::Columns));
}

#[test]
fn made_up_conflicts_are_bounded() {
    let (bounds, at, role) = blocks(&[1, 2, 3, 4, 0]);
    let rows = Rows { bounds: &bounds, at: &at, role: &role };
    let sizes = Sizes { window: 0, batch: 1, worth: 1 };
    assert_eq!(order(rows, &[1; 5], sizes, 4), Err(Fault::Edges));
}
