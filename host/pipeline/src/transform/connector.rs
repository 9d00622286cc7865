//! Sources and sinks: the config is the connector's own to check; here its faults are put at their places.

use pelton_core::catalog::{ConfigFault, ConnectorSpec, Role, check_keys};

use serde_json::Value;

use super::{Arity, Lowered, error_handling, error_handling_of, own_config};
use crate::graph::Transform;
use crate::report::Report;
use crate::source::Mark;
use crate::syntax::Spec;
use crate::yaml::Yaml;

pub(super) fn connector_config(spec: &Spec<'_>, connector: &ConnectorSpec, report: &mut Report<'_>) -> Lowered {
    let config = own_config(spec, connector.has_errors);
    let error_output = error_handling_of(spec).filter(|_| connector.has_errors);
    let error_output = error_output.and_then(|given| error_handling(Some(given), &[], report));
    check_config(connector, &config, spec.config, spec.kind_mark, report);
    let kind = connector.name.to_string();
    let (transform, arity) = match connector.role {
        Role::Source => (Transform::Source { kind, config }, Arity::None),
        Role::Sink => (Transform::Sink { kind, config }, Arity::One),
    };
    let has_main = connector.role == Role::Source;
    Lowered { arity: Some(arity), has_main, error_output, ..Lowered::plain(Some(transform)) }
}

/// Reports what is wrong with a connector's config, which stands at `written`; `kind_mark` is the place of its type.
pub(super) fn check_config(connector: &ConnectorSpec, config: &Value, written: Option<&Yaml>, kind_mark: Mark, report: &mut Report<'_>) {
    let mut faults = check_keys(config, connector.keys);
    if config.is_object() {
        for fault in (connector.check)(config) {
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
    }
    for fault in faults {
        report_fault(connector.name, written, kind_mark, &fault, report);
    }
}

fn report_fault(kind: &str, written: Option<&Yaml>, kind_mark: Mark, fault: &ConfigFault, report: &mut Report<'_>) {
    let unknown_key = fault.message.starts_with("unknown key");
    let mark = match (written, fault.path.split_first()) {
        (Some(config), Some((key, []))) if unknown_key => {
            config.entries().unwrap_or_default().iter().find(|entry| entry.key == *key).map(|entry| entry.mark)
        }
        (Some(config), Some(_)) => config.mark_at(&fault.path),
        (Some(config), None) if config.entries().is_none() && !config.is_null() => Some(config.mark),
        _ => None,
    };
    let message = format!("`{kind}`: {}", fault.message);
    report.error_with_help(mark.unwrap_or(kind_mark), message, fault.help.clone());
}
