//! One file a command.

pub mod compile_plugin;
pub mod graph;
pub mod host;
pub mod lint;
pub mod reference;
pub mod replay;
pub mod run;
pub mod savepoint;
pub mod state;
pub mod test;

use crate::plugins::Plugins;
use anyhow::{Context, Result, anyhow, bail};
use pelton_pipeline::{Diagnostic, Files, Graph, Settings};
use pelton_runtime::checkpoint::{FromSavepoint, Otherwise};
use pelton_server::state::StateOptions;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Texts of files that a pipeline includes, by their paths.
pub type Included = Arc<Mutex<BTreeMap<String, String>>>;

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
        Ok(self.recorded_settings()?.0)
    }

    /// The same, and the texts that are read besides, while they are.
    pub fn recorded_settings(&self) -> Result<(Settings, Included)> {
        let text = std::fs::read_to_string(&self.pipeline).map_err(|error| {
            anyhow!(
                "cannot read the pipeline {}: {error}\n  next: name a pipeline file, relative to the current folder",
                self.pipeline.display()
            )
        })?;
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
        let included = Included::default();
        let seen = included.clone();
        let files = Files::read_by(move |path| {
            let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
            seen.lock().expect("no holder of this lock panics").insert(path.to_string_lossy().into_owned(), text.clone());
            Ok(text)
        });
        let now = pelton_runtime::clock::now().micros();
        Ok((Settings { file: self.pipeline.clone(), text, variables, files, now, ..Settings::default() }, included))
    }

    /// The checked graph; faults are rendered for the user.
    pub fn load(&self, plugins: &Plugins) -> Result<std::result::Result<Graph, Vec<Diagnostic>>> {
        plugins.of_file(&self.pipeline)?;
        Ok(pelton_pipeline::load(&self.settings()?, &pelton_connect::catalog(), plugins))
    }
}

fn object(json: &str) -> Result<serde_json::Map<String, Value>, serde_json::Error> {
    serde_json::from_str(json)
}

/// What the command line says of state.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct StateArguments {
    /// Keep checkpoints in this folder, and go on from the last one that is there.
    #[arg(long = "state", value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Begin with the state of a savepoint; the state folder must be new.
    #[arg(long, value_name = "SAVEPOINT", requires = "folder")]
    pub from: Option<String>,
    /// Forget what is in the state folder and begin anew.
    #[arg(long, requires = "folder")]
    pub restart: bool,
    /// Take the pipeline over from a process that still holds its state folder; what that one writes no longer counts.
    #[arg(long, requires = "folder")]
    pub take_over: bool,
    /// Drop the state that a transform of this uid left, or with `UID#NAME` one state or timer of its plugin. May be given several times.
    #[arg(long, value_name = "UID[#NAME]", requires = "folder")]
    pub drop_state: Vec<String>,
}

impl StateArguments {
    /// As the supervisor takes them.
    pub fn options(&self) -> StateOptions {
        StateOptions {
            folder: self.folder.clone(),
            from: self.from.clone().map(|place| FromSavepoint { place, otherwise: Otherwise::Refuse }),
            restart: self.restart,
            take_over: self.take_over,
            drop_state: self.drop_state.clone(),
        }
    }
}
