//! Transforms of plugins: the config is checked against what the plugin says of itself.

use super::{Lowered, error_handling, error_handling_of, own_config};
use crate::fields::Fields;
use crate::graph::Transform;
use crate::provider::{Offered, check_config};
use crate::report::Report;
use crate::syntax::Spec;

pub(super) fn plugin(spec: &Spec<'_>, offered: &Offered, report: &mut Report<'_>) -> Lowered {
    // Only for its complaint about what is no mapping.
    Fields::of(spec.config, spec.kind_mark, format!("the config of `{}`", spec.kind), report);
    let config = own_config(spec, true);
    let outputs = offered.known.as_ref().map(|known| known.outputs.clone()).unwrap_or_default();
    let error_output = error_handling(error_handling_of(spec), &outputs, report);
    if let Some(known) = &offered.known {
        check_config(spec.config, spec.kind_mark, &known.config_schema, report);
    }
    let transform = Transform::Plugin { provider: offered.provider, transform: offered.transform.clone(), config };
    Lowered { outputs, open: offered.known.is_none(), error_output, ..Lowered::plain(Some(transform)) }
}
