//! `pelton plugin bench`: how long a transform takes, by the size of its batches.
//!
//! Timed is what a task of a pipeline does with a batch: the columns cross, the guest runs, what it gives is checked and becomes rows. Nothing is
//! read, written or sent.

use super::case::{self, Case};
use super::test;
use crate::commands::run::Output;
use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use pelton_core::batch::{MAX_ROWS, Positions};
use pelton_core::{Batch, Duration, WindowFn};
use pelton_plugin::{ColumnNeed, Limits, Plugin};
use pelton_runtime::clock::{Stopwatch, now};
use pelton_runtime::lab::{ERRORS, Lab, Setup, Step};
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Rows of a call.
const SIZES: [usize; 4] = [1, 64, 1_024, MAX_ROWS];
/// Calls of one size at most: calls with one row are dear.
const MAX_CALLS: usize = 20_000;
/// Calls of one size at least.
const MIN_CALLS: usize = 20;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton plugin bench plugins/parse-log --rows 1000000\n\nRows are those of the plugin's cases, again and again; without cases they are made up from the columns that it reads. Measure on a machine that has nothing else to do."
)]
pub struct Bench {
    /// The crate's folder, which is built, or a component's file.
    plugin: PathBuf,
    /// The transform, where there are several.
    #[arg(long)]
    transform: Option<String>,
    /// Rows of each measurement.
    #[arg(long, default_value = "200000")]
    rows: usize,
    /// A folder of cases or one file; by default `cases` in the crate's folder.
    #[arg(long)]
    cases: Option<PathBuf>,
    /// The config, as JSON, where rows are made up.
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
    /// Key columns of a stateful transform, where rows are made up.
    #[arg(long, value_delimiter = ',')]
    key: Vec<String>,
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// Calls of one size.
#[derive(Debug, Serialize)]
struct Measured {
    batch_rows: usize,
    calls: usize,
    rows_per_second: f64,
    nanos_per_row: f64,
    p50_micros: f64,
    p99_micros: f64,
    memory_bytes: usize,
    refused_rows: usize,
}

pub fn run(bench: &Bench) -> Result<ExitCode> {
    let plugin = match bench.plugin.is_dir() {
        // As it runs in a pipeline: without lines.
        true => crate::plugins::engine()?.load(&super::build::build_if_stale(&bench.plugin, &Default::default())?.0.component)?,
        false => test::load(&bench.plugin)?,
    };
    let transform = case::only(&plugin, bench.transform.as_deref())?.to_string();
    let written = written(bench, &plugin, &transform)?;
    if bench.output == Output::Text {
        let rows = if written.is_some() { "rows of the cases" } else { "made-up rows" };
        println!("{transform} of {} with {rows}\n", plugin.name());
        println!(
            "{:>10} {:>8} {:>14} {:>10} {:>12} {:>12} {:>12}",
            "batch rows", "calls", "rows/s", "ns a row", "p50 µs", "p99 µs", "memory KiB"
        );
    }
    for size in SIZES {
        let (mut lab, rows) = match &written {
            Some(case) => of_case(case, &plugin)?,
            None => made_up(bench, &plugin, &transform)?,
        };
        let measured = measure(&mut lab, &batches(&rows, size)?, bench.rows)?;
        show(bench.output, &transform, &measured);
    }
    Ok(ExitCode::SUCCESS)
}

/// The first case of the transform.
fn written(bench: &Bench, plugin: &Plugin, transform: &str) -> Result<Option<Case>> {
    let beside = || test::crate_of(&bench.plugin).map(|folder| folder.join("cases")).filter(|place| place.exists());
    let Some(place) = bench.cases.clone().or_else(beside) else { return Ok(None) };
    for (_, case) in case::read(&place)? {
        if !case.input.is_empty() && case.transform(plugin)? == transform {
            return Ok(Some(case));
        }
    }
    if bench.cases.is_some() {
        bail!("{} has no case of the transform `{transform}`", place.display());
    }
    Ok(None)
}

fn of_case(case: &Case, plugin: &Arc<Plugin>) -> Result<(Lab, Batch)> {
    let (lab, steps) = case.open(plugin)?;
    let rows = steps.into_iter().find_map(|(step, _)| match step {
        Step::Rows(batch) => Some(batch),
        _ => None,
    });
    Ok((lab, rows.context("the case has no rows")?))
}

fn made_up(bench: &Bench, plugin: &Arc<Plugin>, transform: &str) -> Result<(Lab, Batch)> {
    let spec = plugin.descriptor().transforms.iter().find(|spec| spec.name == transform);
    let spec = spec.with_context(|| format!("the plugin has no transform `{transform}`"))?;
    let rows = rows_for(&spec.reads, &bench.key)?;
    let config = bench.config.as_deref().map_or(Ok(Value::Object(Default::default())), serde_json::from_str);
    let lab = Lab::new(Setup {
        plugin: plugin.clone(),
        transform: transform.into(),
        config: config.context("--config must be a JSON object")?,
        input: rows.schema(),
        key: bench.key.clone(),
        window_fn: WindowFn::Global,
        allowed_lateness: Duration::ZERO,
        limits: Limits::default(),
        restored: None,
    });
    Ok((lab.map_err(anyhow::Error::msg)?, Batch::new(rows, vec![0; MAX_ROWS].into(), Positions::None)))
}

/// Rows with the columns that a transform reads, and its key's.
fn rows_for(reads: &[ColumnNeed], key: &[String]) -> Result<RecordBatch> {
    let keys = key.iter().filter(|name| !reads.iter().any(|need| need.name == **name));
    let keys = keys.map(|name| (name.clone(), DataType::Utf8));
    let types = reads.iter().map(|need| (need.name.clone(), type_of(&need.formats))).chain(keys);
    let fields: Vec<Field> = types.map(|(name, data_type)| Field::new(name, data_type, true)).collect();
    let columns = fields.iter().map(|field| column(field.data_type())).collect::<Result<Vec<ArrayRef>>>()?;
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    Ok(RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(MAX_ROWS)))?)
}

/// A type that a transform takes, by Arrow's format strings.
fn type_of(formats: &[String]) -> DataType {
    let known = formats.iter().find_map(|format| {
        Some(match format.as_str() {
            "l" => DataType::Int64,
            "i" => DataType::Int32,
            "g" => DataType::Float64,
            "f" => DataType::Float32,
            "b" => DataType::Boolean,
            "z" => DataType::Binary,
            format if format.starts_with("tsu:") => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            _ => return None,
        })
    });
    known.unwrap_or(DataType::Utf8)
}

/// Values that differ from row to row: a thousand different ones.
fn column(data_type: &DataType) -> Result<ArrayRef> {
    let numbers = || (0..MAX_ROWS as i64).map(|row| row * 7_919 % 1_000);
    let integers: ArrayRef = Arc::new(arrow::array::Int64Array::from_iter_values(numbers()));
    Ok(match data_type {
        DataType::Utf8 => {
            Arc::new(arrow::array::StringArray::from_iter_values(numbers().map(|number| format!("value {number} of some text"))))
        }
        DataType::Binary => Arc::new(arrow::array::BinaryArray::from_iter_values(numbers().map(|number| number.to_le_bytes()))),
        DataType::Boolean => Arc::new(arrow::array::BooleanArray::from_iter(numbers().map(|number| Some(number % 2 == 0)))),
        other => arrow::compute::cast(&integers, other).with_context(|| format!("no rows can be made up of the type {other}"))?,
    })
}

/// Batches of so many rows each, the same rows again and again.
fn batches(rows: &Batch, size: usize) -> Result<Vec<Batch>> {
    let enough = size.div_ceil(rows.num_rows()).max(1);
    let columns = concat_batches(&rows.rows.schema(), std::iter::repeat_n(&rows.rows, enough))?;
    let times: Vec<i64> = std::iter::repeat_n(&rows.times, enough).flat_map(|times| times.iter().copied()).collect();
    let all = Batch::new(columns, times.into(), Positions::None);
    Ok((0..all.num_rows() / size).map(|number| all.slice(number * size, size)).collect())
}

fn measure(lab: &mut Lab, batches: &[Batch], rows: usize) -> Result<Measured> {
    let size = batches[0].num_rows();
    let calls = (rows / size).clamp(MIN_CALLS, MAX_CALLS);
    let errors = lab.outputs().iter().position(|output| output == ERRORS);
    let mut refused = 0;
    // The first calls fill caches, and let the guest's memory grow.
    for batch in batches.iter().cycle().take(MIN_CALLS) {
        lab.feed(Step::Rows(batch.clone()), now())?;
    }
    let mut nanos = Vec::with_capacity(calls);
    for batch in batches.iter().cycle().take(calls) {
        let (batch, at) = (batch.clone(), now());
        let watch = Stopwatch::start();
        let given = lab.feed(Step::Rows(batch), at)?;
        nanos.push(watch.nanos());
        refused += given.iter().filter(|(port, _)| Some(*port) == errors).map(|(_, rows)| rows.num_rows()).sum::<usize>();
    }
    let total: u64 = nanos.iter().sum();
    nanos.sort_unstable();
    let percentile = |share: usize| nanos[(nanos.len() - 1) * share / 100] as f64 / 1e3;
    let processed = (calls * size) as f64;
    Ok(Measured {
        batch_rows: size,
        calls,
        rows_per_second: processed * 1e9 / total.max(1) as f64,
        nanos_per_row: total as f64 / processed,
        p50_micros: percentile(50),
        p99_micros: percentile(99),
        memory_bytes: lab.memory_bytes(),
        refused_rows: refused,
    })
}

fn show(output: Output, transform: &str, measured: &Measured) {
    if output == Output::Json {
        let mut told = serde_json::json!(measured);
        told["transform"] = transform.into();
        println!("{told}");
        return;
    }
    let Measured { batch_rows, calls, rows_per_second, nanos_per_row, p50_micros, p99_micros, memory_bytes, refused_rows } = measured;
    let memory = memory_bytes / 1024;
    println!(
        "{batch_rows:>10} {calls:>8} {rows_per_second:>14.0} {nanos_per_row:>10.0} {p50_micros:>12.1} {p99_micros:>12.1} {memory:>12}"
    );
    if *refused_rows > 0 {
        println!("{:>10} {refused_rows} of {} rows were refused", "", calls * batch_rows);
    }
}
