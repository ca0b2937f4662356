// SPDX-License-Identifier: Apache-2.0
//! Who does what next: segments to search, chunks to hash.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Chunks;
use super::cutter::Cutter;
use crate::buzhash::{WINDOW, matches_in};
use crate::digest::Algorithm;

/// Bytes of chunks hashed in one turn.
const HASH_TURN: usize = 256 << 10;

/// What a worker does next.
pub enum Turn {
    /// Look for matching positions.
    Search(Search),
    /// Digest chunks.
    Hash(Hash),
    /// Nothing until another worker has finished its turn.
    Wait,
    /// Nothing any more.
    Done,
}

/// One segment, searched without knowledge of any other.
pub struct Search {
    segment: usize,
    range: Range<usize>,
}

impl Search {
    /// The matching positions in the segment.
    pub fn run(&self, data: &[u8]) -> Vec<usize> {
        let mut found = Vec::new();
        matches_in(data, self.range.start.max(WINDOW - 1), self.range.end, &mut found);
        found
    }
}

/// Neighbouring chunks.
pub struct Hash {
    algorithm: Algorithm,
    first: usize,
    start: usize,
    lengths: Vec<u32>,
}

impl Hash {
    /// Their digests, joined.
    pub fn run(&self, data: &[u8]) -> Vec<u8> {
        let mut digests = vec![0; self.lengths.len() * self.algorithm.size()];
        let mut rest = &data[self.start..];
        for (&length, out) in self.lengths.iter().zip(digests.chunks_exact_mut(self.algorithm.size())) {
            let (chunk, after) = rest.split_at(length as usize);
            self.algorithm.write(chunk, out);
            rest = after;
        }
        digests
    }
}

/// The work that is left, and the results so far.
pub struct Schedule {
    size: usize,
    last: bool,
    algorithm: Option<Algorithm>,
    segment: usize,
    /// Segments searched ahead of the walk, at most: bounds the memory for positions found.
    ahead: usize,
    to_search: usize,
    to_walk: usize,
    found: BTreeMap<usize, (Search, Vec<usize>)>,
    cutter: Cutter,
    to_hash: usize,
    to_hash_at: usize,
    digests: Vec<u8>,
}

impl Schedule {
    pub fn new(data: &[u8], last: bool, algorithm: Option<Algorithm>, segment: usize, threads: usize) -> Self {
        Self {
            size: data.len(),
            last,
            algorithm,
            segment,
            ahead: 2 * threads,
            to_search: 0,
            to_walk: 0,
            found: BTreeMap::new(),
            cutter: Cutter::default(),
            to_hash: 0,
            to_hash_at: 0,
            digests: Vec::new(),
        }
    }

    /// The next turn: chunks first, as they are still in the cache.
    pub fn next(&mut self) -> Turn {
        if let Some(job) = self.next_hash() {
            return Turn::Hash(job);
        }
        let start = self.to_search * self.segment;
        if start < self.size {
            if self.to_search >= self.to_walk + self.ahead {
                return Turn::Wait;
            }
            let search = Search { segment: self.to_search, range: start..self.size.min(start + self.segment) };
            self.to_search += 1;
            return Turn::Search(search);
        }
        if self.to_walk < self.to_search { Turn::Wait } else { Turn::Done }
    }

    fn next_hash(&mut self) -> Option<Hash> {
        let algorithm = self.algorithm?;
        let mut job = Hash { algorithm, first: self.to_hash, start: self.to_hash_at, lengths: Vec::new() };
        let mut bytes = 0;
        for &length in &self.cutter.lengths()[self.to_hash..] {
            if bytes >= HASH_TURN {
                break;
            }
            job.lengths.push(length);
            bytes += length as usize;
        }
        self.to_hash += job.lengths.len();
        self.to_hash_at += bytes;
        (!job.lengths.is_empty()).then_some(job)
    }

    /// A segment was searched: walk on as far as the segments are known without a gap.
    pub fn searched(&mut self, data: &[u8], search: Search, found: Vec<usize>) {
        self.found.insert(search.segment, (search, found));
        while let Some((search, found)) = self.found.remove(&self.to_walk) {
            self.cutter.advance(data, &found, search.range.end);
            self.to_walk += 1;
            if self.last && search.range.end == self.size {
                self.cutter.end(data);
            }
        }
    }

    /// Chunks were hashed.
    pub fn hashed(&mut self, job: &Hash, digests: &[u8]) {
        let at = job.first * job.algorithm.size();
        let end = at + digests.len();
        if self.digests.len() < end {
            self.digests.resize(end, 0);
        }
        self.digests[at..end].copy_from_slice(digests);
    }

    /// The results, when all is done.
    pub fn finish(self) -> Chunks {
        Chunks { lengths: self.cutter.into_lengths(), digests: self.digests }
    }
}
