//! `pelton status`: what a pipeline of a host is doing.

use super::{HostArguments, of, table};
use crate::commands::run::Output;
use anyhow::Result;
use serde_json::Value;
use std::fmt::Write;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pelton status orders\n\nExits with 1 if the pipeline has failed.")]
pub struct Status {
    /// The pipeline.
    name: String,
    #[command(flatten)]
    host: HostArguments,
    /// Text, or JSON.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

pub fn run(command: &Status) -> Result<ExitCode> {
    let status = command.host.client()?.get(&of(&command.name, ""))?;
    match command.output {
        Output::Json => println!("{status}"),
        Output::Text => print!("{}", text(&status)),
    }
    Ok(if status["state"] == "failed" { ExitCode::from(crate::PIPELINE_FAILED) } else { ExitCode::SUCCESS })
}

fn text(status: &Value) -> String {
    let text = |key: &str| status[key].as_str().unwrap_or("-");
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} is {} since {}, version {}, {} tasks side by side, {} restarts",
        text("name"),
        text("state"),
        text("since"),
        status["version"],
        status["parallelism"],
        status["restarts"]
    );
    let _ = writeln!(
        out,
        "{} rows read, {:.0} rows/s, watermark {}",
        status["rows_read"],
        status["rows_per_second"].as_f64().unwrap_or(0.0),
        text("watermark")
    );
    let checkpoints = &status["checkpoints"];
    if let Some(last) = checkpoints["last"].as_u64().filter(|last| *last > 0) {
        let took = checkpoints["took"]["p99_millis"].as_f64().map_or(String::new(), |millis| format!(", 99 of 100 within {millis:.0} ms"));
        let _ = writeln!(out, "last checkpoint {last}, {} bytes of state{took}", checkpoints["last_bytes"]);
    }
    if let Some(message) = status["last_failure"]["message"].as_str() {
        let _ = writeln!(out, "last failure {}: {}", status["last_failure"]["at"].as_str().unwrap_or("-"), message.replace('\n', "\n  "));
    }
    for (plugin, digest) in status["plugins"].as_object().into_iter().flatten() {
        let _ = writeln!(out, "plugin {plugin}: {}", digest.as_str().unwrap_or("-"));
    }
    for change in status["changes"].as_array().into_iter().flatten() {
        let _ = writeln!(out, "swapped {}", swapped(change));
    }
    out.push('\n');
    out.push_str(&table(&transforms(status)));
    out
}

/// What a swap has made of a transform.
fn swapped(change: &Value) -> String {
    let plugin = change["plugin"].as_str().map(|digest| format!("plugin {digest}"));
    let config = change["config"].is_object().then(|| format!("config {}", change["config"]));
    let what: Vec<String> = plugin.into_iter().chain(config).collect();
    format!("{}: {}", change["transform"].as_str().unwrap_or("-"), what.join(", "))
}

/// Transforms as lines, with a head.
pub fn transforms(status: &Value) -> Vec<Vec<String>> {
    let head = [
        "transform",
        "rows in",
        "in/s",
        "out/s",
        "busy",
        "waits",
        "errors",
        "late",
        "held",
        "lag",
        "plugin CPU",
        "plugin MiB",
        "watermark",
    ];
    let line = |one: &Value| {
        let number = |key: &str| one[key].as_i64().map_or("-".into(), |number| number.to_string());
        let rate = |key: &str| format!("{:.0}", one[key].as_f64().unwrap_or(0.0));
        let text = |key: &str| one[key].as_str().unwrap_or("-").to_string();
        let plugin = |key: &str, show: fn(f64) -> String| one["plugin"][key].as_f64().map_or("-".into(), show);
        let seconds = plugin("guest_seconds", |seconds| format!("{seconds:.1} s"));
        let memory = plugin("memory_bytes_peak", |bytes| format!("{:.1}", bytes / f64::from(1 << 20)));
        let busy = format!("{:.0} %", 100.0 * one["busy"].as_f64().unwrap_or(0.0));
        let (rates_in, rates_out) = (rate("rows_in_per_second"), rate("rows_out_per_second"));
        let counts = ["waits", "errors", "late", "held", "lag"].map(number);
        let [waits, errors, late, held, lag] = counts;
        vec![text("name"), number("rows_in"), rates_in, rates_out, busy, waits, errors, late, held, lag, seconds, memory, text("watermark")]
    };
    let lines = status["transforms"].as_array().into_iter().flatten().map(line);
    std::iter::once(head.map(String::from).to_vec()).chain(lines).collect()
}
