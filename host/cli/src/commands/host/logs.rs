//! `pelton logs`: what a pipeline of a host logs.

use super::{HostArguments, of};
use crate::commands::run::Output;
use anyhow::Result;
use serde_json::Value;
use std::io::Write;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pelton logs orders -f")]
pub struct Logs {
    /// The pipeline.
    name: String,
    /// Go on with what comes.
    #[arg(short, long)]
    follow: bool,
    /// So many of the last entries.
    #[arg(long, default_value = "200")]
    lines: u64,
    #[command(flatten)]
    host: HostArguments,
    /// Lines, or an object of JSON each.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// Seconds that the host waits for an entry before it says that there is none.
const WAIT: u64 = 20;

pub fn run(command: &Logs) -> Result<ExitCode> {
    let client = command.host.client()?;
    let mut entries = client.get(&of(&command.name, &format!("/logs?limit={}", command.lines)))?;
    let mut last = 0;
    loop {
        let mut out = std::io::stdout().lock();
        for entry in entries.as_array().into_iter().flatten() {
            last = entry["number"].as_u64().unwrap_or(last);
            match command.output {
                Output::Json => writeln!(out, "{entry}")?,
                Output::Text => writeln!(out, "{}", line(entry))?,
            }
        }
        out.flush()?;
        if !command.follow {
            return Ok(ExitCode::SUCCESS);
        }
        entries = client.get(&of(&command.name, &format!("/logs?after={last}&wait={WAIT}")))?;
    }
}

fn line(entry: &Value) -> String {
    let text = |key: &str| entry[key].as_str().unwrap_or_default();
    let mut line = format!("{} {:>5} {}", text("at"), text("level"), text("message").replace('\n', "\n    "));
    for (name, value) in entry["fields"].as_object().into_iter().flatten() {
        line += &format!(" {name}={value}");
    }
    line
}
