// SPDX-License-Identifier: Apache-2.0
//! From components to levels, and from levels to batches.

use super::graph::{Graph, Parts, number};
use super::{Order, Sizes};

/// A node with the place of its component: its level, whether it is cyclic, and its first node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Placed {
    level: u32,
    cyclic: bool,
    head: u32,
    node: u32,
}

/// All nodes in batches.
pub fn batches(graph: &Graph<'_>, parts: Parts, sizes: Sizes) -> Order {
    let mut level = vec![0_u32; graph.count()];
    let reading = (0..number(graph.count())).filter(|&node| !graph.after(node).is_empty()).count();
    let mut placed: Vec<Placed> = Vec::with_capacity(reading);
    for part in parts.backward() {
        // Now an edge leads to what comes later. What does not read comes at the very end.
        if graph.after(part[0]).is_empty() {
            continue;
        }
        let here = part.iter().map(|&node| level[node as usize]).max().unwrap_or(0);
        let head = part.iter().copied().min().unwrap_or(0);
        let cyclic = graph.is_cyclic(part);
        for &node in part {
            for other in graph.after(node) {
                level[other as usize] = level[other as usize].max(here + 1);
            }
            placed.push(Placed { level: here, cyclic, head, node });
        }
    }
    drop((parts.into_nodes(), level));
    placed.sort_unstable();
    let mut batches = Batches::new(graph, sizes);
    for level in placed.chunk_by(|one, other| one.level == other.level) {
        let (alone, cyclic) = level.split_at(level.partition_point(|placed| !placed.cyclic));
        if alone.iter().map(|placed| graph.size(placed.node)).sum::<u64>() >= sizes.worth {
            batches.flush();
            batches.direct(alone.iter().map(|placed| placed.node));
        } else {
            for placed in alone {
                batches.add(&[*placed]);
            }
        }
        for part in cyclic.chunk_by(|one, other| one.head == other.head) {
            batches.add(part);
        }
    }
    batches.flush();
    batches.direct((0..number(graph.count())).filter(|&node| graph.after(node).is_empty()));
    batches.found
}

struct Batches<'a> {
    graph: &'a Graph<'a>,
    sizes: Sizes,
    gathered: Vec<u32>,
    bytes: u64,
    found: Order,
}

impl<'a> Batches<'a> {
    fn new(graph: &'a Graph<'a>, sizes: Sizes) -> Self {
        let order = Vec::with_capacity(graph.count());
        let found = Order { order, starts: vec![0], ..Order::default() };
        Self { graph, sizes, gathered: Vec::new(), bytes: 0, found }
    }

    /// Put a component into the next window.
    fn add(&mut self, part: &[Placed]) {
        let size: u64 = part.iter().map(|placed| self.graph.size(placed.node)).sum();
        if self.bytes + size > self.sizes.window {
            self.flush();
        }
        self.gathered.extend(part.iter().map(|placed| placed.node));
        self.bytes += size;
    }

    /// End the window. If none of its nodes reads what another one writes, it needs no journal.
    fn flush(&mut self) {
        let mut nodes = std::mem::take(&mut self.gathered);
        self.bytes = 0;
        nodes.sort_unstable();
        let below = |bound: u32| nodes.partition_point(|&node| node < bound);
        let in_conflict = nodes.iter().any(|&node| {
            let after = self.graph.after(node);
            below(after.start) < below(after.end)
        });
        if in_conflict {
            self.found.order.extend(nodes.iter().map(|&node| self.graph.row(node)));
            self.end(1);
        } else {
            self.direct(nodes.into_iter());
        }
    }

    /// Nodes of which none reads what one of them writes, in pieces.
    fn direct(&mut self, nodes: impl Iterator<Item = u32>) {
        let mut size = 0;
        for node in nodes {
            let more = self.graph.size(node);
            if size > 0 && size + more > self.sizes.batch {
                self.end(0);
                size = 0;
            }
            self.found.order.push(self.graph.row(node));
            size += more;
        }
        if size > 0 {
            self.end(0);
        }
    }

    fn end(&mut self, journaled: u8) {
        self.found.starts.push(number(self.found.order.len()));
        self.found.journaled.push(journaled);
    }
}
