// SPDX-License-Identifier: Apache-2.0
//! The hot loops of regraft, without Python: slices in, columns out.
//!
//! Every function gives exactly what its sequential definition gives, whatever the number of threads. The Python twins
//! in `regraft.kernels` are the oracle of a differential test.

#![forbid(unsafe_code)]

mod buzhash;
pub mod casync;
mod digest;
pub mod merge;
mod pool;
pub mod rolling;
mod runs;
mod table;
mod zck;

pub use digest::{Algorithm, RangeError, digest_ranges};
pub use pool::thread_count;
pub use runs::data_runs;
pub use zck::{Chunks, SEGMENT, index};
