//! What a guest answered, checked as a whole and turned into batches, row errors and metrics. Nothing is applied before all of it has passed.
//!
//! A breach of the contract is the plugin's fault, not a row's: it ends the pipeline and is not bisected. The one exception is an event
//! time earlier than the origin's, which depends on the data and makes a row error.

use crate::binding::{Binding, OutputBinding};
use crate::contract::do_fn::Output;
use crate::contract::{Outcome, batch};
use crate::guest::MAX_MESSAGE_BYTES;
use crate::sandbox::cut;
use crate::sizes::bytes_of_rows;
use crate::unflatten::unflatten;
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{filter, take};
use pelton_core::{Batch, Instant, RowError};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// What one call leaves behind, with rows numbered as in the call.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    pub(crate) outputs: Vec<(usize, Batch)>,
    pub(crate) errors: Vec<RowError>,
    pub(crate) metrics: Vec<MetricUpdate>,
    pub(crate) led_to_output: usize,
}

/// Observations of one metric in one call.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricUpdate {
    /// Number in `Binding::metrics`.
    pub metric: usize,
    /// Number of observations.
    pub count: u64,
    /// Their sum; for a counter, what is added.
    pub sum: f64,
    /// The smallest.
    pub min: f64,
    /// The largest; for a gauge, the new value.
    pub max: f64,
}

/// Rows of one output, checked but for their columns' passing.
struct Made {
    port: usize,
    rows: usize,
    origin: Option<Vec<u32>>,
    added: Vec<ArrayRef>,
    times: Option<Vec<i64>>,
}

/// What the cells of a call are, which origins name.
pub(crate) struct Cells<'a> {
    /// The rows of a call, or one row a fired timer, with its key's columns.
    pub(crate) rows: &'a Batch,
    /// Fired timers: only the key's columns can be passed.
    pub(crate) are_timers: bool,
}

/// What is checked alike in every role's result.
pub(crate) struct Told {
    pub(crate) outputs: Vec<Output>,
    pub(crate) errors: batch::RowErrors,
    pub(crate) metrics: Vec<batch::MetricUpdate>,
}

/// An outcome that has passed but for event times that are earlier than their origins'.
pub(crate) struct Checked {
    made: Vec<Made>,
    errors: Vec<RowError>,
    metrics: Vec<MetricUpdate>,
    leads: Vec<bool>,
    /// Cells with such an event time, and a sentence on it.
    pub(crate) early: BTreeMap<u32, String>,
}

impl From<Outcome> for Told {
    fn from(Outcome { outputs, errors, metrics }: Outcome) -> Told {
        Told { outputs, errors, metrics }
    }
}

/// Checks outputs, errors and metrics.
pub(crate) fn check(binding: &Binding, cells: &Cells<'_>, outcome: Told) -> Result<Checked, String> {
    let input = cells.rows;
    let errors = row_errors(&outcome.errors, input.num_rows()).map_err(|why| format!("row errors: {why}"))?;
    let metrics = metrics(binding, outcome.metrics)?;
    let mut leads = vec![false; input.num_rows()];
    let mut early = BTreeMap::new();
    let mut made = Vec::with_capacity(outcome.outputs.len());
    for told in outcome.outputs {
        let port = told.port as usize;
        let output =
            binding.outputs.get(port).ok_or_else(|| format!("a result is for output {port}, but there are {}", binding.outputs.len()))?;
        let columns = told.columns;
        let part = Made {
            port,
            rows: columns.rows as usize,
            origin: origin(told.origin, columns.rows as usize, input.num_rows()).map_err(|why| about(output, why))?,
            times: told
                .event_times
                .map(|times| event_times(&times, columns.rows as usize))
                .transpose()
                .map_err(|why| about(output, why))?,
            added: unflatten(output.adds.fields(), columns.rows as usize, &columns.nodes, columns.buffers, binding.limits.call_bytes())
                .map_err(|why| about(output, why))?,
        };
        part.mark(&mut leads);
        part.find_early(input, &mut early);
        made.push(part);
    }
    if let Some(error) = errors.iter().find(|error| leads[error.row as usize]) {
        return Err(format!("row {} has both an error and an output", error.row));
    }
    Ok(Checked { made, errors, metrics, leads, early })
}

/// What a row of an output costs besides its columns: an event time and an origin.
const ROW: usize = 16;

impl Checked {
    /// A sentence if the rows, with what the host would copy for them, have more bytes than a call may lead to.
    pub(crate) fn larger_than(&self, binding: &Binding, cells: &Cells<'_>) -> Result<Option<String>, String> {
        let limit = binding.limits.output_bytes;
        let mut sizes: HashMap<usize, usize> = HashMap::new();
        let mut bytes = 0usize;
        for made in &self.made {
            let output = &binding.outputs[made.port];
            let columns = output.passes.iter().map(|column| cells.column(binding, *column));
            let columns: Vec<usize> = columns.collect::<Result<_, _>>().map_err(|why| about(output, why))?;
            let of = |rows: Range<usize>| {
                columns.iter().map(|column| bytes_of_rows(cells.rows.rows.column(*column), rows.clone())).sum::<usize>()
            };
            let rows = cells.rows.num_rows();
            let whole = *sizes.entry(made.port).or_insert_with(|| of(0..rows));
            let added: usize = made.added.iter().map(|column| bytes_of_rows(column, 0..made.rows)).sum();
            let mut copied = whole.saturating_mul(made.repeats(rows));
            // Only if some rows come often, a look at each is worth its time.
            if copied > limit {
                let each: Vec<usize> = (0..rows).map(|row| of(row..row + 1)).collect();
                copied = (0..made.rows).fold(0, |sum: usize, row| sum.saturating_add(each[made.origin_of(row) as usize]));
            }
            bytes = bytes.saturating_add(copied).saturating_add(added).saturating_add(made.rows.saturating_mul(ROW));
        }
        let message = || format!("its answer leads to rows of {bytes} bytes, more than the {limit} of limits.output_bytes");
        Ok((bytes > limit).then(message))
    }

    /// Turns what has passed into batches; cells with an early event time become row errors.
    pub(crate) fn commit(self, binding: &Binding, cells: &Cells<'_>) -> Result<Committed, String> {
        let Checked { mut made, mut errors, metrics, mut leads, early } = self;
        if !early.is_empty() {
            made.iter_mut().try_for_each(|part| part.drop_origins(&early))?;
            early.keys().for_each(|row| leads[*row as usize] = false);
            errors.extend(early.into_iter().map(|(row, message)| RowError { row, message, stack: String::new() }));
            errors.sort_by_key(|error| error.row);
        }
        let outputs =
            made.into_iter().filter(|part| part.rows > 0).map(|part| part.finish(binding, cells)).collect::<Result<Vec<_>, _>>()?;
        Ok(Committed { outputs, errors, metrics, led_to_output: leads.iter().filter(|lead| **lead).count() })
    }
}

fn about(output: &OutputBinding, why: String) -> String {
    format!("output `{}`: {why}", output.tag)
}

impl Cells<'_> {
    /// Where a passed column of the input is in the rows of this call.
    fn column(&self, binding: &Binding, column: usize) -> Result<usize, String> {
        if !self.are_timers {
            return Ok(column);
        }
        binding.key.iter().position(|key| *key == column).ok_or_else(|| {
            let name = binding.input.field(column).name();
            format!("a row out of a timer cannot pass the column `{name}`: a timer has no row, only the columns of its key")
        })
    }
}

impl Made {
    fn origin_of(&self, row: usize) -> u32 {
        self.origin.as_ref().map_or(row as u32, |origin| origin[row])
    }

    /// How often a row of the input occurs at most.
    fn repeats(&self, rows: usize) -> usize {
        match &self.origin {
            None => 1,
            Some(origin) if origin.is_sorted_by(|a, b| a < b) => 1,
            Some(origin) => {
                let mut counts = vec![0; rows];
                origin.iter().for_each(|row| counts[*row as usize] += 1);
                counts.into_iter().max().unwrap_or(0)
            }
        }
    }

    fn mark(&self, leads: &mut [bool]) {
        match &self.origin {
            None => leads.fill(true),
            Some(origin) => origin.iter().for_each(|row| leads[*row as usize] = true),
        }
    }

    fn find_early(&self, input: &Batch, early: &mut BTreeMap<u32, String>) {
        for (row, time) in self.times.iter().flatten().enumerate() {
            let origin = self.origin_of(row);
            let own = input.times[origin as usize];
            if *time < own {
                early.entry(origin).or_insert_with(|| {
                    let [given, own] = [*time, own].map(Instant::from_micros_saturating);
                    format!("the plugin gave a row the event time {given}, which is earlier than {own}, the event time of the row that it comes from")
                });
            }
        }
    }

    /// Undoes the rows of these origins.
    fn drop_origins(&mut self, dropped: &BTreeMap<u32, String>) -> Result<(), String> {
        let kept: Vec<bool> = (0..self.rows).map(|row| !dropped.contains_key(&self.origin_of(row))).collect();
        let origin = (0..self.rows).filter(|row| kept[*row]).map(|row| self.origin_of(row)).collect::<Vec<_>>();
        if let Some(times) = &mut self.times {
            *times = times.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(time, _)| *time).collect();
        }
        let mask = BooleanArray::from(kept);
        for column in &mut self.added {
            *column = filter(column, &mask).map_err(|error| error.to_string())?;
        }
        self.rows = origin.len();
        self.origin = Some(origin);
        Ok(())
    }

    fn finish(self, binding: &Binding, cells: &Cells<'_>) -> Result<(usize, Batch), String> {
        let output = &binding.outputs[self.port];
        let input = cells.rows;
        let (origin, failed) = (self.origin.map(UInt32Array::from), |error: arrow::error::ArrowError| about(output, error.to_string()));
        let mut all = Vec::with_capacity(output.schema.fields().len());
        for column in &output.passes {
            let column = input.rows.column(cells.column(binding, *column).map_err(|why| about(output, why))?);
            all.push(match &origin {
                None => column.clone(),
                Some(origin) => take(column, origin, None).map_err(failed)?,
            });
        }
        all.extend(self.added);
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let rows = RecordBatch::try_new_with_options(output.schema.clone(), all, &options).map_err(failed)?;
        let mut batch = match &origin {
            None => input.with_columns(rows),
            Some(origin) => input.pick(rows, origin.values()),
        };
        if let Some(times) = self.times {
            batch.times = times.into();
        }
        Ok((self.port, batch))
    }
}

/// Numbers of input rows. Absent: row i comes from row i, so the numbers of rows must agree.
pub(crate) fn origin(told: Option<Vec<u8>>, rows: usize, input_rows: usize) -> Result<Option<Vec<u32>>, String> {
    let Some(bytes) = told else {
        return if rows == input_rows {
            Ok(None)
        } else {
            Err(format!("it has {rows} rows without an origin, but the input has {input_rows}"))
        };
    };
    let origin = u32s(&bytes).ok_or("the origin is no list of u32")?;
    if origin.len() != rows {
        return Err(format!("it has {rows} rows and {} origins", origin.len()));
    }
    match origin.iter().max() {
        Some(last) if *last as usize >= input_rows => Err(format!("an origin is row {last} of an input of {input_rows} rows")),
        _ => Ok(Some(origin)),
    }
}

pub(crate) fn event_times(bytes: &[u8], rows: usize) -> Result<Vec<i64>, String> {
    let (chunks, rest) = bytes.as_chunks::<8>();
    if chunks.len() != rows || !rest.is_empty() {
        return Err(format!("its event times have {} bytes where {} belong", bytes.len(), rows as u64 * 8));
    }
    let times: Vec<i64> = chunks.iter().map(|chunk| i64::from_le_bytes(*chunk)).collect();
    times.iter().try_for_each(|time| Instant::from_micros(*time).map(|_| ()).map_err(|error| error.to_string()))?;
    Ok(times)
}

pub(crate) fn row_errors(told: &batch::RowErrors, input_rows: usize) -> Result<Vec<RowError>, String> {
    let rows = u32s(&told.rows).ok_or("the rows are no list of u32")?;
    let offsets = u32s(&told.offsets).ok_or("the offsets are no list of u32")?;
    if rows.is_empty() && offsets.len() <= 1 && told.messages.is_empty() {
        return Ok(vec![]);
    }
    if offsets.len() != rows.len() + 1 || offsets[0] != 0 || offsets[rows.len()] as usize != told.messages.len() {
        return Err("the offsets do not cover the messages, one more than errors".into());
    }
    if let Some(pair) = rows.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(format!("row {} follows row {}, but rows ascend and stand at most once", pair[1], pair[0]));
    }
    if let Some(beyond) = rows.iter().find(|row| **row as usize >= input_rows) {
        return Err(format!("row {beyond} is none of an input of {input_rows} rows"));
    }
    let message = |index: usize| -> Result<String, &str> {
        let bytes = told.messages.get(offsets[index] as usize..offsets[index + 1] as usize).ok_or("an offset decreases")?;
        let text = std::str::from_utf8(bytes).map_err(|_| "a message is not UTF-8")?;
        Ok(cut(text, MAX_MESSAGE_BYTES).to_owned())
    };
    rows.iter().enumerate().map(|(index, row)| Ok(RowError { row: *row, message: message(index)?, stack: String::new() })).collect()
}

pub(crate) fn metrics(binding: &Binding, told: Vec<batch::MetricUpdate>) -> Result<Vec<MetricUpdate>, String> {
    told.into_iter().map(|update| metric(binding, update)).collect()
}

fn metric(binding: &Binding, told: batch::MetricUpdate) -> Result<MetricUpdate, String> {
    let metric = told.metric as usize;
    if metric >= binding.metrics.len() {
        return Err(format!("an update is for metric {metric}, but there are {}", binding.metrics.len()));
    }
    Ok(MetricUpdate { metric, count: told.count, sum: told.sum, min: told.min, max: told.max })
}

pub(crate) fn u32s(bytes: &[u8]) -> Option<Vec<u32>> {
    let (chunks, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| chunks.iter().map(|chunk| u32::from_le_bytes(*chunk)).collect())
}
