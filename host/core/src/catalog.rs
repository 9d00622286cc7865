//! What a connector says of itself, and what can be wrong with a config.
//!
//! The front end knows no connector: it is handed a list of [`ConnectorSpec`]s, checks the names of keys against it and
//! leaves the values to `check`. To add a connector is to add one entry to the list of the crate that implements it.

use serde_json::Value;

/// Which end of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// No input; rows come in from outside.
    Source,
    /// Rows leave the pipeline.
    Sink,
}

/// One key of a config.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// As written in the pipeline.
    pub name: &'static str,
    /// Must be given.
    pub required: bool,
    /// One sentence for the reference: meaning, unit, default.
    pub doc: &'static str,
}

/// A transform type that a connector implements.
#[derive(Clone, Copy, Debug)]
pub struct ConnectorSpec {
    /// The `type:` in a pipeline, such as `ReadFromJson`.
    pub name: &'static str,
    /// Source or sink.
    pub role: Role,
    /// One sentence for the reference.
    pub doc: &'static str,
    /// Every key that its config may have.
    pub keys: &'static [KeySpec],
    /// Whether it can refuse rows, so that `error_handling` makes sense.
    pub has_errors: bool,
    /// Whether a source with this config never ends by itself, as far as the config tells.
    pub endless: fn(&Value) -> bool,
    /// Whether rows of a source have event times of their own, such as the timestamps of records. Otherwise rows of a source that
    /// does not end have the time of their arrival.
    pub timed: bool,
    /// Checks the values without touching the outside world; every fault it can find, not only the first.
    pub check: fn(&Value) -> Vec<ConfigFault>,
}

/// What is wrong with a config, and where inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    /// Keys and list indices from the config down to the value, such as `["roll", "size"]`; empty: the config as a whole.
    pub path: Vec<String>,
    /// One sentence that ends without a full stop.
    pub message: String,
    /// What to do, where that can be said.
    pub help: Option<String>,
}

impl ConfigFault {
    /// A fault of one key.
    pub fn at(path: &[&str], message: impl Into<String>) -> ConfigFault {
        ConfigFault { path: path.iter().map(|part| part.to_string()).collect(), message: message.into(), help: None }
    }

    /// The same with the next step.
    pub fn help(mut self, help: impl Into<String>) -> ConfigFault {
        self.help = Some(help.into());
        self
    }
}

/// The nearest of `names`, if one is near enough to be a slip.
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&wrong.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= (name.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Faults of keys: unknown ones with the nearest right name, and required ones that are missing, unless by a slip in their name.
pub fn check_keys(config: &Value, keys: &[KeySpec]) -> Vec<ConfigFault> {
    let Value::Object(given) = config else {
        return match config {
            Value::Null => missing(&serde_json::Map::new(), keys).collect(),
            other => vec![ConfigFault::at(&[], format!("config must be a mapping, not {}", kind(other)))],
        };
    };
    let unknown = given.keys().filter(|name| !keys.iter().any(|key| key.name == *name));
    let unknown: Vec<_> = unknown.map(|name| (name, nearest(name, keys.iter().map(|key| key.name)))).collect();
    let told = unknown.iter().map(|(name, meant)| {
        let fault = ConfigFault::at(&[name], format!("unknown key `{name}`"));
        match meant {
            Some(near) => fault.help(format!("did you mean `{near}`?")),
            None => fault.help(format!("known keys: {}", keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", "))),
        }
    });
    let absent = keys.iter().filter(|key| !unknown.iter().any(|(_, meant)| *meant == Some(key.name)));
    told.chain(missing(given, absent)).collect()
}

fn missing<'k>(given: &serde_json::Map<String, Value>, keys: impl IntoIterator<Item = &'k KeySpec>) -> impl Iterator<Item = ConfigFault> {
    let absent = keys.into_iter().filter(|key| key.required && !given.contains_key(key.name));
    absent.map(|key| ConfigFault::at(&[], format!("missing key `{}`", key.name)).help(key.doc))
}

/// What a value is, in the words of a message.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}
