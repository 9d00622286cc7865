//! One file a command.

pub mod graph;
pub mod lint;
pub mod reference;
pub mod run;
pub mod test;

use crate::plugins::Plugins;
use anyhow::{Context, Result, bail};
use pelton_pipeline::{Diagnostic, Files, Graph, Settings};
use serde_json::Value;
use std::path::PathBuf;

/// What names a pipeline and fills its variables.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// The pipeline file.
    pub pipeline: PathBuf,
    /// A variable of the file's template; may be given several times.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// A JSON file with an object of variables; they keep their types.
    #[arg(long = "vars", value_name = "FILE.json")]
    pub vars: Option<PathBuf>,
    /// Variables as a JSON object, as Beam takes them; they keep their types.
    #[arg(long = "jinja_variables", value_name = "JSON")]
    pub jinja_variables: Option<String>,
}

impl Source {
    /// Reads the file and the variables.
    pub fn settings(&self) -> Result<Settings> {
        let text =
            std::fs::read_to_string(&self.pipeline).with_context(|| format!("cannot read the pipeline {}", self.pipeline.display()))?;
        let mut variables: Vec<(String, Value)> = Vec::new();
        if let Some(path) = &self.vars {
            let json = std::fs::read_to_string(path).with_context(|| format!("cannot read the variables in {}", path.display()))?;
            variables.extend(object(&json).with_context(|| format!("{} must hold a JSON object of variables", path.display()))?);
        }
        if let Some(json) = &self.jinja_variables {
            variables.extend(object(json).context("--jinja_variables must be a JSON object such as '{\"input\": \"logs/*.json\"}'")?);
        }
        for set in &self.set {
            match set.split_once('=') {
                Some((name, value)) => variables.push((name.to_string(), Value::from(value))),
                None => bail!("--set {set}: write NAME=VALUE"),
            }
        }
        let files = Files::read_by(|path| std::fs::read_to_string(path).map_err(|error| error.to_string()));
        Ok(Settings { file: self.pipeline.clone(), text, variables, files, now: pelton_runtime::clock::now().micros() })
    }

    /// The checked graph; faults are rendered for the user.
    pub fn load(&self, plugins: &Plugins) -> Result<std::result::Result<Graph, Vec<Diagnostic>>> {
        Ok(pelton_pipeline::load(&self.settings()?, &pelton_connect::catalog(), plugins))
    }
}

fn object(json: &str) -> Result<serde_json::Map<String, Value>, serde_json::Error> {
    serde_json::from_str(json)
}
