//! One transform: from its `type` and `config` to a [`Transform`], and which outputs it has.
//!
//! What cannot be understood is reported and gives a transform whose ends are unknown, so that its neighbours are still checked.

mod combine;
mod connector;
mod join;
mod lookup_join;
mod plugin;
mod reshape;
mod rows;
mod schema;
pub(crate) mod side_inputs;
mod sql;
mod testing;
mod time;
mod timed_join;
mod watermark;

use pelton_core::catalog::ConnectorSpec;
use pelton_core::time::Duration;
use serde_json::Value;

use crate::aggregate::Plugins;
use crate::changes::Changes;
use crate::draft::ErrorOutput;
use crate::expression::{self, Dialect};
use crate::fields::{Fields, text};
use crate::graph::{LATE, SideInput, Transform};
use crate::json_schema::JsonSchema;
use crate::provider::Offered;
use crate::report::Report;
use crate::source::Mark;
use crate::syntax::Spec;
use crate::templates::UNKNOWN;
use crate::triggering;
use crate::yaml::{Content, Entry, Yaml};

/// Types that are Pelton's own, besides connectors and plugins.
pub(crate) const BUILT_IN: &[&str] = &[
    "AsOfJoin",
    "AssignTimestamps",
    "Combine",
    "Explode",
    "ExtractWindowingInfo",
    "Filter",
    "Flatten",
    "IntervalJoin",
    "Join",
    "LogForTesting",
    "LookupJoin",
    "MapToFields",
    "MatchAll",
    "Partition",
    "Reshuffle",
    "RollUp",
    "SetWatermark",
    "Sql",
    "StripErrorMetadata",
    "ValidateWithSchema",
    "WindowInto",
    "WindowIntoWithTriggers",
];

/// Types of Beam 2.77 that say so, instead of being unknown, until we have them.
const BEAM: &[&str] = &[
    "AnomalyDetection",
    "Enrichment",
    "MLTransform",
    "PyTransform",
    "ReadFromBigQuery",
    "ReadFromBigTable",
    "ReadFromDelta",
    "ReadFromIceberg",
    "ReadFromJdbc",
    "ReadFromKinesis",
    "ReadFromMongoDB",
    "ReadFromMySql",
    "ReadFromOracle",
    "ReadFromPostgres",
    "ReadFromPubSub",
    "ReadFromPubSubLite",
    "ReadFromSpanner",
    "ReadFromSqlServer",
    "ReadFromTFRecord",
    "RunInference",
    "WriteToBigQuery",
    "WriteToBigTable",
    "WriteToIceberg",
    "WriteToJdbc",
    "WriteToKinesis",
    "WriteToMongoDB",
    "WriteToMySql",
    "WriteToOracle",
    "WriteToPubSub",
    "WriteToSpanner",
    "WriteToSqlServer",
    "WriteToTFRecord",
];

/// Those that can refuse rows, besides connectors and plugins.
const REFUSING: &[&str] = &["AssignTimestamps", "Explode", "Filter", "MapToFields", "Partition", "ValidateWithSchema"];

/// Keys of a config that any transform may have and that are not its own.
const OUTPUT_SCHEMA: &str = "output_schema";
const ERROR_HANDLING: &str = "error_handling";

/// What there is to choose from.
pub(crate) struct Context<'a> {
    pub catalog: &'a [&'static ConnectorSpec],
    pub offered: &'a [Offered],
    /// What is other than the file says.
    pub changes: &'a Changes<'a>,
    /// For windows, where nothing else is said.
    pub allowed_lateness: Duration,
}

/// How many inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arity {
    None,
    One,
    /// All references of all inputs, side by side.
    Many,
    /// Inputs that are told apart by their names; several references of one are flattened.
    Named,
    /// The same, of which one is called `main` and comes first.
    Sided,
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
    pub error_output: Option<ErrorOutput>,
    /// What rows of the main output must fit, and where that stands.
    pub output_schema: Option<(JsonSchema, Mark)>,
    /// Inputs besides the first, whose rows are looked at and not worked on.
    pub sides: Vec<SideInput>,
}

impl Lowered {
    fn unknown() -> Lowered {
        Lowered { arity: None, open: true, ..Lowered::plain(None) }
    }

    fn plain(transform: Option<Transform>) -> Lowered {
        Lowered {
            transform,
            arity: Some(Arity::One),
            has_main: true,
            outputs: Vec::new(),
            open: false,
            error_output: None,
            output_schema: None,
            sides: Vec::new(),
        }
    }

    /// The same with the side inputs of the config.
    fn with_sides(mut self, spec: &Spec<'_>, report: &mut Report<'_>) -> Lowered {
        if side_inputs::entry_of(spec).is_none() {
            return self;
        }
        self.sides = side_inputs::side_inputs(spec, report);
        side_inputs::look_up(spec, self.transform.as_ref(), &mut self.sides, report);
        // Rows that come when their side input is gone are there.
        if !self.outputs.iter().any(|output| output == LATE) {
            self.outputs.push(LATE.to_string());
        }
        Lowered { arity: Some(Arity::Sided), ..self }
    }
}

/// Reads the config of one transform. `name` is its full one; `plugin`: what its type means here, where that is not what it means in the file.
pub(crate) fn lower(name: &str, spec: &Spec<'_>, plugin: Option<&Offered>, context: &Context<'_>, report: &mut Report<'_>) -> Lowered {
    if let Some(connector) = context.catalog.iter().find(|connector| connector.name == spec.kind) {
        return with_schema(connector::connector_config(spec, connector, report), spec, report);
    }
    if let Some(offered) = plugin.or_else(|| context.offered.iter().find(|offered| offered.name == spec.kind)) {
        return with_schema(plugin::plugin(spec, offered, report), spec, report);
    }
    let (kind, dialect) = match spec.kind.split_once('-') {
        Some((kind, language)) if BUILT_IN.contains(&kind) => (kind, expression::dialect(language, spec.kind_mark, report)),
        _ => (spec.kind.as_str(), Dialect::default()),
    };
    let mut fields = Fields::of(spec.config, spec.kind_mark, format!("`{kind}`"), report);
    let plugins = Plugins { transform: name, offered: context.offered, changes: context.changes };
    let mut lowered = match kind {
        "MapToFields" => Lowered::plain(rows::map_to_fields(&mut fields, dialect, report)).with_sides(spec, report),
        "Filter" => Lowered::plain(rows::filter(&mut fields, dialect, report)).with_sides(spec, report),
        "Partition" => rows::partition(&mut fields, dialect, report),
        "AssignTimestamps" => Lowered::plain(time::assign_timestamps(&mut fields, dialect, report)),
        "Combine" => combine::combine(&mut fields, dialect, &plugins, report),
        "RollUp" => combine::roll_up(&mut fields, dialect, &plugins, report),
        "WindowInto" => Lowered::plain(time::window_into(spec, &mut fields, context, report)),
        "WindowIntoWithTriggers" => Lowered::plain(triggering::window_into_with_triggers(&mut fields, context.allowed_lateness, report)),
        "SetWatermark" => Lowered::plain(watermark::set_watermark(&mut fields, dialect, report)),
        "ExtractWindowingInfo" => Lowered::plain(time::extract_windowing_info(&mut fields, report)),
        "LogForTesting" => Lowered::plain(testing::log_for_testing(&mut fields, report)),
        "Join" => join::join(spec, &mut fields, report),
        "Sql" => sql::sql(spec, &mut fields, report),
        "IntervalJoin" => timed_join::interval_join(spec, &mut fields, report),
        "LookupJoin" => Lowered::plain(lookup_join::lookup_join(&mut fields, context, report)),
        "AsOfJoin" => timed_join::as_of_join(spec, &mut fields, report),
        "Flatten" => Lowered { arity: Some(Arity::Many), ..Lowered::plain(Some(Transform::Flatten)) },
        "StripErrorMetadata" => Lowered::plain(Some(Transform::StripErrorMetadata)),
        "Explode" => Lowered::plain(rows::explode(&mut fields, report)),
        "Reshuffle" => Lowered::plain(reshape::reshuffle(&mut fields, report)),
        "ValidateWithSchema" => Lowered::plain(schema::validate(&mut fields, report)),
        "MatchAll" => Lowered::plain(reshape::match_all(&mut fields, report)),
        _ => {
            unknown_type(spec, context, report);
            return Lowered::unknown();
        }
    };
    if REFUSING.contains(&kind) {
        lowered.error_output = error_handling(fields.get(ERROR_HANDLING), &lowered.outputs, report);
    }
    fields.get(OUTPUT_SCHEMA);
    fields.finish(report);
    with_schema(lowered, spec, report)
}

/// What a transform's own config does not have to know.
fn with_schema(lowered: Lowered, spec: &Spec<'_>, report: &mut Report<'_>) -> Lowered {
    Lowered { output_schema: schema::output_schema(spec, &lowered, report), ..lowered }
}

fn unknown_type(spec: &Spec<'_>, context: &Context<'_>, report: &mut Report<'_>) {
    if spec.kind.is_empty() || spec.kind == UNKNOWN {
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
fn error_handling(entry: Option<&Entry>, outputs: &[String], report: &mut Report<'_>) -> Option<ErrorOutput> {
    let entry = entry?;
    let mut fields = Fields::of(Some(&entry.value), entry.mark, "`error_handling`", report);
    let threshold = fields.get("threshold").and_then(|entry| threshold(entry, report));
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
    Some(ErrorOutput { name: name.to_string(), mark, threshold })
}

fn threshold(entry: &Entry, report: &mut Report<'_>) -> Option<f64> {
    let share = match &entry.value.content {
        Content::Number(number) => number.as_f64().filter(|share| (0.0..=1.0).contains(share)),
        _ => None,
    };
    if share.is_none() {
        let help = "0.01 lets the pipeline fail when more than one row in a hundred is refused".to_string();
        report.error_with_help(entry.value.mark, "`threshold` must be a number from 0 to 1", Some(help));
    }
    share
}

/// The `error_handling` of a config that is somebody else's to read.
fn error_handling_of<'y>(spec: &Spec<'y>) -> Option<&'y Entry> {
    let mut given = spec.config.and_then(Yaml::entries).into_iter().flatten();
    given.find(|entry| entry.key == ERROR_HANDLING && !entry.value.is_null())
}

/// A config without the keys that any transform may have.
fn own_config(spec: &Spec<'_>, errors: bool) -> Value {
    let mut config = spec.config.map_or(Value::Null, Yaml::to_json);
    if let Value::Object(map) = &mut config {
        map.shift_remove(OUTPUT_SCHEMA);
        if errors {
            map.shift_remove(ERROR_HANDLING);
        }
    }
    if config.is_null() { Value::Object(serde_json::Map::new()) } else { config }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_transform_is_in_a_reference() {
        let ours = include_str!("../../../docs/reference/pelton-transforms.md");
        for name in super::BUILT_IN {
            let beams = crate::reference::TRANSFORMS.iter().any(|spec| spec.name == *name);
            let documented = beams || ours.lines().any(|line| line == format!("## {name}"));
            assert!(documented, "`{name}` must be in host/pipeline/src/reference.rs, or, if it is ours, in pelton-transforms.md");
        }
    }
}
