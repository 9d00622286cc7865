//! `pelton replay`: records a transform of a running pipeline, and runs the recording again with a plugin.

use crate::commands::run::Output;
use crate::plugin::case::{self, Difference};
use crate::plugin::test::load;
use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use pelton_plugin::Plugin;
use pelton_runtime::lab::ERRORS;
use pelton_runtime::recording::file::Recording;
use pelton_runtime::recording::replay::{Given, replay};
use pelton_server::control::{Request, ask};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Columns of the error output that differ from run to run: who refused the row, and where it was read.
const NOT_COMPARED: [&str; 4] = ["stack", "transform", "plugin", "position"];

#[derive(Debug, clap::Subcommand)]
pub enum ReplayCommand {
    /// Record what comes to a plugin's transform of a running pipeline, and what it gives.
    Record(Record),
    /// Run a recording again.
    Run(Run),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton replay record state/orders ParseLog --rows 10000 --out parse.recording\n\nRecorded are rows with event times and windows, watermarks and the time of each call; of a stateful transform its state too, as of a checkpoint that is taken for it. The file holds data of the pipeline: keep it as you keep that."
)]
pub struct Record {
    /// The state folder of the pipeline (`pelton run --state`).
    state: PathBuf,
    /// Full name of the transform.
    transform: String,
    /// Rows of input.
    #[arg(long, default_value = "10000")]
    rows: usize,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Wait for the rows for so many seconds; with fewer of them the file holds those that came.
    #[arg(long, value_name = "SECONDS", default_value = "30")]
    wait: u64,
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton replay run parse.recording --plugin plugins/parse-log --compare\n\nEach task of the pipeline is run by itself, from its state, with the recorded clock. Without --compare the rows that come of it are printed, a JSON object a line.\n\nExit codes: 0 well, 1 something differs, 2 the recording or the plugin is wrong."
)]
pub struct Run {
    /// The recording.
    file: PathBuf,
    /// The plugin: a crate's folder, which is built, or a component's file.
    #[arg(long, value_name = "DIR|FILE")]
    plugin: PathBuf,
    /// Compare what comes of it with what was recorded.
    #[arg(long)]
    compare: bool,
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

pub fn run(command: &ReplayCommand) -> Result<ExitCode> {
    match command {
        ReplayCommand::Record(record) => take(record),
        ReplayCommand::Run(run) => again(run),
    }
}

fn take(record: &Record) -> Result<ExitCode> {
    // The run may have another current folder.
    let file = std::path::absolute(&record.out).context("there is no current directory")?;
    let (transform, rows, seconds) = (record.transform.clone(), record.rows.max(1), record.wait);
    let told = ask(&record.state, &Request::Record { transform, rows, seconds, file })?;
    match record.output {
        Output::Json => println!("{told}"),
        Output::Text => {
            let from = told["epoch"].as_u64().map(|epoch| format!(", from the state of epoch {epoch}")).unwrap_or_default();
            println!("recorded {}: {} rows in, {} out, {} bytes{from}", record.out.display(), told["rows"], told["out"], told["bytes"]);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn again(run: &Run) -> Result<ExitCode> {
    let plugin = load(&run.plugin)?;
    let given = replayed(&run.file, &plugin)?;
    if !run.compare {
        for given in &given {
            for row in rows(&given.output, &given.replayed)? {
                println!("{}", json!({"task": given.task, "output": given.output, "row": row}));
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let differences = differences(&given)?;
    let count = |of: fn(&Given) -> &Vec<RecordBatch>| given.iter().flat_map(of).map(RecordBatch::num_rows).sum::<usize>();
    let (recorded, now) = (count(|given| &given.recorded), count(|given| &given.replayed));
    match run.output {
        Output::Json => println!("{}", json!({"recorded": recorded, "replayed": now, "differences": differences})),
        Output::Text if differences.is_empty() => println!("the same: {recorded} rows recorded, {now} now"),
        Output::Text => {
            print!("{}", case::table(&differences));
            println!("{} rows differ: {recorded} recorded, {now} now", differences.len());
        }
    }
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(crate::PIPELINE_FAILED) })
}

/// A recording, run with a plugin.
pub fn replayed(file: &Path, plugin: &Arc<Plugin>) -> Result<Vec<Given>> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let told = |message: String| anyhow::anyhow!("{}: {message}", file.display());
    let recording = Recording::from_bytes(&bytes).map_err(told)?;
    replay(&recording, plugin).map_err(told)
}

/// What comes of it now that did not come when it was recorded, and the other way round.
pub fn differences(given: &[Given]) -> Result<Vec<Difference>> {
    let mut all = Vec::new();
    for given in given {
        let (recorded, now) = (rows(&given.output, &given.recorded)?, rows(&given.output, &given.replayed)?);
        all.extend(case::compare(&given.output, &recorded, &now));
    }
    Ok(all)
}

fn rows(output: &str, batches: &[RecordBatch]) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    for batch in batches {
        rows.extend(case::values(batch)?);
    }
    if output == ERRORS {
        rows.iter_mut().filter_map(Value::as_object_mut).for_each(|row| row.retain(|column, _| !NOT_COMPARED.contains(&column.as_str())));
    }
    Ok(rows)
}
