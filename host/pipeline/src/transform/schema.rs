//! What rows must look like: ValidateWithSchema, and `output_schema` in the config of any transform.

use super::{ERROR_HANDLING, Lowered, OUTPUT_SCHEMA};
use crate::fields::Fields;
use crate::graph::Transform;
use crate::json_schema::JsonSchema;
use crate::report::Report;
use crate::source::Mark;
use crate::syntax::Spec;
use crate::yaml::{Entry, Yaml};

pub(super) fn validate(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Transform> {
    let entry = fields.require("schema", report)?;
    Some(Transform::Validate { schema: Box::new(schema(entry, report)?) })
}

/// The schema that the rows of the main output must fit. As in Beam the errors go where the transform's own go.
pub(super) fn output_schema(spec: &Spec<'_>, lowered: &Lowered, report: &mut Report<'_>) -> Option<(JsonSchema, Mark)> {
    let mut given = spec.config.and_then(Yaml::entries).into_iter().flatten();
    let in_config = given.find(|entry| entry.key == OUTPUT_SCHEMA && !entry.value.is_null());
    let entry = in_config.or(spec.output_schema)?;
    let own = entry.value.entries().unwrap_or_default().iter().find(|entry| entry.key == ERROR_HANDLING);
    if let Some(own) = own {
        let help = "give the transform `error_handling`; rows that do not fit its `output_schema` go there too".to_string();
        report.error_with_help(own.mark, "`output_schema` has no `error_handling` of its own", Some(help));
        return None;
    }
    let schema = schema(entry, report)?;
    if !lowered.has_main {
        let help = "put a ValidateWithSchema behind the output that is meant".to_string();
        report.error_with_help(entry.mark, format!("`{}` has no main output for `output_schema`", spec.kind), Some(help));
        return None;
    }
    if lowered.error_output.is_none() {
        let help = "with `error_handling` on this transform such rows go to its error output".to_string();
        report.warning(entry.mark, "a row that does not fit `output_schema` fails the pipeline", Some(help));
    }
    Some((schema, entry.mark))
}

fn schema(entry: &Entry, report: &mut Report<'_>) -> Option<JsonSchema> {
    match JsonSchema::read(&entry.value.to_json()) {
        Ok(schema) => Some(schema),
        Err(fault) => {
            let mark = entry.value.mark_at(&fault.path).unwrap_or(entry.value.mark);
            report.error(mark, format!("`{}`: {}", entry.key, fault.message));
            None
        }
    }
}
