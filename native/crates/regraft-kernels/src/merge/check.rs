// SPDX-License-Identifier: Apache-2.0
//! An order replayed: does every read still see the base?

use super::{Fault, READ, Rows, STAY};

/// The position in `order` of the first row that reads what was overwritten, is written twice, or should not be there;
/// the start of a window that is too large; the length of `order` if a row is missing; None if all is well.
///
/// # Errors
///
/// `Fault::Columns`.
pub fn check(
    rows: Rows<'_>,
    order: &[u32],
    starts: &[u32],
    journaled: &[u8],
    window: u64,
) -> Result<Option<usize>, Fault> {
    rows.check()?;
    let ordered = starts.windows(2).all(|pair| pair[0] <= pair[1]);
    let whole = starts.first() == Some(&0) && starts.last().is_some_and(|&last| last as usize == order.len());
    if starts.len() != journaled.len() + 1 || !ordered || !whole {
        return Err(Fault::Columns);
    }
    let count = rows.role.len();
    let mut written = vec![0_u8; count];
    for (batch, &journaled) in starts.windows(2).zip(journaled) {
        let positions = batch[0] as usize..batch[1] as usize;
        // A window reads everything before it writes anything; of other batches no read may see a write.
        for reading in [journaled != 0, journaled == 0] {
            let mut total = 0;
            for position in positions.clone() {
                let row = order[position] as usize;
                if row >= count || rows.role[row] == STAY {
                    return Ok(Some(position));
                }
                total += rows.size(row);
                if reading {
                    if rows.role[row] == READ && written[rows.read(row)].contains(&1) {
                        return Ok(Some(position));
                    }
                } else if std::mem::replace(&mut written[row], 1) == 1 {
                    return Ok(Some(position));
                }
            }
            if journaled != 0 && !reading && total > window {
                return Ok(Some(positions.start));
            }
        }
    }
    let complete = written.iter().zip(rows.role).all(|(&written, &role)| (written == 1) == (role != STAY));
    Ok((!complete).then_some(order.len()))
}
