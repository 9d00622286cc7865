//! Approximate aggregates: a sketch of a library in each cell, behind a list of values that it has not seen yet.
//!
//! ```text
//! state = length of the sketch u32, sketch (the library's own format), (value u64)*
//! ```
//!
//! The list is there because a sketch is read and written whole: without it every row would pay for that. It also keeps cells
//! with few values small. A sketch takes its list in when the list is full, and a copy of it does when a result is asked for.
//!
//! - Distinct counts: HyperLogLog over 64-bit hashes of canonical bytes. The estimate depends on the set of values alone,
//!   not on their order or on how cells were merged.
//! - Quantiles: t-digest. Its last digits depend on the order of rows and merges.

use super::state::States;
use super::values::Values;
use super::{Accumulate, Rows};
use arrow::array::types::Float64Type;
use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datasketches::hll::{HllSketch, HllType};
use datasketches::tdigest::TDigestMut;
use pelton_core::key::key_hash;
use pelton_state::{Cells, ColumnId, Slot, Touched};
use std::sync::Arc;

/// Values that wait for the sketch of a cell at most: 2 KiB.
const MAX_WAITING: usize = 256;
/// Compression of t-digests: within about 0.5 % in rank at the median and closer towards the ends.
const COMPRESSION: u16 = 200;
const HEAD: usize = 4;

/// What a sketch is of.
pub(super) enum Kind {
    /// Distinct values; the precision is the logarithm of the number of registers.
    Distinct { precision: u8, values: Values },
    /// Quantiles by rank; a list of them or one.
    Quantiles { ranks: Vec<f64>, list: bool },
}

/// An approximate aggregate.
pub(super) struct Sketched {
    state: ColumnId,
    kind: Kind,
}

enum Sketch {
    Hll(HllSketch),
    Digest(TDigestMut),
}

impl Sketch {
    fn update(&mut self, value: u64) {
        match self {
            Sketch::Hll(sketch) => sketch.update(value),
            Sketch::Digest(digest) => digest.update(f64::from_bits(value)),
        }
    }

    fn write(&mut self) -> Vec<u8> {
        match self {
            Sketch::Hll(sketch) => sketch.serialize(),
            Sketch::Digest(digest) => digest.serialize(),
        }
    }
}

impl Kind {
    /// A sketch from its bytes; none are an empty one.
    fn read(&self, bytes: &[u8]) -> Result<Sketch, String> {
        let sketch = match (self, bytes.is_empty()) {
            (Kind::Distinct { precision, .. }, true) => HllSketch::new(*precision, HllType::Hll8).map(Sketch::Hll),
            (Kind::Distinct { .. }, false) => HllSketch::deserialize(bytes).map(Sketch::Hll),
            (Kind::Quantiles { .. }, true) => TDigestMut::new(COMPRESSION).map(Sketch::Digest),
            (Kind::Quantiles { .. }, false) => TDigestMut::deserialize(bytes).map(Sketch::Digest),
        };
        sketch.map_err(|error| format!("the state of a sketch is damaged: {error}"))
    }

    /// A sketch that has taken its list in.
    fn whole(&self, state: &[u8]) -> Result<Sketch, String> {
        let (sketch, waiting) = parts(state);
        let mut sketch = self.read(sketch)?;
        numbers(waiting).for_each(|value| sketch.update(value));
        Ok(sketch)
    }

    fn fold(&self, state: &mut Vec<u8>) -> Result<(), String> {
        let sketch = self.whole(state)?.write();
        put(state, &sketch);
        Ok(())
    }

    fn push(&self, state: &mut Vec<u8>, value: u64) -> Result<(), String> {
        if state.is_empty() {
            state.extend_from_slice(&[0; HEAD]);
        }
        state.extend_from_slice(&value.to_le_bytes());
        if parts(state).1.len() >= 8 * MAX_WAITING { self.fold(state) } else { Ok(()) }
    }

    /// Adds another cell's state.
    fn join(&self, state: &mut Vec<u8>, other: &[u8]) -> Result<(), String> {
        if other.is_empty() {
            return Ok(());
        }
        let (sketch, waiting) = parts(other);
        if !sketch.is_empty() {
            let both = match (self.whole(state)?, self.read(sketch)?) {
                (Sketch::Hll(one), Sketch::Hll(two)) => {
                    let mut union = datasketches::hll::HllUnion::new(one.lg_config_k()).map_err(|error| error.to_string())?;
                    union.update(&one);
                    union.update(&two);
                    union.to_sketch(HllType::Hll8).serialize()
                }
                (Sketch::Digest(mut one), Sketch::Digest(two)) => {
                    one.merge(&two);
                    one.serialize()
                }
                _ => unreachable!("a kind reads sketches of one type"),
            };
            put(state, &both);
        }
        numbers(waiting).try_for_each(|value| self.push(state, value))
    }
}

/// A state's sketch and its list.
fn parts(state: &[u8]) -> (&[u8], &[u8]) {
    match state.split_first_chunk::<HEAD>() {
        None => (&[], &[]),
        Some((length, rest)) => rest.split_at(u32::from_le_bytes(*length) as usize),
    }
}

fn put(state: &mut Vec<u8>, sketch: &[u8]) {
    state.clear();
    state.extend_from_slice(&(sketch.len() as u32).to_le_bytes());
    state.extend_from_slice(sketch);
}

fn numbers(list: &[u8]) -> impl Iterator<Item = u64> {
    list.chunks_exact(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

impl Sketched {
    pub fn new(states: &mut States<'_>, kind: Kind) -> Sketched {
        Sketched { state: states.bytes(), kind }
    }
}

impl Accumulate for Sketched {
    fn add(&mut self, cells: &mut Touched<'_>, rows: &Rows<'_>) -> Result<(), String> {
        let mut failed = Ok(());
        let values: Vec<u64> = match &mut self.kind {
            Kind::Distinct { values, .. } => {
                let keys = values.encode(rows.value());
                (0..keys.len()).map(|row| key_hash(keys.get(row))).collect()
            }
            Kind::Quantiles { .. } => {
                let doubles = cast(rows.value(), &DataType::Float64).map_err(|error| error.to_string())?;
                doubles.as_primitive::<Float64Type>().values().iter().map(|value| value.to_bits()).collect()
            }
        };
        let states = cells.column::<Vec<u8>>(self.state);
        rows.each(|row, slot| {
            if let Err(error) = self.kind.push(&mut states[slot], values[row]) {
                failed = Err(error);
            }
        });
        failed
    }

    fn merge(&mut self, cells: &mut Touched<'_>, slots: &[Slot], partial: &[ArrayRef]) -> Result<(), String> {
        let states = cells.column::<Vec<u8>>(self.state);
        let mut pairs = slots.iter().zip(partial[0].as_binary::<i32>().iter().flatten());
        pairs.try_for_each(|(slot, from)| self.kind.join(&mut states[*slot as usize], from))
    }

    fn extract(&self, cells: &Cells, slots: &[Slot]) -> Result<ArrayRef, String> {
        let states = cells.column::<Vec<u8>>(self.state);
        let sketches = slots.iter().map(|slot| self.kind.whole(&states[*slot as usize]));
        match &self.kind {
            Kind::Distinct { .. } => {
                let counts = sketches.map(|sketch| match sketch? {
                    Sketch::Hll(sketch) => Ok(sketch.composite_estimate().round() as i64),
                    Sketch::Digest(_) => unreachable!("a distinct count reads HyperLogLog"),
                });
                Ok(Arc::new(Int64Array::from(counts.collect::<Result<Vec<i64>, String>>()?)))
            }
            Kind::Quantiles { ranks, list } => {
                let found = sketches.map(|sketch| match sketch? {
                    Sketch::Digest(mut digest) => digest.quantiles(ranks).map_err(|error| error.to_string()),
                    Sketch::Hll(_) => unreachable!("quantiles read t-digests"),
                });
                let found = found.collect::<Result<Vec<Option<Vec<f64>>>, String>>()?;
                if !list {
                    return Ok(Arc::new(Float64Array::from_iter(found.iter().map(|values| values.as_ref().map(|values| values[0])))));
                }
                let DataType::List(field) = super::values::list_of(&DataType::Float64) else { unreachable!("made as a list") };
                let offsets = OffsetBuffer::from_lengths(found.iter().map(|values| values.as_ref().map_or(0, Vec::len)));
                let nulls = found.iter().map(Option::is_some).collect();
                let values = Float64Array::from_iter_values(found.into_iter().flatten().flatten());
                Ok(Arc::new(ListArray::new(field, offsets, Arc::new(values), Some(nulls))))
            }
        }
    }
}
