//! What a component says about itself, owned and serialisable. The source is `wit/spec.wit`, which documents each field.

use crate::contract::{describe, spec};
use crate::schema::{FlatField, unflatten_schema};
use pelton_core::evolution::{self, Field};
use serde::Serialize;
use std::collections::HashSet;
use std::fmt;

/// Transforms of a component.
const MAX_TRANSFORMS: usize = 1_000;
/// States of a transform.
const MAX_STATES: usize = 64;
/// Timers of a transform; their numbers are tags of a byte in the host's timers.
const MAX_TIMERS: usize = 64;

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
    /// Its states, numbered as they stand.
    pub states: Vec<StateSpec>,
    /// Its timers, numbered as they stand.
    pub timers: Vec<TimerSpec>,
}

/// State of one name, kept by key and window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StateSpec {
    /// Unique in its transform.
    pub name: String,
    /// Value, list or map.
    pub kind: StateKind,
    /// The type of a value, an item or a map's value; absent when only the plugin knows.
    pub value: Option<String>,
    /// The same for a map's keys.
    pub key: Option<String>,
    /// Whether the bytes are of the contract's plain encoding.
    pub plain: bool,
    /// Version of the type.
    pub version: u32,
    /// Other versions whose values the plugin's `migrate` brings to this one.
    pub migrates: Vec<u32>,
    /// The same with the types that it takes.
    #[serde(skip)]
    pub migrations: Vec<evolution::Migration>,
    /// When it is dropped by itself.
    pub ttl: Option<Ttl>,
    /// The type of a value, to be compared with that of stored ones.
    #[serde(skip)]
    pub value_type: Option<Field>,
    /// The same for keys.
    #[serde(skip)]
    pub key_type: Option<Field>,
}

/// What a state holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StateKind {
    /// One value.
    Value,
    /// Items in the order of appending.
    List,
    /// Values by key.
    Map,
}

/// A time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ttl {
    /// Microseconds; more than 0.
    pub micros: i64,
    /// The clock that counts.
    pub domain: TimeDomain,
}

/// Which clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeDomain {
    /// The watermark.
    EventTime,
    /// The time of day.
    ProcessingTime,
}

/// States and timers of a transform, to be compared with what is stored.
pub(crate) fn declared(states: &[StateSpec], timers: &[TimerSpec]) -> evolution::Declared {
    evolution::Declared {
        states: states.iter().map(StateSpec::declared).collect(),
        timers: timers.iter().map(TimerSpec::declared).collect(),
        fixed: false,
    }
}

/// The accumulators of the plugins in a grouping, each by the name of its column: what is kept for it is what its plugin has declared, or what only the plugin
/// can read.
pub(crate) fn accumulator(name: &str, told: Option<&StateSpec>) -> evolution::State {
    let opaque = || evolution::State {
        name: String::new(),
        kind: evolution::Kind::Value,
        plain: false,
        value: None,
        key: None,
        version: 0,
        expires_by: None,
        migrates: Vec::new(),
    };
    evolution::State { name: name.into(), ..told.map_or_else(opaque, StateSpec::declared) }
}

impl StateSpec {
    fn declared(&self) -> evolution::State {
        evolution::State {
            name: self.name.clone(),
            kind: match self.kind {
                StateKind::Value => evolution::Kind::Value,
                StateKind::List => evolution::Kind::List,
                StateKind::Map => evolution::Kind::Map,
            },
            plain: self.plain,
            value: self.value_type.clone(),
            key: self.key_type.clone(),
            version: self.version,
            expires_by: self.ttl.map(|ttl| ttl.domain.clock()),
            migrates: self.migrations.clone(),
        }
    }
}

impl TimerSpec {
    fn declared(&self) -> evolution::Timer {
        evolution::Timer { name: self.name.clone(), clock: self.domain.clock() }
    }
}

impl TimeDomain {
    fn clock(self) -> evolution::Clock {
        match self {
            TimeDomain::EventTime => evolution::Clock::Event,
            TimeDomain::ProcessingTime => evolution::Clock::Processing,
        }
    }
}

/// A timer of one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TimerSpec {
    /// Unique in its transform.
    pub name: String,
    /// The clock that fires it.
    pub domain: TimeDomain,
}

/// The world that a transform follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Stateless.
    Transform,
    /// With keyed state and timers.
    StatefulTransform,
    /// An aggregation.
    Combine,
}

impl Role {
    /// Name of the interface that a component of this role exports.
    pub(crate) fn interface(self) -> &'static str {
        match self {
            Role::Transform => "do-fn",
            Role::StatefulTransform => "stateful-do-fn",
            Role::Combine => "combine-fn",
        }
    }

    /// How a pipeline uses it.
    pub(crate) fn use_it(self) -> &'static str {
        match self {
            Role::Transform => "take `key` out of its config",
            Role::StatefulTransform => "say which columns are its key, with `key: [..]` in its config",
            Role::Combine => "name it in a `Combine`: `combine: {out: {value: x, fn: {type: NAME}}}`",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Transform => "a stateless transform",
            Role::StatefulTransform => "a stateful transform",
            Role::Combine => "an aggregation (CombineFn)",
        })
    }
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
        if told.transforms.len() > MAX_TRANSFORMS {
            return Err(format!("its descriptor has {} transforms; {MAX_TRANSFORMS} are allowed", told.transforms.len()));
        }
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
    let about = |why: String| format!("the descriptor of its transform `{}` is wrong: {why}", told.name);
    let (states, timers) = (states(told.states).map_err(about)?, timers(told.timers).map_err(about)?);
    let role = match told.role {
        spec::Role::Transform => Role::Transform,
        spec::Role::StatefulTransform => Role::StatefulTransform,
        spec::Role::Combine => Role::Combine,
    };
    match role {
        Role::Transform if !states.is_empty() || !timers.is_empty() => return Err(about(format!("{role} has no states and no timers"))),
        Role::Combine if states.len() > 1 || states.iter().any(|state| state.kind != StateKind::Value || state.ttl.is_some()) => {
            return Err(about(format!("{role} has one state at most, its accumulator: a value without a TTL")));
        }
        Role::Combine if !timers.is_empty() => return Err(about(format!("{role} has no timers"))),
        _ => {}
    }
    Ok(TransformSpec {
        name: told.name,
        summary: told.summary,
        role,
        config_schema,
        reads: told.reads.into_iter().map(|need| ColumnNeed { name: need.name, formats: need.formats }).collect(),
        outputs: told.outputs,
        states,
        timers,
    })
}

fn states(told: Vec<spec::StateSpec>) -> Result<Vec<StateSpec>, String> {
    if told.len() > MAX_STATES {
        return Err(format!("it has {} states; {MAX_STATES} are allowed", told.len()));
    }
    let states = told.into_iter().map(state).collect::<Result<Vec<_>, _>>()?;
    unique("states", states.iter().map(|state| state.name.as_str()))?;
    Ok(states)
}

fn state(told: spec::StateSpec) -> Result<StateSpec, String> {
    let name = told.name;
    let about = |why: String| format!("state `{name}`: {why}");
    let ttl = match told.ttl {
        Some(ttl) => match i64::try_from(ttl.duration_us) {
            Ok(micros) if micros > 0 => Some(Ttl { micros, domain: domain(ttl.domain) }),
            _ => return Err(about(format!("a TTL of {} microseconds is none", ttl.duration_us))),
        },
        None => None,
    };
    let (value, mut value_type) = type_of(told.value).map_err(about)?;
    let (key, key_type) = type_of(told.key).map_err(about)?;
    for default in told.defaults {
        let field = value_type.as_mut().and_then(|field| numbered(field, &mut (default.field as usize)));
        let field = field.ok_or_else(|| about(format!("it has a default of field {}, which its type has not", default.field)))?;
        let same = evolution::Conversion::Same(field.clone());
        same.apply(&default.value, &mut Vec::new()).map_err(|_| about(format!("the default of `{}` is not of its type", field.name)))?;
        field.default = Some(default.value);
    }
    let migrations = told.migrates.into_iter().map(migration).collect::<Result<Vec<_>, _>>().map_err(about)?;
    Ok(StateSpec {
        kind: match told.kind {
            spec::StateKind::Value => StateKind::Value,
            spec::StateKind::ListState => StateKind::List,
            spec::StateKind::MapState => StateKind::Map,
        },
        value,
        key,
        plain: told.encoding == spec::Encoding::Plain,
        version: told.version,
        migrates: migrations.iter().map(|migration| migration.version).collect(),
        migrations,
        ttl,
        value_type,
        key_type,
        name,
    })
}

fn migration(told: spec::Migration) -> Result<evolution::Migration, String> {
    Ok(evolution::Migration { version: told.version, value: type_of(told.value)?.1, key: type_of(told.key)?.1 })
}

/// The one field of a flattened schema, in words and as it is.
fn type_of(told: Vec<spec::Field>) -> Result<(Option<String>, Option<Field>), String> {
    let flat: Vec<_> = told.into_iter().map(FlatField::from).collect();
    let fields = unflatten_schema(&flat)?;
    match fields.len() {
        0 => Ok((None, None)),
        1 => Ok((Some(fields[0].data_type().to_string()), nested(&mut flat.into_iter()))),
        more => Err(format!("its type has {more} fields at the top, not one")),
    }
}

/// A field of a checked flattened schema with those below it.
fn nested(flat: &mut impl Iterator<Item = FlatField>) -> Option<Field> {
    let FlatField { name, format, nullable, children } = flat.next()?;
    let children = (0..children).map_while(|_| nested(flat)).collect();
    Some(Field { name, format, nullable, children, default: None })
}

/// The field of a number, counted as they are flattened.
fn numbered<'f>(field: &'f mut Field, number: &mut usize) -> Option<&'f mut Field> {
    if *number == 0 {
        return Some(field);
    }
    *number -= 1;
    for child in &mut field.children {
        // A borrow that is given back cannot be asked twice.
        let below = below(child);
        if *number < below {
            return numbered(child, number);
        }
        *number -= below;
    }
    None
}

/// How many fields a field is, flattened.
fn below(field: &Field) -> usize {
    1 + field.children.iter().map(below).sum::<usize>()
}

fn timers(told: Vec<spec::TimerSpec>) -> Result<Vec<TimerSpec>, String> {
    if told.len() > MAX_TIMERS {
        return Err(format!("it has {} timers; {MAX_TIMERS} are allowed", told.len()));
    }
    unique("timers", told.iter().map(|timer| timer.name.as_str()))?;
    Ok(told.into_iter().map(|timer| TimerSpec { name: timer.name, domain: domain(timer.domain) }).collect())
}

fn domain(told: spec::TimeDomain) -> TimeDomain {
    match told {
        spec::TimeDomain::EventTime => TimeDomain::EventTime,
        spec::TimeDomain::ProcessingTime => TimeDomain::ProcessingTime,
    }
}

fn unique<'n>(what: &str, names: impl Iterator<Item = &'n str>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(format!("two {what} have the name `{name}`"));
        }
    }
    Ok(())
}
