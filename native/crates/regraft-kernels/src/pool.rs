// SPDX-License-Identifier: Apache-2.0
//! Threads for the length of one call.

use std::ops::Range;
use std::sync::Mutex;
use std::thread;

/// `wanted`, or one for each core that this process may use if that is 0.
#[must_use]
pub fn thread_count(wanted: usize) -> usize {
    if wanted > 0 {
        return wanted;
    }
    thread::available_parallelism().map_or(1, usize::from)
}

/// Run `worker` here and on up to `threads - 1` further threads, until all have returned.
///
/// A thread that the system refuses is done without: the others take its turns.
pub fn run(threads: usize, worker: impl Fn() + Sync) {
    thread::scope(|scope| {
        for _ in 1..threads {
            if thread::Builder::new().spawn_scoped(scope, &worker).is_err() {
                break;
            }
        }
        worker();
    });
}

/// What `find` appends for each segment of `range`, joined in order. The segments are taken in turns on all threads.
pub fn gather<T: Clone + Send>(
    range: Range<usize>,
    segment: usize,
    threads: usize,
    find: impl Fn(Range<usize>, &mut Vec<T>) + Sync,
) -> Vec<T> {
    let count = range.len().div_ceil(segment);
    let mut parts: Vec<Vec<T>> = vec![Vec::new(); count];
    let tasks = Mutex::new(parts.iter_mut().enumerate());
    run(thread_count(threads).min(count), || {
        while let Some((number, found)) = tasks.lock().ok().and_then(|mut tasks| tasks.next()) {
            let start = range.start + number * segment;
            find(start..range.end.min(start + segment), found);
        }
    });
    parts.concat()
}
