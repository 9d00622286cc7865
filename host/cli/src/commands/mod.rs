//! One file a command.

pub mod graph;
pub mod lint;
pub mod reference;
pub mod run;

use crate::plugins::Plugins;
use anyhow::{Context, Result, bail};
use pelton_pipeline::{Diagnostic, Graph, Settings};
use std::path::PathBuf;

/// What names a pipeline and fills its variables.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// The pipeline file.
    pub pipeline: PathBuf,
    /// A variable of the file's template; may be given several times.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Variables as a JSON object, as Beam takes them.
    #[arg(long = "jinja_variables", value_name = "JSON")]
    pub jinja_variables: Option<String>,
}

impl Source {
    /// Reads the file and the variables.
    pub fn settings(&self) -> Result<Settings> {
        let text =
            std::fs::read_to_string(&self.pipeline).with_context(|| format!("cannot read the pipeline {}", self.pipeline.display()))?;
        let mut variables = Vec::new();
        if let Some(json) = &self.jinja_variables {
            let object: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(json).context("--jinja_variables must be a JSON object such as '{\"input\": \"logs/*.json\"}'")?;
            variables.extend(object.into_iter().map(|(name, value)| match value {
                serde_json::Value::String(text) => (name, text),
                other => (name, other.to_string()),
            }));
        }
        for set in &self.set {
            match set.split_once('=') {
                Some((name, value)) => variables.push((name.to_string(), value.to_string())),
                None => bail!("--set {set}: write NAME=VALUE"),
            }
        }
        Ok(Settings { file: self.pipeline.clone(), text, variables })
    }

    /// The checked graph; faults are rendered for the user.
    pub fn load(&self, plugins: &Plugins) -> Result<std::result::Result<Graph, Vec<Diagnostic>>> {
        Ok(pelton_pipeline::load(&self.settings()?, &pelton_connect::catalog(), plugins))
    }
}
