// SPDX-License-Identifier: Apache-2.0
//! Which nodes of a strongly connected component are converted, so that what is left of it fits a window.
//!
//! One cycle is solved by its cheapest node. For anything else: the reductions of Levy and Low, then the node that costs
//! least for the ways that lead through it, until no cycle is left. At last every choice, the dearest first, is undone
//! if the components then still fit the window.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};

use super::NEVER;
use super::graph::{Graph, number};

/// Steps that the search for better choices may take, per node and edge.
const PATIENCE: i64 = 64;

/// Nodes of `members` (ascending) to convert. Where none can be, what remains does not fit.
pub fn conversions(graph: &Graph<'_>, members: &[u32], cost: &[u32], window: u64) -> Vec<u32> {
    let costs: Vec<u32> = members.iter().map(|&node| cost[graph.row(node) as usize]).collect();
    let inside = |node: u32| {
        let after = graph.after(node);
        let first = members.partition_point(|&other| other < after.start);
        let last = members.partition_point(|&other| other < after.end);
        (first..last).filter(move |&position| members[position] != node).map(number)
    };
    if members.len() == 1 || members.iter().all(|&node| inside(node).count() == 1) {
        let best = (0..members.len()).min_by_key(|&position| (costs[position], position));
        return best.filter(|&best| costs[best] != NEVER).map(|best| members[best]).into_iter().collect();
    }
    let ways: Vec<Vec<u32>> = members.iter().map(|&node| inside(node).collect()).collect();
    let mut back: Vec<Vec<u32>> = vec![Vec::new(); members.len()];
    for (position, way) in (0..).zip(&ways) {
        for &other in way {
            back[other as usize].push(position);
        }
    }
    let edges: usize = ways.iter().map(Vec::len).sum();
    let patience = PATIENCE * (i64::from(number(members.len())) + i64::try_from(edges).unwrap_or(i64::MAX / 128));
    let mut cut = Cut::new(&ways, &back, &costs, patience);
    cut.run();
    let chosen = cut.chosen;
    let converted = without_needless(&ways, &back, &costs, chosen, patience, |position| {
        (graph.size(members[position as usize]), window)
    });
    (0..members.len()).filter(|&at| converted[at] && costs[at] != NEVER).map(|at| members[at]).collect()
}

/// A node and what it costs for each way through it; the least first.
#[derive(PartialEq)]
struct Weighed(f64, u32);

impl Eq for Weighed {}

impl PartialOrd for Weighed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Weighed {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0).then(self.1.cmp(&other.1))
    }
}

/// Finds nodes without which there is no cycle.
struct Cut<'a> {
    costs: &'a [u32],
    after: Vec<Vec<u32>>,
    before: Vec<Vec<u32>>,
    alive: Vec<bool>,
    waiting: Vec<bool>,
    queue: VecDeque<u32>,
    patience: i64,
    chosen: Vec<u32>,
}

impl<'a> Cut<'a> {
    fn new(ways: &[Vec<u32>], back: &[Vec<u32>], costs: &'a [u32], patience: i64) -> Self {
        Self {
            costs,
            after: ways.to_vec(),
            before: back.to_vec(),
            alive: vec![true; ways.len()],
            waiting: vec![true; ways.len()],
            queue: (0..number(ways.len())).collect(),
            patience,
            chosen: Vec::new(),
        }
    }

    fn run(&mut self) {
        let mut heap: BinaryHeap<Reverse<Weighed>> = BinaryHeap::new();
        loop {
            while let Some(node) = self.queue.pop_front() {
                let at = node as usize;
                self.waiting[at] = false;
                if !self.alive[at] {
                    continue;
                }
                if self.after[at].binary_search(&node).is_ok() {
                    self.chosen.push(node);
                    self.remove(node);
                } else if self.after[at].is_empty() || self.before[at].is_empty() {
                    self.remove(node);
                } else if !self.bypass(node) {
                    heap.push(Reverse(Weighed(self.weight(node), node)));
                }
            }
            loop {
                let Some(Reverse(Weighed(key, node))) = heap.pop() else { return };
                if self.alive[node as usize] && key.total_cmp(&self.weight(node)).is_eq() {
                    self.chosen.push(node);
                    self.remove(node);
                    break;
                }
            }
        }
    }

    fn weight(&self, node: u32) -> f64 {
        let at = node as usize;
        let ways = self.after[at].len() * self.before[at].len();
        let price = if self.costs[at] == NEVER { f64::INFINITY } else { f64::from(self.costs[at]) };
        #[allow(clippy::cast_precision_loss)] // as in Python
        let ways = ways as f64;
        price / ways
    }

    fn touch(&mut self, node: u32) {
        let at = node as usize;
        if self.alive[at] && !self.waiting[at] {
            self.waiting[at] = true;
            self.queue.push_back(node);
        }
    }

    /// Take the node out; gives back its neighbours: those before and those after it.
    fn remove(&mut self, node: u32) -> (Vec<u32>, Vec<u32>) {
        let at = node as usize;
        self.alive[at] = false;
        let after = std::mem::take(&mut self.after[at]);
        for &other in &after {
            delete(&mut self.before[other as usize], node);
            self.touch(other);
        }
        let before = std::mem::take(&mut self.before[at]);
        for &other in &before {
            delete(&mut self.after[other as usize], node);
            self.touch(other);
        }
        (before, after)
    }

    /// Let the only node before or after this one stand for it, if that costs no more.
    fn bypass(&mut self, node: u32) -> bool {
        if self.patience <= 0 {
            return false;
        }
        let at = node as usize;
        if let [heir] = self.before[at][..]
            && self.costs[at] >= self.costs[heir as usize]
        {
            let (_, moved) = self.remove(node);
            for &other in &moved {
                insert(&mut self.after[heir as usize], other);
                insert(&mut self.before[other as usize], heir);
            }
            self.patience -= i64::from(number(moved.len()));
            self.touch(heir);
            return true;
        }
        if let [heir] = self.after[at][..]
            && self.costs[at] >= self.costs[heir as usize]
        {
            let (moved, _) = self.remove(node);
            for &other in &moved {
                insert(&mut self.before[heir as usize], other);
                insert(&mut self.after[other as usize], heir);
            }
            self.patience -= i64::from(number(moved.len()));
            self.touch(heir);
            return true;
        }
        false
    }
}

fn delete(sorted: &mut Vec<u32>, node: u32) {
    if let Ok(position) = sorted.binary_search(&node) {
        sorted.remove(position);
    }
}

fn insert(sorted: &mut Vec<u32>, node: u32) {
    if let Err(position) = sorted.binary_search(&node) {
        sorted.insert(position, node);
    }
}

/// Flags of the choices that cannot be undone one by one, tried from the dearest on. `sizes` gives that of a node, and
/// of the window.
fn without_needless(
    ways: &[Vec<u32>],
    back: &[Vec<u32>],
    costs: &[u32],
    mut chosen: Vec<u32>,
    mut patience: i64,
    sizes: impl Fn(u32) -> (u64, u64),
) -> Vec<bool> {
    let mut converted = vec![false; ways.len()];
    for &node in &chosen {
        converted[node as usize] = true;
    }
    chosen.sort_unstable_by_key(|&node| (Reverse(costs[node as usize]), node));
    let mut seen = vec![0_u32; ways.len()]; // 2 r - 1: reached in round r, 2 r: and leads back
    let mut stack = Vec::new();
    for (round, &node) in (1..).zip(&chosen) {
        converted[node as usize] = false;
        let ahead = 2 * round - 1;
        seen[node as usize] = ahead;
        stack.clear();
        stack.push(node);
        while patience > 0 {
            let Some(here) = stack.pop() else { break };
            if converted[here as usize] {
                continue;
            }
            patience -= i64::from(number(ways[here as usize].len()));
            for &other in &ways[here as usize] {
                if seen[other as usize] != ahead {
                    seen[other as usize] = ahead;
                    stack.push(other);
                }
            }
        }
        let (mut total, window) = sizes(node);
        seen[node as usize] = ahead + 1;
        stack.clear();
        stack.push(node);
        while patience > 0 && total <= window {
            let Some(here) = stack.pop() else { break };
            patience -= i64::from(number(back[here as usize].len()));
            for &other in &back[here as usize] {
                if seen[other as usize] == ahead && !converted[other as usize] {
                    seen[other as usize] = ahead + 1;
                    total += sizes(other).0;
                    stack.push(other);
                }
            }
        }
        if patience <= 0 || total > window {
            converted[node as usize] = true;
        }
    }
    converted
}
