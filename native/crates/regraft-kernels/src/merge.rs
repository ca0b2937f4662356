// SPDX-License-Identifier: Apache-2.0
//! The order in which the rows of an image are written over the very base that they are read from.
//!
//! Rows that are written are called nodes, in target order. What a node reads is one range of the base, so what is in
//! conflict with it is one run of nodes: the edges of the graph, never stored. Strongly connected components are the
//! sets of nodes that no order can serve. Those that fit a window are left whole, of the others some nodes are
//! converted. The rest is levels: the longest path to a node, so that no node of a level reads what another one writes.

mod batches;
mod check;
mod feedback;
mod graph;
#[cfg(test)]
mod tests;

pub use check::check;

use graph::Graph;

/// A row that is in its place already.
pub const STAY: u8 = 0;
/// A row that is written and reads nothing of the base.
pub const WRITE: u8 = 1;
/// A row that reads as many bytes of the base as it has.
pub const READ: u8 = 2;

/// Cost of a row that cannot be converted.
pub const NEVER: u32 = u32::MAX;

/// A column per property of a row.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Row r is the bytes bounds[r]..bounds[r + 1].
    pub bounds: &'a [u64],
    /// Where it reads, in bytes.
    pub at: &'a [u64],
    /// `STAY`, `WRITE` or `READ`.
    pub role: &'a [u8],
}

/// How large, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// What a window holds.
    pub window: u64,
    /// The most that a direct batch has.
    pub batch: u64,
    /// What is worth a direct batch before a window.
    pub worth: u64,
}

/// Rows in batches, in the order in which they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// All rows that are written.
    pub order: Vec<u32>,
    /// Batch b is order[starts[b]..starts[b + 1]].
    pub starts: Vec<u32>,
    /// For each batch whether it is a window: 1, or not: 0.
    pub journaled: Vec<u8>,
    /// Rows that must not read, ascending.
    pub converted: Vec<u32>,
    /// If not 0, there is no order: so many bytes a window would have to hold.
    pub needed: u64,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The columns do not belong together.
    Columns,
    /// There are more conflicts than allowed.
    Edges,
}

/// Order the rows. `cost` is what it costs to convert a row; `edges` the most conflicts that are looked at.
///
/// # Errors
///
/// `Fault` as it says.
pub fn order(rows: Rows<'_>, cost: &[u32], sizes: Sizes, edges: u64) -> Result<Order, Fault> {
    rows.check()?;
    if cost.len() != rows.role.len() {
        return Err(Fault::Columns);
    }
    let mut graph = Graph::new(rows, edges)?;
    // What reads as it writes and fits no window.
    let mut converted: Vec<u32> = (0..graph::number(graph.count()))
        .filter(|&node| {
            graph.is_cyclic(&[node]) && graph.size(node) > sizes.window && cost[graph.row(node) as usize] != NEVER
        })
        .collect();
    for &node in &converted {
        graph.convert(node);
    }
    let mut parts = graph.components();
    for part in parts.iter() {
        if graph.is_cyclic(part) && graph.together(part) > sizes.window {
            let mut members = part.to_vec();
            members.sort_unstable();
            converted.extend(feedback::conversions(&graph, &members, cost, sizes.window));
        }
    }
    if !converted.is_empty() {
        converted.sort_unstable();
        for &node in &converted {
            graph.convert(node);
        }
        parts = graph.components();
    }
    let needed = parts.iter().filter(|part| graph.is_cyclic(part)).map(|part| graph.together(part)).max();
    if let Some(needed) = needed.filter(|&needed| needed > sizes.window) {
        return Ok(Order { starts: vec![0], needed, ..Order::default() });
    }
    let mut found = batches::batches(&graph, parts, sizes);
    found.converted = converted.into_iter().map(|node| graph.row(node)).collect();
    Ok(found)
}

impl Rows<'_> {
    fn check(&self) -> Result<(), Fault> {
        let count = self.role.len();
        let ascending = self.bounds.windows(2).all(|pair| pair[0] < pair[1]);
        if self.bounds.len() != count + 1
            || self.at.len() != count
            || count >= 1 << 31
            || !ascending
            || self.role.iter().any(|&role| role > READ)
        {
            return Err(Fault::Columns);
        }
        Ok(())
    }

    fn size(&self, row: usize) -> u64 {
        self.bounds[row + 1] - self.bounds[row]
    }

    /// The rows of which this one reads a part.
    fn read(&self, row: usize) -> std::ops::Range<usize> {
        let total = self.bounds[self.role.len()];
        if self.role[row] != READ || self.at[row] >= total {
            return 0..0;
        }
        let end = self.at[row].saturating_add(self.size(row)).min(total);
        let first = self.bounds.partition_point(|&bound| bound <= self.at[row]) - 1;
        first..self.bounds.partition_point(|&bound| bound < end)
    }
}
