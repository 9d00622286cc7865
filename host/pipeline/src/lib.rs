//! Beam YAML to a checked graph and a physical plan.
//!
//! In reading order: [`graph`] is what comes out, [`options`] the settings in it, [`diagnostic`] what is said instead when a
//! file is wrong. [`load()`] is the way there: `source` holds the texts, `template` fills them in (with `datetime`), `yaml` gives
//! a tree with places, `templates` replaces transforms that stand for others, `syntax` knows Beam's grammar, `test_blocks` reads
//! `tests`, `provider` (with `grants`), `transform`, `expression`, `aggregate` and `windowing` the values in it (with `fields` for reading mappings
//! and `report` for what is wrong, `json_schema` for schemas of rows), `connect` turns names into edges of a `draft`, which `load`
//! makes a graph and `event_time` looks at. `changes` are what swaps have made of the file.
//!
//! [`mod@reference`] is the documentation of the built-in transforms.
//!
//! **Invariant:** only this crate knows YAML. Nothing in it touches the outside world: it reads text and gives values.

mod aggregate;
mod changes;
pub mod columns;
mod connect;
mod datetime;
pub mod diagnostic;
mod draft;
pub mod draw;
mod event_time;
mod expression;
mod fields;
#[cfg(test)]
mod fuzz;
mod grants;
pub mod graph;
pub mod json_schema;
mod load;
mod number;
pub mod options;
pub mod physical;
mod provider;
pub mod reference;
mod report;
mod source;
mod syntax;
mod template;
mod templates;
mod test_blocks;
mod transform;
mod triggering;
mod windowing;
mod yaml;

pub use changes::Change;
pub use diagnostic::{Diagnostic, Severity, render};
pub use graph::{
    Aggregate, AggregateFunction, EmptyMatch, Equality, Expression, Graph, Input, Join, JoinField, JoinFields, JoinKind, LATE, Language,
    LogLevel, Node, Place, PluginInfo, PluginRole, PluginTransform, Provider, SideInput, SideKind, SideLookup, TimeUnit, Transform,
    UncheckedPlugins, WindowingInfo,
};
pub use load::{Test, load, load_tests};
pub use options::{Options, SourceWatermark, Watermark};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

/// What is loaded, and the variables of its template.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The file, as the user named it; plugins are found relative to its folder.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
    /// `--set name=value`, `--vars` and Beam's `--jinja_variables`; a later one replaces an earlier.
    pub variables: Vec<(String, Value)>,
    /// Reads what the file includes.
    pub files: Files,
    /// What is other than the file says.
    pub changes: Vec<Change>,
    /// Processing time for `datetime` in templates, microseconds since the epoch.
    pub now: i64,
}

impl Settings {
    /// A path as it is meant in the file.
    pub(crate) fn beside(&self, path: &str) -> PathBuf {
        self.file.parent().map_or_else(|| path.into(), |folder| folder.join(path))
    }
}

/// How files are read: this crate touches none itself. By default there are none.
#[derive(Clone, Default)]
pub struct Files(Option<Arc<ReadFile>>);

type ReadFile = dyn Fn(&Path) -> Result<String, String> + Send + Sync;

impl Files {
    /// Reads them with this; an error is a sentence.
    pub fn read_by(read: impl Fn(&Path) -> Result<String, String> + Send + Sync + 'static) -> Files {
        Files(Some(Arc::new(read)))
    }

    pub(crate) fn read(&self, path: &Path) -> Result<String, String> {
        match &self.0 {
            Some(read) => read(path),
            None => Err("files cannot be read here".to_string()),
        }
    }
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Files")
    }
}
