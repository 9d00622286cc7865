//! `pelton lint`: every fault of a file in one go, and nothing is run.

use super::Source;
use crate::plugins::Plugins;
use anyhow::Result;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton lint examples/minute-traffic/files.yaml --set input=logs/*.json --set raw=out/raw --set windowed=out/windowed --set errors=out/errors"
)]
pub struct Lint {
    #[command(flatten)]
    source: Source,
    /// One JSON object a diagnostic.
    #[arg(long, value_enum, default_value = "text")]
    output: super::run::Output,
}

pub fn run(lint: Lint) -> Result<ExitCode> {
    let plugins = Plugins::new()?;
    let (diagnostics, code) = match lint.source.load(&plugins)? {
        Ok(graph) => (graph.warnings, ExitCode::SUCCESS),
        Err(diagnostics) => (diagnostics, ExitCode::from(crate::USERS_FAULT)),
    };
    match lint.output {
        super::run::Output::Json => {
            for diagnostic in &diagnostics {
                let severity = format!("{:?}", diagnostic.severity).to_lowercase();
                println!(
                    "{}",
                    serde_json::json!({"severity": severity, "message": diagnostic.message, "help": diagnostic.help, "file": diagnostic.file, "line": diagnostic.line, "column": diagnostic.column})
                );
            }
        }
        super::run::Output::Text => {
            eprint!("{}", pelton_pipeline::render(&diagnostics));
            if code == ExitCode::SUCCESS {
                println!("{}: no errors", lint.source.pipeline.display());
            }
        }
    }
    Ok(code)
}
