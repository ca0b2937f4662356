// SPDX-License-Identifier: Apache-2.0
//! `regraft_native`: buffers in, bytes out. What the functions mean is written in Python, in `regraft.kernels`.

#![allow(clippy::needless_pass_by_value)] // a function called from Python owns what was extracted for it

use pyo3::buffer::{Element, PyBuffer};
use pyo3::exceptions::{PyBufferError, PyOverflowError, PyRuntimeWarning, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use regraft_kernels::casync;
use regraft_kernels::merge::{self, Fault, Rows, Sizes};
use regraft_kernels::rolling::{self, Cuts, Kind, Parameters, Place};
use regraft_kernels::{Algorithm, Chunks, SEGMENT};

/// The items of a buffer, without a copy.
///
/// The exporter keeps the memory where it is while `buffer` lives. Nothing keeps another thread from writing to it
/// while the interpreter is released: as with `hashlib`, that is up to the caller, and gives wrong results only.
fn items_of<T: Element>(buffer: &PyBuffer<T>) -> PyResult<&[T]> {
    if buffer.item_count() == 0 {
        return Ok(&[]);
    }
    if !buffer.is_c_contiguous() {
        return Err(PyBufferError::new_err("a contiguous buffer is needed"));
    }
    // SAFETY: PyBuffer has checked that the items are of this type and aligned for it; the buffer is contiguous and not
    // empty, so that `buf_ptr` points to `item_count` items that stay allocated as long as `buffer` is borrowed. Every
    // pattern of bits is a value of the integers that this is used with.
    Ok(unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast::<T>(), buffer.item_count()) })
}

fn algorithm_named(label: &str) -> PyResult<Algorithm> {
    Algorithm::named(label).ok_or_else(|| PyValueError::new_err(format!("unknown digest algorithm {label:?}")))
}

fn column<const SIZE: usize, T: Copy>(values: &[T], to_bytes: impl Fn(T) -> [u8; SIZE]) -> Vec<u8> {
    values.iter().flat_map(|&value| to_bytes(value)).collect()
}

/// Lengths (native 32 bit words) and digests of the chunks.
#[pyfunction]
#[pyo3(signature = (data, r#final, algorithm, threads, segment=SEGMENT))]
fn zck_index<'py>(
    py: Python<'py>,
    data: PyBuffer<u8>,
    r#final: bool,
    algorithm: Option<&str>,
    threads: usize,
    segment: usize,
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    let bytes = items_of(&data)?;
    let algorithm = algorithm.map(algorithm_named).transpose()?;
    let Chunks { lengths, digests } = py.detach(|| regraft_kernels::index(bytes, r#final, algorithm, threads, segment));
    Ok((PyBytes::new(py, &column(&lengths, u32::to_ne_bytes)), PyBytes::new(py, &digests)))
}

/// Lengths (native 32 bit words) and digests of the chunks, and what to carry on.
///
/// `parameters` are bits, minimum, maximum, window; `place` is before, searched, carry.
#[pyfunction]
#[pyo3(signature = (data, kind, parameters, place, r#final, algorithm, threads, segment=rolling::SEGMENT))]
#[allow(clippy::too_many_arguments)] // one for each in Python
fn rolling_index<'py>(
    py: Python<'py>,
    data: PyBuffer<u8>,
    kind: &str,
    parameters: (u32, usize, usize, usize),
    place: (usize, usize, u32),
    r#final: bool,
    algorithm: Option<&str>,
    threads: usize,
    segment: usize,
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>, u32)> {
    let bytes = items_of(&data)?;
    let kind = match kind {
        "rollsum" => Kind::RollSum,
        "buzhash" => Kind::BuzHash,
        _ => return Err(PyValueError::new_err(format!("unknown rolling hash {kind:?}"))),
    };
    let (bits, minimum, maximum, window) = parameters;
    let parameters = Parameters { kind, bits, minimum, maximum, window };
    let (before, searched, carry) = place;
    let place = Place { before, searched, carry, last: r#final };
    let algorithm = algorithm.map(algorithm_named).transpose()?;
    let Cuts { lengths, digests, carry } = py
        .detach(|| rolling::cut(bytes, &parameters, &place, algorithm, threads, segment))
        .map_err(|_| PyValueError::new_err("no chunker has these parameters, or the place is outside of the data"))?;
    Ok((PyBytes::new(py, &column(&lengths, u32::to_ne_bytes)), PyBytes::new(py, &digests), carry))
}

/// Lengths (native 32 bit words) and digests of the chunks.
///
/// `parameters` are minimum, maximum, discriminator.
#[pyfunction]
#[pyo3(signature = (data, parameters, searched, r#final, algorithm, threads, segment=None))]
#[allow(clippy::too_many_arguments)] // one for each in Python
fn casync_index<'py>(
    py: Python<'py>,
    data: PyBuffer<u8>,
    parameters: (usize, usize, u32),
    searched: usize,
    r#final: bool,
    algorithm: Option<&str>,
    threads: usize,
    segment: Option<usize>,
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    let bytes = items_of(&data)?;
    let (minimum, maximum, discriminator) = parameters;
    let parameters = casync::Parameters { minimum, maximum, discriminator };
    let place = casync::Place { searched, last: r#final };
    let algorithm = algorithm.map(algorithm_named).transpose()?;
    let (lengths, digests) = py
        .detach(|| casync::cut(bytes, &parameters, place, algorithm, threads, segment))
        .map_err(|_| PyValueError::new_err("no chunker has these parameters, or the place is outside of the data"))?;
    Ok((PyBytes::new(py, &column(&lengths, u32::to_ne_bytes)), PyBytes::new(py, &digests)))
}

/// Joined digests of consecutive ranges, whose lengths are native 32 bit words.
#[pyfunction]
fn digest_ranges<'py>(
    py: Python<'py>,
    data: PyBuffer<u8>,
    lengths: PyBuffer<u8>,
    algorithm: &str,
    threads: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = items_of(&data)?;
    let (words, rest) = items_of(&lengths)?.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(PyValueError::new_err("lengths are words of 32 bits"));
    }
    let lengths: Vec<u32> = words.iter().map(|&word| u32::from_ne_bytes(word)).collect();
    let algorithm = algorithm_named(algorithm)?;
    py.detach(|| regraft_kernels::digest_ranges(bytes, &lengths, algorithm, threads))
        .map(|digests| PyBytes::new(py, &digests))
        .map_err(|_| PyValueError::new_err("the ranges end behind the data"))
}

/// Starts and ends (native 64 bit words) of the runs of blocks that are not zero.
#[pyfunction]
fn data_runs(py: Python<'_>, data: PyBuffer<u8>, block: usize) -> PyResult<Bound<'_, PyBytes>> {
    if block == 0 {
        return Err(PyValueError::new_err("a block has at least one byte"));
    }
    let bytes = items_of(&data)?;
    let runs = py.detach(|| column(&regraft_kernels::data_runs(bytes, block), u64::to_ne_bytes));
    Ok(PyBytes::new(py, &runs))
}

type Columns<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>, Bound<'py, PyBytes>, Bound<'py, PyBytes>, u64);

fn fault(fault: Fault) -> PyErr {
    match fault {
        Fault::Columns => PyValueError::new_err("the columns do not belong together"),
        Fault::Edges => PyOverflowError::new_err("too many conflicts"),
    }
}

/// An array, of which an empty one need not be aligned.
struct Items<T: Element>(Option<PyBuffer<T>>);

impl<T: Element> Items<T> {
    fn new(array: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self(if array.len()? == 0 { None } else { Some(PyBuffer::get(array)?) }))
    }

    fn slice(&self) -> PyResult<&[T]> {
        self.0.as_ref().map_or(Ok(&[]), items_of)
    }
}

/// Rows in order and starts of batches (native 32 bit words), kinds of batches (bytes), converted rows (words), and the
/// window that would be needed. `sizes` are window, batch, worth.
#[pyfunction]
fn merge_order<'py>(
    py: Python<'py>,
    bounds: &Bound<'_, PyAny>,
    at: &Bound<'_, PyAny>,
    role: PyBuffer<u8>,
    cost: &Bound<'_, PyAny>,
    sizes: (u64, u64, u64),
    edges: u64,
) -> PyResult<Columns<'py>> {
    let (bounds, at, cost) = (Items::new(bounds)?, Items::new(at)?, Items::new(cost)?);
    let rows = Rows { bounds: bounds.slice()?, at: at.slice()?, role: items_of(&role)? };
    let cost = cost.slice()?;
    let sizes = Sizes { window: sizes.0, batch: sizes.1, worth: sizes.2 };
    let found = py.detach(|| merge::order(rows, cost, sizes, edges)).map_err(fault)?;
    Ok((
        words(py, &found.order)?,
        words(py, &found.starts)?,
        PyBytes::new(py, &found.journaled),
        words(py, &found.converted)?,
        found.needed,
    ))
}

/// Words as bytes, without a second copy on the way.
fn words<'py>(py: Python<'py>, values: &[u32]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, 4 * values.len(), |bytes| {
        for (four, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            *four = value.to_ne_bytes();
        }
        Ok(())
    })
}

/// The position in the order of the first fault, or None. `columns` are order and starts (words) and kinds (bytes).
#[pyfunction]
fn merge_check(
    py: Python<'_>,
    bounds: &Bound<'_, PyAny>,
    at: &Bound<'_, PyAny>,
    role: PyBuffer<u8>,
    columns: (Bound<'_, PyAny>, Bound<'_, PyAny>, PyBuffer<u8>),
    window: u64,
) -> PyResult<Option<usize>> {
    let (bounds, at) = (Items::new(bounds)?, Items::new(at)?);
    let rows = Rows { bounds: bounds.slice()?, at: at.slice()?, role: items_of(&role)? };
    let (order, starts) = (Items::new(&columns.0)?, Items::new(&columns.1)?);
    let (order, starts, journaled) = (order.slice()?, starts.slice()?, items_of(&columns.2)?);
    py.detach(|| merge::check(rows, order, starts, journaled, window)).map_err(fault)
}

/// What this module was built as, for reports of faults.
#[pyfunction]
fn build_info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let info = PyDict::new(py);
    info.set_item("version", env!("CARGO_PKG_VERSION"))?;
    info.set_item("profile", if cfg!(debug_assertions) { "debug" } else { "release" })?;
    info.set_item("target", format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS))?;
    info.set_item("threads", regraft_kernels::thread_count(0))?;
    Ok(info)
}

/// The native kernels of regraft.
#[pymodule(gil_used = false)]
fn regraft_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(zck_index, module)?)?;
    module.add_function(wrap_pyfunction!(rolling_index, module)?)?;
    module.add_function(wrap_pyfunction!(casync_index, module)?)?;
    module.add_function(wrap_pyfunction!(digest_ranges, module)?)?;
    module.add_function(wrap_pyfunction!(data_runs, module)?)?;
    module.add_function(wrap_pyfunction!(merge_order, module)?)?;
    module.add_function(wrap_pyfunction!(merge_check, module)?)?;
    module.add_function(wrap_pyfunction!(build_info, module)?)?;
    if cfg!(debug_assertions) {
        let py = module.py();
        let words = c"regraft_native was built without optimisation: expect it to be slow";
        PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), words, 1)?;
    }
    Ok(())
}
