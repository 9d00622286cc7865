//! One transform: from its `type` and `config` to a [`Transform`], and which outputs it has.
//!
//! What cannot be understood is reported and gives a transform whose ends are unknown, so that its neighbours are still checked.

use pelton_core::catalog::{ConfigFault, ConnectorSpec, Role, check_keys};
use pelton_core::time::Duration;
use serde_json::Value;

use crate::expression::{self, Dialect};
use crate::fields::{Fields, text, texts};
use crate::graph::{LATE, LogLevel, TimeUnit, Transform, WindowingInfo};
use crate::provider::{Offered, check_config};
use crate::report::{Report, suggestion};
use crate::source::Mark;
use crate::syntax::Spec;
use crate::windowing::windowing;
use crate::yaml::{Content, Entry, Yaml};

/// Types that are Pelton's own, besides connectors and plugins.
pub(crate) const BUILT_IN: &[&str] = &[
    "AssignTimestamps",
    "Combine",
    "ExtractWindowingInfo",
    "Filter",
    "Flatten",
    "LogForTesting",
    "MapToFields",
    "Partition",
    "StripErrorMetadata",
    "WindowInto",
];

/// Types of Beam 2.77 that say so, instead of being unknown, until we have them.
const BEAM: &[&str] = &[
    "AnomalyDetection",
    "AssertEqual",
    "Create",
    "Enrichment",
    "Explode",
    "Join",
    "MLTransform",
    "MatchAll",
    "PyTransform",
    "ReadFromAvro",
    "ReadFromBigQuery",
    "ReadFromBigTable",
    "ReadFromCsv",
    "ReadFromDelta",
    "ReadFromIceberg",
    "ReadFromJdbc",
    "ReadFromJson",
    "ReadFromKafka",
    "ReadFromKinesis",
    "ReadFromMongoDB",
    "ReadFromMySql",
    "ReadFromOracle",
    "ReadFromParquet",
    "ReadFromPostgres",
    "ReadFromPubSub",
    "ReadFromPubSubLite",
    "ReadFromSpanner",
    "ReadFromSqlServer",
    "ReadFromTFRecord",
    "ReadFromText",
    "Reshuffle",
    "RunInference",
    "Sql",
    "ValidateWithSchema",
    "WriteToAvro",
    "WriteToBigQuery",
    "WriteToBigTable",
    "WriteToCsv",
    "WriteToIceberg",
    "WriteToJdbc",
    "WriteToJson",
    "WriteToKafka",
    "WriteToKinesis",
    "WriteToMongoDB",
    "WriteToMySql",
    "WriteToOracle",
    "WriteToParquet",
    "WriteToPostgres",
    "WriteToPubSub",
    "WriteToSpanner",
    "WriteToSqlServer",
    "WriteToTFRecord",
    "WriteToText",
];

/// What there is to choose from.
pub(crate) struct Context<'a> {
    pub catalog: &'a [&'static ConnectorSpec],
    pub offered: &'a [Offered],
    /// For windows, where nothing else is said.
    pub allowed_lateness: Duration,
}

/// How many inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arity {
    None,
    One,
    Many,
}

/// A transform and its ends.
#[derive(Debug)]
pub(crate) struct Lowered {
    /// `None`: reported.
    pub transform: Option<Transform>,
    /// `None`: unknown.
    pub arity: Option<Arity>,
    pub has_main: bool,
    pub outputs: Vec<String>,
    /// Whether there may be outputs that nobody here knows.
    pub open: bool,
    pub error_output: Option<(String, Mark)>,
}

impl Lowered {
    fn unknown() -> Lowered {
        Lowered { transform: None, arity: None, has_main: true, outputs: Vec::new(), open: true, error_output: None }
    }

    fn plain(transform: Option<Transform>) -> Lowered {
        Lowered { transform, arity: Some(Arity::One), has_main: true, outputs: Vec::new(), open: false, error_output: None }
    }
}

/// Reads the config of one transform.
pub(crate) fn lower(spec: &Spec<'_>, context: &Context<'_>, report: &mut Report<'_>) -> Lowered {
    if let Some(connector) = context.catalog.iter().find(|connector| connector.name == spec.kind) {
        return connector_config(spec, connector, report);
    }
    if let Some(offered) = context.offered.iter().find(|offered| offered.name == spec.kind) {
        return plugin(spec, offered, report);
    }
    let (kind, dialect) = match spec.kind.split_once('-') {
        Some((kind, language)) if BUILT_IN.contains(&kind) => (kind, expression::dialect(language, spec.kind_mark, report)),
        _ => (spec.kind.as_str(), Dialect::default()),
    };
    let mut fields = Fields::of(spec.config, spec.kind_mark, format!("`{kind}`"), report);
    let mut lowered = match kind {
        "MapToFields" => Lowered::plain(map_to_fields(&mut fields, dialect, report)),
        "Filter" => Lowered::plain(filter(&mut fields, dialect, report)),
        "Partition" => partition(&mut fields, dialect, report),
        "AssignTimestamps" => Lowered::plain(assign_timestamps(&mut fields, dialect, report)),
        "Combine" => combine(&mut fields, dialect, report),
        "WindowInto" => Lowered::plain(window_into(spec, &mut fields, context, report)),
        "ExtractWindowingInfo" => Lowered::plain(extract_windowing_info(&mut fields, report)),
        "LogForTesting" => Lowered::plain(log_for_testing(&mut fields, report)),
        "Flatten" => Lowered { arity: Some(Arity::Many), ..Lowered::plain(Some(Transform::Flatten)) },
        "StripErrorMetadata" => Lowered::plain(Some(Transform::StripErrorMetadata)),
        _ => {
            unknown_type(spec, context, report);
            return Lowered::unknown();
        }
    };
    if matches!(kind, "MapToFields" | "Filter" | "Partition" | "AssignTimestamps") {
        lowered.error_output = error_handling(fields.get("error_handling"), &lowered.outputs, report);
    }
    fields.finish(report);
    lowered
}

fn unknown_type(spec: &Spec<'_>, context: &Context<'_>, report: &mut Report<'_>) {
    if spec.kind.is_empty() {
        return;
    }
    if BEAM.contains(&spec.kind.as_str()) {
        report.error(spec.kind_mark, format!("`{}` is a transform of Beam that is not available yet", spec.kind));
        return;
    }
    let names = BUILT_IN.iter().copied().chain(["composite", "chain"]);
    let names = names.chain(context.catalog.iter().map(|connector| connector.name));
    let names = names.chain(context.offered.iter().map(|offered| offered.name.as_str()));
    let near = pelton_core::catalog::nearest(&spec.kind, names);
    let help = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "transforms of plugins are named under `providers`".to_string(),
    };
    report.error_with_help(spec.kind_mark, format!("unknown transform type `{}`", spec.kind), Some(help));
}

/// The output for refused rows.
fn error_handling(entry: Option<&Entry>, outputs: &[String], report: &mut Report<'_>) -> Option<(String, Mark)> {
    let entry = entry?;
    let mut fields = Fields::of(Some(&entry.value), entry.mark, "`error_handling`", report);
    fields.not_yet("threshold", report);
    let output = match entry.value.entries() {
        Some(_) => fields.require("output", report),
        None => None,
    };
    let name = output.and_then(|output| Some((text(&output.value, "`output`", report)?, output.value.mark)));
    fields.finish(report);
    let (name, mark) = name?;
    if name.is_empty() || name == LATE || outputs.iter().any(|output| output == name) {
        report.error(mark, format!("`{name}` cannot be the name of the error output: it is taken"));
        return None;
    }
    Some((name.to_string(), mark))
}

fn connector_config(spec: &Spec<'_>, connector: &ConnectorSpec, report: &mut Report<'_>) -> Lowered {
    let mut config = spec.config.map_or(Value::Null, Yaml::to_json);
    let mut error_output = None;
    if connector.has_errors {
        if let Value::Object(map) = &mut config {
            map.shift_remove("error_handling");
        }
        let given = spec.config.and_then(Yaml::entries).into_iter().flatten();
        let given = given.into_iter().find(|entry| entry.key == "error_handling" && !entry.value.is_null());
        error_output = error_handling(given, &[], report);
    }
    if config.is_null() {
        config = Value::Object(serde_json::Map::new());
    }
    let mut faults = check_keys(&config, connector.keys);
    if config.is_object() {
        for fault in (connector.check)(&config) {
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
    }
    for fault in faults {
        report_fault(spec, &fault, report);
    }
    let kind = connector.name.to_string();
    let (transform, arity) = match connector.role {
        Role::Source => (Transform::Source { kind, config }, Arity::None),
        Role::Sink => (Transform::Sink { kind, config }, Arity::One),
    };
    let has_main = connector.role == Role::Source;
    Lowered { arity: Some(arity), has_main, error_output, ..Lowered::plain(Some(transform)) }
}

fn report_fault(spec: &Spec<'_>, fault: &ConfigFault, report: &mut Report<'_>) {
    let unknown_key = fault.message.starts_with("unknown key");
    let mark = match (spec.config, fault.path.split_first()) {
        (Some(config), Some((key, []))) if unknown_key => {
            config.entries().unwrap_or_default().iter().find(|entry| entry.key == *key).map(|entry| entry.mark)
        }
        (Some(config), Some(_)) => config.mark_at(&fault.path),
        (Some(config), None) if config.entries().is_none() && !config.is_null() => Some(config.mark),
        _ => None,
    };
    let message = format!("`{}`: {}", spec.kind, fault.message);
    report.error_with_help(mark.unwrap_or(spec.kind_mark), message, fault.help.clone());
}

fn plugin(spec: &Spec<'_>, offered: &Offered, report: &mut Report<'_>) -> Lowered {
    // Only for its complaint about what is no mapping.
    Fields::of(spec.config, spec.kind_mark, format!("the config of `{}`", spec.kind), report);
    let mut config = spec.config.map_or(Value::Null, Yaml::to_json);
    if let Value::Object(map) = &mut config {
        map.shift_remove("error_handling");
    }
    if config.is_null() {
        config = Value::Object(serde_json::Map::new());
    }
    let outputs = offered.known.as_ref().map(|known| known.outputs.clone()).unwrap_or_default();
    let given = spec.config.and_then(Yaml::entries).into_iter().flatten();
    let given = given.into_iter().find(|entry| entry.key == "error_handling" && !entry.value.is_null());
    let error_output = error_handling(given, &outputs, report);
    if let Some(known) = &offered.known {
        check_config(spec.config, spec.kind_mark, &known.config_schema, report);
    }
    let transform = Transform::Plugin { provider: offered.provider, transform: offered.transform.clone(), config };
    Lowered { outputs, open: offered.known.is_none(), error_output, ..Lowered::plain(Some(transform)) }
}

fn map_to_fields(fields: &mut Fields<'_>, dialect: Dialect, report: &mut Report<'_>) -> Option<Transform> {
    let dialect = dialect.read(fields, report);
    let append = fields.boolean("append", report).unwrap_or(false);
    let drop = fields.get("drop");
    let dropped = drop.map(|entry| texts(&entry.value, "`drop`", report)).unwrap_or_default();
    if let Some(entry) = drop.filter(|_| !append) {
        report.error_with_help(entry.mark, "`drop` needs `append: true`", Some("without it only `fields` are kept".to_string()));
    }
    fields.not_yet("dependencies", report);
    let entry = match append {
        true => fields.get("fields"),
        false => fields.require("fields", report),
    };
    let mut columns = Vec::new();
    if let Some(entry) = entry {
        for field in Fields::of(Some(&entry.value), entry.mark, "`fields`", report).into_entries() {
            if let Some(expression) = expression::field(&field.value, dialect, report) {
                columns.push((field.key.clone(), expression));
            }
        }
    }
    let drop = dropped.into_iter().map(|(name, _)| name.to_string()).collect();
    Some(Transform::MapToFields { fields: columns, append, drop })
}

fn filter(fields: &mut Fields<'_>, dialect: Dialect, report: &mut Report<'_>) -> Option<Transform> {
    let dialect = dialect.read(fields, report);
    fields.not_yet("dependencies", report);
    let keep = fields.require("keep", report)?;
    Some(Transform::Filter { keep: expression::field(&keep.value, dialect, report)? })
}

fn partition(fields: &mut Fields<'_>, dialect: Dialect, report: &mut Report<'_>) -> Lowered {
    let dialect = dialect.read(fields, report);
    let by = fields.require("by", report).and_then(|entry| expression::field(&entry.value, dialect, report));
    let listed = fields.require("outputs", report);
    let mut outputs: Vec<String> = Vec::new();
    for (name, mark) in listed.map(|entry| texts(&entry.value, "`outputs`", report)).unwrap_or_default() {
        if name.is_empty() || outputs.iter().any(|other| other == name) {
            report.error(mark, format!("the output `{name}` is given twice or has no name"));
        } else {
            outputs.push(name.to_string());
        }
    }
    let unknown_output = fields.text("unknown_output", report).map(str::to_string);
    let mut all = outputs.clone();
    all.extend(unknown_output.iter().filter(|name| !outputs.contains(name)).cloned());
    let transform = by.map(|by| Transform::Partition { by, outputs, unknown_output });
    Lowered { has_main: false, open: listed.is_none(), outputs: all, ..Lowered::plain(transform) }
}

fn assign_timestamps(fields: &mut Fields<'_>, dialect: Dialect, report: &mut Report<'_>) -> Option<Transform> {
    let dialect = dialect.read(fields, report);
    fields.not_yet("dependencies", report);
    let units = ["s", "ms", "us", "ns"];
    let unit = match fields.get("unit").and_then(|entry| Some((text(&entry.value, "`unit`", report)?, entry.value.mark))) {
        None | Some(("s", _)) => TimeUnit::Seconds,
        Some(("ms", _)) => TimeUnit::Milliseconds,
        Some(("us", _)) => TimeUnit::Microseconds,
        Some(("ns", _)) => TimeUnit::Nanoseconds,
        Some((other, mark)) => {
            report.error_with_help(mark, format!("unknown unit `{other}`"), suggestion(other, units));
            TimeUnit::Seconds
        }
    };
    let time_zone = fields.text("time_zone", report).map(str::to_string);
    let timestamp = fields.require("timestamp", report)?;
    let timestamp = expression::field(&timestamp.value, dialect, report)?;
    Some(Transform::AssignTimestamps { timestamp, unit, time_zone })
}

fn combine(fields: &mut Fields<'_>, dialect: Dialect, report: &mut Report<'_>) -> Lowered {
    let dialect = dialect.read(fields, report);
    let group_by = fields.require("group_by", report);
    let keys = group_by.map(|entry| texts(&entry.value, "`group_by`", report)).unwrap_or_default();
    let combine = fields.require("combine", report);
    let mut aggregates = Vec::new();
    if let Some(entry) = combine {
        for output in Fields::of(Some(&entry.value), entry.mark, "`combine`", report).into_entries() {
            if keys.iter().any(|(key, _)| *key == output.key) {
                report.error(output.mark, format!("`{}` is a field of `group_by` already", output.key));
            }
            aggregates.extend(expression::aggregate(output, dialect, report));
        }
        if entry.value.entries().is_some_and(<[Entry]>::is_empty) {
            report.error(entry.mark, "`combine` has no fields");
        }
    }
    let mut group_by: Vec<(String, crate::graph::Expression)> = Vec::new();
    for (key, mark) in keys {
        if group_by.iter().any(|(other, _)| other == key) {
            report.error(mark, format!("`{key}` stands twice in `group_by`"));
        }
        group_by.push((key.to_string(), expression::column(key, mark, report)));
    }
    let transform = Transform::Combine { group_by, combine: aggregates };
    Lowered { outputs: vec![LATE.to_string()], ..Lowered::plain(Some(transform)) }
}

fn window_into(spec: &Spec<'_>, fields: &mut Fields<'_>, context: &Context<'_>, report: &mut Report<'_>) -> Option<Transform> {
    let inner = fields.get("windowing").map(|entry| &entry.value);
    let Some(yaml) = inner.or(spec.windowing) else {
        report.error(spec.kind_mark, "`WindowInto` needs `windowing`");
        return None;
    };
    let window = windowing(yaml, report)?;
    Some(Transform::WindowInto { window, allowed_lateness: context.allowed_lateness })
}

const WINDOWING_INFO: [(&str, WindowingInfo); 7] = [
    ("timestamp", WindowingInfo::Timestamp),
    ("window_start", WindowingInfo::WindowStart),
    ("window_end", WindowingInfo::WindowEnd),
    ("window_string", WindowingInfo::WindowString),
    ("window_type", WindowingInfo::WindowType),
    ("pane_info", WindowingInfo::PaneInfo),
    ("processing_timestamp", WindowingInfo::ProcessingTimestamp),
];

fn extract_windowing_info(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Transform> {
    let named: Vec<(&str, &str, Mark)> = match fields.get("fields") {
        // Beam's default.
        None => WINDOWING_INFO[..3].iter().map(|(name, _)| (*name, *name, Mark::default())).collect(),
        Some(entry) => match &entry.value.content {
            Content::Mapping(entries) => entries
                .iter()
                .filter_map(|field| Some((field.key.as_str(), text(&field.value, "a kind of windowing info", report)?, field.value.mark)))
                .collect(),
            _ => texts(&entry.value, "`fields`", report).into_iter().map(|(name, mark)| (name, name, mark)).collect(),
        },
    };
    let mut found = Vec::new();
    for (name, kind, mark) in named {
        match WINDOWING_INFO.iter().find(|(known, _)| *known == kind) {
            Some((_, info)) => found.push((name.to_string(), *info)),
            None => {
                let help = suggestion(kind, WINDOWING_INFO.map(|(name, _)| name));
                report.error_with_help(mark, format!("unknown windowing info `{kind}`"), help);
            }
        }
    }
    Some(Transform::ExtractWindowingInfo { fields: found })
}

fn log_for_testing(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Transform> {
    let prefix = fields.text("prefix", report).map(str::to_string);
    let level = match fields.get("level").and_then(|entry| Some((text(&entry.value, "`level`", report)?, entry.value.mark))) {
        None | Some(("INFO", _)) => LogLevel::Info,
        Some(("ERROR", _)) => LogLevel::Error,
        Some(("DEBUG", _)) => LogLevel::Debug,
        Some((other, mark)) => {
            report.error_with_help(mark, format!("unknown level `{other}`"), suggestion(other, ["ERROR", "INFO", "DEBUG"]));
            LogLevel::Info
        }
    };
    Some(Transform::LogForTesting { level, prefix })
}
