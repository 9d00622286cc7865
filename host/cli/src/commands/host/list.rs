//! `pelton list` and `pelton history`.

use super::{HostArguments, of, table};
use crate::commands::run::Output;
use anyhow::Result;
use serde_json::Value;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pelton list --output json")]
pub struct List {
    #[command(flatten)]
    host: HostArguments,
    /// A table, or JSON.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pelton history orders")]
pub struct History {
    /// The pipeline.
    name: String,
    #[command(flatten)]
    host: HostArguments,
    /// A table, or JSON.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

pub fn list(command: &List) -> Result<ExitCode> {
    let all = command.host.client()?.get("/v1/pipelines")?;
    match command.output {
        Output::Json => println!("{all}"),
        Output::Text => print!("{}", table(&rows(&all))),
    }
    Ok(ExitCode::SUCCESS)
}

/// Pipelines as lines, with a head.
pub fn rows(all: &Value) -> Vec<Vec<String>> {
    let head = ["pipeline", "state", "version", "rows/s", "rows read", "watermark", "behind", "lag", "errors", "restarts"];
    let line = |one: &Value| {
        let text = |key: &str| one[key].as_str().unwrap_or("-").to_string();
        let number = |key: &str| one[key].as_i64().map_or("-".into(), |number| number.to_string());
        let behind = one["watermark_lag_seconds"].as_f64().map_or("-".into(), |seconds| format!("{seconds:.1} s"));
        let rate = format!("{:.0}", one["rows_per_second"].as_f64().unwrap_or(0.0));
        let (name, state, watermark) = (text("name"), text("state"), text("watermark"));
        vec![
            name,
            state,
            number("version"),
            rate,
            number("rows_read"),
            watermark,
            behind,
            number("lag"),
            number("errors"),
            number("restarts"),
        ]
    };
    let head = head.map(String::from).to_vec();
    std::iter::once(head).chain(all.as_array().into_iter().flatten().map(line)).collect()
}

pub fn history(command: &History) -> Result<ExitCode> {
    let all = command.host.client()?.get(&of(&command.name, "/history"))?;
    match command.output {
        Output::Json => println!("{all}"),
        Output::Text => {
            let head = ["version", "deployed", "by", "result", "note"].map(String::from).to_vec();
            let line = |one: &Value| {
                let text = |key: &str| one[key].as_str().unwrap_or("").to_string();
                let number = |key: &str| one[key].as_u64().map(|number| number.to_string());
                let mut what = match (&one["current"], &one["refused"]) {
                    (Value::Bool(true), _) => "current".to_string(),
                    (_, Value::String(_)) => "refused".into(),
                    _ => String::new(),
                };
                if let Some(version) = number("rollback_of") {
                    what += if what.is_empty() { "" } else { ", " };
                    what += &format!("back to {version}");
                }
                vec![number("version").unwrap_or_default(), text("at"), text("who"), what, text("note")]
            };
            let lines = all.as_array().into_iter().flatten().map(line);
            print!("{}", table(&std::iter::once(head).chain(lines).collect::<Vec<_>>()));
        }
    }
    Ok(ExitCode::SUCCESS)
}
