//! Sources and sinks: the config is the connector's own to check; here its faults are put at their places.

use pelton_core::catalog::{ConfigFault, ConnectorSpec, Role, check_keys};

use super::{Arity, Lowered, error_handling, error_handling_of, own_config};
use crate::graph::Transform;
use crate::report::Report;
use crate::syntax::Spec;

pub(super) fn connector_config(spec: &Spec<'_>, connector: &ConnectorSpec, report: &mut Report<'_>) -> Lowered {
    let config = own_config(spec, connector.has_errors);
    let error_output = error_handling_of(spec).filter(|_| connector.has_errors);
    let error_output = error_output.and_then(|given| error_handling(Some(given), &[], report));
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
