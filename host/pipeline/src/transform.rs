//! One transform: from its `type` and `config` to a [`Transform`], and which outputs it has.
//!
//! What cannot be understood is reported and gives a transform whose ends are unknown, so that its neighbours are still checked.

mod combine;
mod connector;
mod join;
mod plugin;
mod rows;
mod testing;
mod time;

use pelton_core::catalog::ConnectorSpec;
use pelton_core::time::Duration;

use crate::expression::{self, Dialect};
use crate::fields::{Fields, text};
use crate::graph::{LATE, Transform};
use crate::provider::Offered;
use crate::report::Report;
use crate::source::Mark;
use crate::syntax::Spec;
use crate::triggering;
use crate::yaml::Entry;

/// Types that are Pelton's own, besides connectors and plugins.
pub(crate) const BUILT_IN: &[&str] = &[
    "AssignTimestamps",
    "Combine",
    "ExtractWindowingInfo",
    "Filter",
    "Flatten",
    "Join",
    "LogForTesting",
    "MapToFields",
    "Partition",
    "StripErrorMetadata",
    "WindowInto",
    "WindowIntoWithTriggers",
];

/// Types of Beam 2.77 that say so, instead of being unknown, until we have them.
const BEAM: &[&str] = &[
    "AnomalyDetection",
    "AssertEqual",
    "Create",
    "Enrichment",
    "Explode",
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
    /// All references of all inputs, side by side.
    Many,
    /// Inputs that are told apart by their names; several references of one are flattened.
    Named,
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
        return connector::connector_config(spec, connector, report);
    }
    if let Some(offered) = context.offered.iter().find(|offered| offered.name == spec.kind) {
        return plugin::plugin(spec, offered, report);
    }
    let (kind, dialect) = match spec.kind.split_once('-') {
        Some((kind, language)) if BUILT_IN.contains(&kind) => (kind, expression::dialect(language, spec.kind_mark, report)),
        _ => (spec.kind.as_str(), Dialect::default()),
    };
    let mut fields = Fields::of(spec.config, spec.kind_mark, format!("`{kind}`"), report);
    let mut lowered = match kind {
        "MapToFields" => Lowered::plain(rows::map_to_fields(&mut fields, dialect, report)),
        "Filter" => Lowered::plain(rows::filter(&mut fields, dialect, report)),
        "Partition" => rows::partition(&mut fields, dialect, report),
        "AssignTimestamps" => Lowered::plain(time::assign_timestamps(&mut fields, dialect, report)),
        "Combine" => combine::combine(&mut fields, dialect, report),
        "WindowInto" => Lowered::plain(time::window_into(spec, &mut fields, context, report)),
        "WindowIntoWithTriggers" => Lowered::plain(triggering::window_into_with_triggers(&mut fields, context.allowed_lateness, report)),
        "ExtractWindowingInfo" => Lowered::plain(time::extract_windowing_info(&mut fields, report)),
        "LogForTesting" => Lowered::plain(testing::log_for_testing(&mut fields, report)),
        "Join" => join::join(spec, &mut fields, report),
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
