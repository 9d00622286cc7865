//! What a component says about itself, owned and serialisable. The source is `wit/spec.wit`, which documents each field.

use crate::contract::{describe, spec};
use serde::Serialize;
use std::collections::HashSet;

/// A component's name, version and transforms.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Descriptor {
    /// Name of the plugin.
    pub name: String,
    /// Semantic version of the plugin.
    pub version: String,
    /// Its transforms.
    pub transforms: Vec<TransformSpec>,
}

/// One transform of a component.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TransformSpec {
    /// What a pipeline's `transforms:` names.
    pub name: String,
    /// One sentence.
    pub summary: String,
    /// Which world it follows.
    pub role: Role,
    /// JSON Schema of the config object.
    pub config_schema: serde_json::Value,
    /// Columns that it reads for certain; `open` decides for good.
    pub reads: Vec<ColumnNeed>,
    /// Tags of its outputs; the main one is `""`.
    pub outputs: Vec<String>,
    /// Names of its states.
    pub states: Vec<String>,
    /// Names of its timers.
    pub timers: Vec<String>,
}

/// The world that a transform follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Stateless.
    Transform,
    /// With keyed state and timers.
    StatefulTransform,
    /// An aggregation.
    Combine,
}

/// A column that is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnNeed {
    /// Name of the column.
    pub name: String,
    /// Accepted Arrow formats; empty = any.
    pub formats: Vec<String>,
}

impl Descriptor {
    pub(crate) fn check(told: describe::Descriptor) -> Result<Descriptor, String> {
        let transforms = told.transforms.into_iter().map(transform).collect::<Result<Vec<_>, _>>()?;
        let mut names = HashSet::new();
        if let Some(twice) = transforms.iter().find(|spec| !names.insert(spec.name.as_str())) {
            return Err(format!("its descriptor has two transforms of the name `{}`", twice.name));
        }
        if transforms.is_empty() {
            return Err("its descriptor has no transform".into());
        }
        Ok(Descriptor { name: told.name, version: told.version, transforms })
    }
}

fn transform(told: spec::TransformSpec) -> Result<TransformSpec, String> {
    let config_schema = serde_json::from_str(&told.config_schema)
        .map_err(|error| format!("the config schema of its transform `{}` is not JSON: {error}", told.name))?;
    Ok(TransformSpec {
        name: told.name,
        summary: told.summary,
        role: match told.role {
            spec::Role::Transform => Role::Transform,
            spec::Role::StatefulTransform => Role::StatefulTransform,
            spec::Role::Combine => Role::Combine,
        },
        config_schema,
        reads: told.reads.into_iter().map(|need| ColumnNeed { name: need.name, formats: need.formats }).collect(),
        outputs: told.outputs,
        states: told.states.into_iter().map(|state| state.name).collect(),
        timers: told.timers.into_iter().map(|timer| timer.name).collect(),
    })
}
