// SPDX-License-Identifier: Apache-2.0
//! Threads for the length of one call.

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
