//! Built-in aggregates over columns of state: one family of functions a file.
//!
//! - [`count`], [`sum`], [`float`], [`moments`]: numbers that add up; means, variances.
//! - [`extreme`], [`logic`]: min and max; any and all.
//! - [`timed`], [`top`]: first and last by event time; the n best.
//! - [`collect`]: lists of values.
//! - [`distinct`], [`sketch`]: distinct counts, exact and not; quantiles.
//! - [`state`], [`values`]: the columns that an aggregate keeps and their way to another task; values of any type as bytes.
//!
//! A batch's rows are added a column at a time: `slots[i]` is the cell of row `i`. Cells of the same operator merge (a window
//! that is made of slices, or sessions that meet), and so do partial results that another task computed (combiner lifting):
//! both are one function, [`Accumulate::merge`], so that a pre-aggregated result cannot differ from a direct one.
//!
//! Nulls are skipped, as in SQL (decision 0005); an aggregate of nothing but nulls is null; a count counts rows, and the list
//! of a group has its nulls.
//!
//! Invariants: all that an aggregate remembers lies in its columns of [`Cells`]; merging cells is associative and
//! commutative, except for the order in which lists are joined and the last bits of sums of doubles.

mod collect;
mod count;
mod distinct;
mod extreme;
mod float;
mod logic;
mod moments;
mod sketch;
mod state;
mod sum;
#[cfg(test)]
mod tests;
mod timed;
mod top;
mod values;

use arrow::array::{Array, ArrayRef};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use pelton_core::key::KeyEncoder;
use pelton_pipeline::graph::AggregateFunction;
use pelton_state::{Cells, Slot, Touched};
use state::{State, States};
use values::{Values, list_of};

/// One aggregate and its columns of state.
pub struct Aggregator {
    family: Box<dyn Accumulate>,
    states: Vec<State>,
}

/// What a family of aggregates does with its columns of state.
trait Accumulate {
    /// Adds rows to their cells.
    fn add(&mut self, cells: &mut Touched<'_>, rows: &Rows<'_>) -> Result<(), String>;

    /// Adds partial results to cells: `partial` has the columns that were declared, row `i` for `slots[i]`.
    fn merge(&mut self, cells: &mut Touched<'_>, slots: &[Slot], partial: &[ArrayRef]) -> Result<(), String>;

    /// The results of cells, in the order of `slots`.
    fn extract(&self, cells: &Cells, slots: &[Slot]) -> Result<ArrayRef, String>;
}

/// Rows of a batch on their way to cells.
struct Rows<'a> {
    /// The cell of each row.
    slots: &'a [Slot],
    /// The event time of each row, microseconds.
    times: &'a [i64],
    /// What is aggregated; `None` only for a count.
    value: Option<&'a ArrayRef>,
    nulls: Option<NullBuffer>,
}

impl Rows<'_> {
    /// What is aggregated.
    fn value(&self) -> &ArrayRef {
        self.value.expect("only a count goes without a value, and it does not ask")
    }

    /// Calls with (row, slot) for every row that has a value.
    #[inline]
    fn each(&self, mut with: impl FnMut(usize, usize)) {
        match &self.nulls {
            None => self.slots.iter().enumerate().for_each(|(row, slot)| with(row, *slot as usize)),
            Some(nulls) => nulls.valid_indices().for_each(|row| with(row, self.slots[row] as usize)),
        }
    }
}

/// The type of an aggregate over values of a type (`None`: a count without a value).
pub fn output_type(function: &AggregateFunction, value: Option<&DataType>) -> Result<DataType, String> {
    use AggregateFunction::*;
    let Some(value) = value else {
        return if *function == Count { Ok(DataType::Int64) } else { Err("needs a value".into()) };
    };
    let storable = KeyEncoder::new(std::slice::from_ref(value)).is_ok();
    match (function, value) {
        (Count, _) => Ok(DataType::Int64),
        (Sum, value) if value.is_integer() => Ok(DataType::Int64),
        (Sum, value) if value.is_floating() => Ok(DataType::Float64),
        (Sum, DataType::Decimal128(_, scale)) if *scale >= 0 => Ok(DataType::Decimal128(38, *scale)),
        (Mean | Variance { .. } | StdDev { .. } | Quantile(_), value) if value.is_numeric() => Ok(DataType::Float64),
        (Quantiles(_), value) if value.is_numeric() => Ok(list_of(&DataType::Float64)),
        (Min | Max, value) if storable && !value.is_nested() => Ok(value.clone()),
        (Any | All, value) if logic::has_truth(value) => Ok(DataType::Boolean),
        (First | Last, value) if storable => Ok(value.clone()),
        (Group, value) if storable => Ok(list_of(value)),
        (Concat, DataType::Utf8) => Ok(list_of(value)),
        (Concat, DataType::List(item)) if storable => Ok(list_of(item.data_type())),
        (Top { .. }, value) if storable && !value.is_nested() => Ok(list_of(value)),
        (CountDistinct | ApproxCountDistinct { .. }, _) if storable => Ok(DataType::Int64),
        _ => Err(format!("cannot be taken of values of type {value}")),
    }
}

fn family(
    function: &AggregateFunction,
    value: &DataType,
    output: DataType,
    states: &mut States<'_>,
) -> Result<Box<dyn Accumulate>, String> {
    use AggregateFunction::*;
    Ok(match function {
        Plugin { transform, .. } => return Err(format!("`{transform}` is no aggregate of ours")),
        Count => Box::new(count::Count::new(states)),
        Sum if output == DataType::Int64 => Box::new(sum::WholeSum::new(states)),
        Sum if output == DataType::Float64 => Box::new(float::FloatSum::new(states, float::Gives::Sum)),
        Sum => Box::new(sum::DecimalSum::new(states, output)),
        Mean => Box::new(float::FloatSum::new(states, float::Gives::Mean)),
        Variance { population } => Box::new(moments::Moments::new(states, *population, false)),
        StdDev { population } => Box::new(moments::Moments::new(states, *population, true)),
        Min | Max => extreme::extreme(states, output, *function == Max)?,
        Any | All => Box::new(logic::Logic::new(states, *function == Any)),
        First | Last => Box::new(timed::Timed::new(states, &output, *function == Last)?),
        Top { n, smallest } => Box::new(top::Top::new(states, value, *n, *smallest)?),
        Group => Box::new(collect::Collect::new(states, &output, collect::What::Value)?),
        Concat if *value == DataType::Utf8 => Box::new(collect::Collect::new(states, &output, collect::What::Characters)?),
        Concat => Box::new(collect::Collect::new(states, &output, collect::What::Elements)?),
        CountDistinct => Box::new(distinct::CountDistinct::new(states, value)?),
        ApproxCountDistinct { precision } => {
            let kind = sketch::Kind::Distinct { precision: *precision, values: Values::new(value)? };
            Box::new(sketch::Sketched::new(states, kind))
        }
        Quantile(rank) => Box::new(sketch::Sketched::new(states, sketch::Kind::Quantiles { ranks: vec![*rank], list: false })),
        Quantiles(ranks) => Box::new(sketch::Sketched::new(states, sketch::Kind::Quantiles { ranks: ranks.clone(), list: true })),
    })
}

impl Aggregator {
    /// Declares the columns of an aggregate whose `output_type` has been checked.
    pub fn new(function: &AggregateFunction, value: Option<&DataType>, cells: &mut Cells) -> Result<Aggregator, String> {
        let output = output_type(function, value)?;
        let mut states = States::of(cells);
        let family = family(function, value.unwrap_or(&DataType::Null), output, &mut states)?;
        Ok(Aggregator { family, states: states.declared() })
    }

    /// Adds rows to their cells, which have been touched: `slots[i]` is row i's, `times[i]` its event time in microseconds.
    pub fn add(&mut self, cells: &mut Touched<'_>, slots: &[Slot], times: &[i64], value: Option<&ArrayRef>) -> Result<(), String> {
        let nulls = value.and_then(|value| value.logical_nulls()).filter(|nulls| nulls.null_count() > 0);
        self.family.add(cells, &Rows { slots, times, value, nulls })
    }

    /// Adds what the cells `from` hold to the cell `into`, which is none of them. They stay as they are.
    pub fn merge_into(&mut self, cells: &mut Cells, into: Slot, from: &[Slot]) -> Result<(), String> {
        self.merge_pairs(cells, &vec![into; from.len()], from)
    }

    /// Adds what cell `from[i]` holds to cell `into[i]`, for many pairs at once; no cell stands on both sides.
    pub fn merge_pairs(&mut self, cells: &mut Cells, into: &[Slot], from: &[Slot]) -> Result<(), String> {
        let partial = self.partial(cells, from);
        self.add_partial(cells, into, &partial)
    }

    /// The results of cells, in the order of `slots`.
    pub fn extract(&self, cells: &Cells, slots: &[Slot]) -> Result<ArrayRef, String> {
        self.family.extract(cells, slots)
    }

    /// Empties cells (discarding panes).
    pub fn reset(&self, cells: &mut Cells, slots: &[Slot]) {
        let mut touched = cells.touch(slots);
        self.states.iter().for_each(|state| touched.reset(state.column, slots));
    }

    /// The types of the columns of [`Aggregator::partial`].
    pub fn partial_types(&self) -> Vec<DataType> {
        self.states.iter().map(State::data_type).collect()
    }

    /// What cells hold, as columns that another task can merge with [`Aggregator::add_partial`].
    pub fn partial(&self, cells: &Cells, slots: &[Slot]) -> Vec<ArrayRef> {
        self.states.iter().map(|state| state.gather(cells, slots)).collect()
    }

    /// Adds partial results to cells: row `i` of the columns to `slots[i]`.
    pub fn add_partial(&mut self, cells: &mut Cells, slots: &[Slot], partial: &[ArrayRef]) -> Result<(), String> {
        self.family.merge(&mut cells.touch(slots), slots, partial)
    }
}
