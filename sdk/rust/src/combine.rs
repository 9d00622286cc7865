//! CombineFns: aggregations of one's own for a pipeline's `Combine`, in Beam's four steps.
//!
//! ```
//! use pelton_sdk::prelude::*;
//!
//! pub struct GeometricMean;
//!
//! #[derive(Row)]
//! pub struct Input {
//!     value: f64,
//! }
//!
//! /// The n-th root of the product of n numbers.
//! #[combine]
//! impl CombineFn for GeometricMean {
//!     type Config = ();
//!     type Row<'a> = Input;
//!     type Accumulator = (f64, u64);
//!     type Output = f64;
//!
//!     fn create(_: &()) -> (f64, u64) {
//!         (0.0, 0)
//!     }
//!     fn add(_: &(), (logs, count): &mut (f64, u64), row: Input) -> Result<(), String> {
//!         if row.value <= 0.0 {
//!             return Err(format!("{} has no logarithm", row.value));
//!         }
//!         *logs += row.value.ln();
//!         *count += 1;
//!         Ok(())
//!     }
//!     fn merge(_: &(), into: &mut (f64, u64), from: (f64, u64)) {
//!         into.0 += from.0;
//!         into.1 += from.1;
//!     }
//!     fn extract(_: &(), (logs, count): &(f64, u64)) -> f64 {
//!         (logs / *count as f64).exp()
//!     }
//! }
//! plugin!(GeometricMean);
//! ```

use crate::columns::ColumnsOf;
use crate::config::{self, Config};
use crate::keyed::BytesColumn;
use crate::metrics::{self, Collected, Metric};
use crate::read::Flat;
use crate::row::ReadRow;
use crate::schema::{resolve, roots};
use crate::state::encode::{StateValue, decode_all};
use crate::state::{Kind, Value, migrate};
use crate::transform::{Opener, Registered, subtree};
use crate::wire::{
    ColumnNeed, Columns, Failure, Field, Input, MetricUpdate, Migration, Needs, OpenRequest, Opened, OutputSchema, Role, RowErrors,
    StateSpec, TransformSpec, numbers,
};
use crate::write::{Buffers, Write};

/// An aggregation. `merge` must be associative and commutative, and `create` its neutral element.
pub trait CombineFn: 'static {
    type Config: Config + 'static;
    /// The rows that are added. In a pipeline's `Combine` they have one column, `value`.
    type Row<'a>: ReadRow<'a>;
    /// What is kept between calls, as bytes.
    type Accumulator: StateValue;
    /// The aggregate: a value, an `Option`, a list, or a struct with `#[derive(Row)]`.
    type Output: Write;

    fn create(config: &Self::Config) -> Self::Accumulator;
    /// Adds a row. What a row that fails has done to the accumulator is undone.
    fn add(config: &Self::Config, accumulator: &mut Self::Accumulator, row: Self::Row<'_>) -> Result<(), String>;
    fn merge(config: &Self::Config, into: &mut Self::Accumulator, from: Self::Accumulator);
    fn extract(config: &Self::Config, accumulator: &Self::Accumulator) -> Self::Output;

    /// Adds a whole batch: row i to accumulator `groups[i]`. The default adds row by row; a faster one runs down the columns. Rows that fail
    /// go to `errors` and leave no trace.
    fn add_columns(
        config: &Self::Config,
        accumulators: &mut [Self::Accumulator],
        input: &ColumnsOf<'_, Self::Row<'_>>,
        groups: &[u32],
        errors: &mut Vec<(u32, String)>,
    ) {
        let _ = (config, accumulators, input, groups, errors);
        unreachable!("called only where `#[combine(columns)]` says that it is there")
    }
}

/// What the macro `#[combine]` adds.
pub trait Described: CombineFn {
    const NAME: &'static str;
    const SUMMARY: &'static str;
    const METRICS: &'static [&'static Metric];
    /// Whether `add_columns` is implemented.
    const COLUMNS: bool;
    /// The version of the accumulator's type.
    const ACCUMULATOR: u32;
    /// The other versions that are brought to it.
    fn migrations() -> Vec<Migration>;
    /// An accumulator that was written under another version; `None`: there is no migration from it.
    fn migrate(version: u32, accumulator: &[u8]) -> Option<migrate::Entry>;
}

/// What `add` answers.
#[derive(Debug, Default)]
pub struct Added {
    pub accumulators: BytesColumn,
    pub errors: RowErrors,
    pub metrics: Vec<MetricUpdate>,
}

/// An opened CombineFn. Accumulators are those that it gave out.
pub trait Instance {
    fn create(&self) -> Vec<u8>;
    fn add(&self, rows: &Input, groups: &[u8], accumulators: &BytesColumn) -> Added;
    fn merge(&self, accumulators: &BytesColumn, groups: &[u8], count: u32) -> BytesColumn;
    fn extract(&self, accumulators: &BytesColumn) -> Columns;
    fn migrate(&self, version: u32, accumulators: &BytesColumn) -> Result<BytesColumn, Failure>;
}

struct Open<T: CombineFn> {
    config: T::Config,
    fields: Vec<Field>,
}

impl<T: Described> Open<T> {
    fn read(&self, bytes: Option<&[u8]>) -> T::Accumulator {
        match bytes {
            Some(bytes) => decode_all(T::NAME, bytes),
            None => T::create(&self.config),
        }
    }

    fn add_rows(
        &self,
        flat: Flat<'_>,
        groups: &[u32],
        before: &BytesColumn,
        kept: &mut [T::Accumulator],
        metrics: &mut Collected,
    ) -> Vec<(u32, String)> {
        let readers = T::Row::readers(flat, Flat::TOP);
        let mut errors: Vec<(u32, String)> = vec![];
        let add = |accumulator: &mut T::Accumulator, row: usize| match T::Row::read(&readers, row) {
            Ok(input) => T::add(&self.config, accumulator, input),
            Err(null) => Err(null.to_string()),
        };
        for (row, group) in groups.iter().enumerate() {
            let accumulator = &mut kept[*group as usize];
            let Err(message) = add(accumulator, row) else {
                metrics.settle();
                continue;
            };
            // The row may have left something behind. Errors are rare: the group's rows before it are added anew.
            errors.push((row as u32, message));
            *accumulator = self.read(before.get(*group as usize));
            let failed = |row: usize| errors.binary_search_by_key(&(row as u32), |(failed, _)| *failed).is_ok();
            for earlier in (0..row).filter(|earlier| groups[*earlier] == *group && !failed(*earlier)) {
                let _ = add(accumulator, earlier);
            }
            metrics::discard();
        }
        errors
    }
}

impl<T: Described> Instance for Open<T> {
    fn create(&self) -> Vec<u8> {
        let mut bytes = vec![];
        T::create(&self.config).encode(&mut bytes);
        bytes
    }

    fn add(&self, rows: &Input, groups: &[u8], accumulators: &BytesColumn) -> Added {
        let mut metrics = Collected::new(T::METRICS);
        let flat = Flat { fields: &self.fields, columns: &rows.columns };
        let groups: Vec<u32> = numbers(groups).collect();
        let mut kept: Vec<_> = (0..accumulators.len()).map(|group| self.read(accumulators.get(group))).collect();
        let failed = if T::COLUMNS {
            let mut errors = vec![];
            T::add_columns(&self.config, &mut kept, &ColumnsOf::new(flat, &[]), &groups, &mut errors);
            metrics.settle();
            errors.sort_unstable_by_key(|(row, _)| *row);
            errors.dedup_by_key(|(row, _)| *row);
            errors
        } else {
            self.add_rows(flat, &groups, accumulators, &mut kept, &mut metrics)
        };
        let mut errors = RowErrors::default();
        failed.iter().for_each(|(row, message)| errors.push(*row, message));
        Added { accumulators: encoded(&kept), errors, metrics: metrics.finish() }
    }

    fn merge(&self, accumulators: &BytesColumn, groups: &[u8], count: u32) -> BytesColumn {
        let mut merged: Vec<Option<T::Accumulator>> = (0..count).map(|_| None).collect();
        for (entry, group) in numbers(groups).enumerate() {
            let from = self.read(accumulators.get(entry));
            match &mut merged[group as usize] {
                Some(into) => T::merge(&self.config, into, from),
                empty => *empty = Some(from),
            }
        }
        let merged: Vec<_> = merged.into_iter().map(|merged| merged.unwrap_or_else(|| T::create(&self.config))).collect();
        encoded(&merged)
    }

    fn extract(&self, accumulators: &BytesColumn) -> Columns {
        let mut writer = T::Output::writer(accumulators.len());
        for entry in 0..accumulators.len() {
            T::extract(&self.config, &self.read(accumulators.get(entry))).write(&mut writer);
        }
        let mut buffers = Buffers::default();
        T::Output::finish(writer, &mut buffers);
        Columns { rows: accumulators.len() as u32, nodes: buffers.nodes, buffers: buffers.buffers }
    }

    fn migrate(&self, version: u32, accumulators: &BytesColumn) -> Result<BytesColumn, Failure> {
        let mut migrated = BytesColumn::default();
        for entry in 0..accumulators.len() {
            let new = T::migrate(version, accumulators.get(entry).unwrap_or_default());
            let new = new.unwrap_or_else(|| Err(format!("{} has no migration of accumulators from version {version}", T::NAME)));
            migrated.push(new.map_err(Failure::new)?.map(|(_, accumulator)| accumulator).as_deref());
        }
        Ok(migrated)
    }
}

fn encoded<A: StateValue>(accumulators: &[A]) -> BytesColumn {
    let mut column = BytesColumn::default();
    accumulators.iter().for_each(|accumulator| column.push_with(|out| accumulator.encode(out)));
    column
}

/// What is known of a CombineFn before it is opened.
pub fn spec<T: Described>() -> TransformSpec {
    TransformSpec {
        name: T::NAME.to_owned(),
        summary: T::SUMMARY.to_owned(),
        role: Role::Combine,
        config_schema: T::Config::schema().to_string(),
        reads: T::Row::wants().into_iter().map(|want| ColumnNeed { name: want.name.to_owned(), formats: want.formats }).collect(),
        outputs: vec![String::new()],
        states: vec![StateSpec { migrates: T::migrations(), ..Value::<T::Accumulator>::spec("accumulator", T::ACCUMULATOR, None) }],
        timers: vec![],
    }
}

/// Opens a CombineFn for an input schema.
pub fn open<T: Described>(request: &OpenRequest) -> Result<(Opened, Box<dyn Instance>), Failure> {
    let about = |error: String| Failure::new(format!("{}: {error}", T::NAME));
    let config = config::read(&request.config).map_err(about)?;
    let reads = resolve(&T::Row::wants(), &request.schema).map_err(about)?;
    let roots = roots(&request.schema);
    let fields = reads.iter().flat_map(|read| subtree(&request.schema, roots[*read as usize])).cloned().collect();
    let mut adds = vec![];
    T::Output::fields("value", false, &mut adds);
    let outputs = vec![OutputSchema { tag: String::new(), passes: vec![], adds }];
    let opened = Opened { reads, needs: Needs::default(), outputs, metrics: T::METRICS.to_vec() };
    Ok((opened, Box::new(Open::<T> { config, fields })))
}

/// Opens a CombineFn with a request.
pub type OpenFn = fn(&OpenRequest) -> Result<(Opened, Box<dyn Instance>), Failure>;

pub fn registered<T: Described>() -> Registered {
    Registered { spec: spec::<T>, open: Opener::Combine(open::<T>), name: T::NAME }
}
