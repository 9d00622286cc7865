//! Transforms of plugins: the config is checked against what the plugin says of itself.

use serde_json::Value;

use super::{Lowered, error_handling};
use crate::fields::Fields;
use crate::graph::Transform;
use crate::provider::{Offered, check_config};
use crate::report::Report;
use crate::syntax::Spec;
use crate::yaml::Yaml;

pub(super) fn plugin(spec: &Spec<'_>, offered: &Offered, report: &mut Report<'_>) -> Lowered {
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
