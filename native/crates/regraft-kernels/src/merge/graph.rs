// SPDX-License-Identifier: Apache-2.0
//! Nodes, their conflicts, and the strongly connected components.

use std::ops::Range;

use super::{Fault, Rows, STAY};

/// Set in an entry of `state` when the node's component is known; the entry is then no longer compared by age.
const DONE: u32 = 1 << 31;

pub struct Graph<'a> {
    rows: Rows<'a>,
    /// The row of each node.
    numbers: Vec<u32>,
    low: Vec<u32>,
    high: Vec<u32>,
}

impl<'a> Graph<'a> {
    pub fn new(rows: Rows<'a>, mut edges: u64) -> Result<Self, Fault> {
        let count = rows.role.len();
        let mut before: Vec<u32> = Vec::with_capacity(count + 1); // nodes among the first rows
        let mut nodes = 0;
        before.push(0);
        for &role in rows.role {
            nodes += u32::from(role != STAY);
            before.push(nodes);
        }
        let mut numbers = Vec::with_capacity(nodes as usize);
        let mut low = Vec::with_capacity(nodes as usize);
        let mut high = Vec::with_capacity(nodes as usize);
        for row in (0..count).filter(|&row| rows.role[row] != STAY) {
            let read = rows.read(row);
            let (first, last) = (before[read.start], before[read.end]);
            edges = edges.checked_sub(u64::from(last - first)).ok_or(Fault::Edges)?;
            numbers.push(number(row));
            low.push(if first < last { first } else { 0 });
            high.push(if first < last { last } else { 0 });
        }
        Ok(Self { rows, numbers, low, high })
    }

    pub fn count(&self) -> usize {
        self.numbers.len()
    }

    pub fn row(&self, node: u32) -> u32 {
        self.numbers[node as usize]
    }

    pub fn size(&self, node: u32) -> u64 {
        self.rows.size(self.numbers[node as usize] as usize)
    }

    pub fn together(&self, nodes: &[u32]) -> u64 {
        nodes.iter().map(|&node| self.size(node)).sum()
    }

    /// The nodes that must come after this one.
    pub fn after(&self, node: u32) -> Range<u32> {
        self.low[node as usize]..self.high[node as usize]
    }

    /// Make a node one that reads nothing.
    pub fn convert(&mut self, node: u32) {
        self.low[node as usize] = 0;
        self.high[node as usize] = 0;
    }

    /// Whether no order can serve this component: it has several nodes, or one that reads what it writes.
    pub fn is_cyclic(&self, part: &[u32]) -> bool {
        part.len() > 1 || self.after(part[0]).contains(&part[0])
    }

    /// Tarjan's components, those behind an edge first; with the memory that Pearce's variant needs.
    pub fn components(&self) -> Parts {
        let mut state = vec![0_u32; self.count()]; // 0: not visited; else the least age that is reached
        let mut parts = Parts { nodes: Vec::with_capacity(self.count()), open: Vec::new() };
        let mut stack: Vec<u32> = Vec::new();
        let mut frames: Vec<Frame> = Vec::new();
        let mut clock = 0;
        for root in 0..number(self.count()) {
            if state[root as usize] != 0 {
                continue;
            }
            frames.push(self.enter(root, &mut clock, &mut state));
            while let Some(frame) = frames.last_mut() {
                let Frame { node, following, age } = *frame;
                if following < self.high[node as usize] {
                    frame.following += 1;
                    let reached = state[following as usize];
                    if reached == 0 {
                        frames.push(self.enter(following, &mut clock, &mut state));
                    } else if reached & DONE == 0 && reached < state[node as usize] {
                        state[node as usize] = reached;
                    }
                    continue;
                }
                frames.pop();
                let least = state[node as usize];
                if let Some(parent) = frames.last() {
                    let above = &mut state[parent.node as usize];
                    *above = least.min(*above);
                }
                if least < age {
                    stack.push(node); // the root of its component is still open
                    continue;
                }
                while let Some(member) = stack.pop_if(|&mut member| state[member as usize] >= age) {
                    state[member as usize] = DONE;
                    parts.nodes.push(member);
                }
                state[node as usize] = DONE;
                parts.close(node);
            }
        }
        parts
    }

    fn enter(&self, node: u32, clock: &mut u32, state: &mut [u32]) -> Frame {
        *clock += 1;
        state[node as usize] = *clock;
        Frame { node, following: self.low[node as usize], age: *clock }
    }
}

#[derive(Clone, Copy)]
struct Frame {
    node: u32,
    following: u32,
    age: u32,
}

/// Components end to end; a bit for each node says whether it is the last of its component.
pub struct Parts {
    nodes: Vec<u32>,
    open: Vec<u64>,
}

impl Parts {
    /// End a component with its last node.
    fn close(&mut self, node: u32) {
        let position = self.nodes.len();
        self.nodes.push(node);
        self.open.resize(position / 64 + 1, 0);
        self.open[position / 64] |= 1 << (position % 64);
    }

    fn is_last(&self, position: usize) -> bool {
        self.open[position / 64] >> (position % 64) & 1 == 1
    }

    /// The components, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u32]> {
        let mut start = 0;
        (0..self.nodes.len()).filter(|&position| self.is_last(position)).map(move |position| {
            let part = &self.nodes[start..=position];
            start = position + 1;
            part
        })
    }

    /// The components, in reverse order.
    pub fn backward(&self) -> impl Iterator<Item = &[u32]> {
        let mut end = self.nodes.len();
        std::iter::from_fn(move || {
            let last = end.checked_sub(1)?;
            let start = (0..last).rev().find(|&position| self.is_last(position)).map_or(0, |position| position + 1);
            let part = &self.nodes[start..end];
            end = start;
            Some(part)
        })
    }

    /// All nodes, in any order.
    pub fn into_nodes(self) -> Vec<u32> {
        self.nodes
    }
}

/// A count as a number of a row or node. There are fewer than 2^31 of them: `Rows::check` has seen to it.
#[allow(clippy::cast_possible_truncation)]
pub fn number(count: usize) -> u32 {
    count as u32
}
