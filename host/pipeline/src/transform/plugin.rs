//! Transforms of plugins: the config is checked against what the plugin says of itself.

use super::side_inputs::{self, SIDE_INPUTS};
use super::{Lowered, error_handling, error_handling_of, own_config};
use crate::expression;
use crate::fields::{Fields, texts};
use crate::graph::{Expression, LATE, PluginRole, Transform};
use crate::provider::{Offered, check_config};
use crate::report::Report;
use crate::syntax::Spec;
use crate::yaml::{Entry, Yaml};

/// The key of the config that is Pelton's where a transform keeps state.
const KEY: &str = "key";

pub(super) fn plugin(spec: &Spec<'_>, offered: &Offered, report: &mut Report<'_>) -> Lowered {
    // Only for its complaint about what is no mapping.
    Fields::of(spec.config, spec.kind_mark, format!("the config of `{}`", spec.kind), report);
    let key = key(spec, offered, report);
    // A plugin may have a setting of this name; where it is known to, the setting is its own.
    let sided = side_inputs::entry_of(spec).is_some() && !setting_of(offered, SIDE_INPUTS);
    let own =
        |name: &str| matches!(name, "error_handling" | "output_schema") || (name == KEY && key.is_some()) || (name == SIDE_INPUTS && sided);
    let mut config = own_config(spec, true);
    if let (Some(_), Some(map)) = (&key, config.as_object_mut()) {
        map.shift_remove(KEY);
    }
    if let (true, Some(map)) = (sided, config.as_object_mut()) {
        map.shift_remove(SIDE_INPUTS);
    }
    let mut outputs = offered.known.as_ref().map(|known| known.outputs.clone()).unwrap_or_default();
    let error_output = error_handling(error_handling_of(spec), &outputs, report);
    if let Some(known) = &offered.known {
        check_config(spec.config, spec.kind_mark, &known.config_schema, &own, report);
    }
    let key = key.unwrap_or_default();
    if !key.is_empty() || sided {
        if outputs.iter().any(|output| output == LATE) {
            report.error(spec.kind_mark, format!("the plugin's output `{LATE}` has the name of the output for rows that come too late"));
        }
        outputs.push(LATE.to_string());
    }
    let transform = Transform::Plugin { provider: offered.provider, transform: offered.transform.clone(), config, key };
    let lowered = Lowered { outputs, open: offered.known.is_none(), error_output, ..Lowered::plain(Some(transform)) };
    if sided { lowered.with_sides(spec, report) } else { lowered }
}

/// Whether the plugin has a setting of this name.
fn setting_of(offered: &Offered, name: &str) -> bool {
    offered.known.as_ref().is_some_and(|known| known.config_schema.get("properties").is_some_and(|all| all.get(name).is_some()))
}

fn given<'y>(spec: &Spec<'y>, name: &str) -> Option<&'y Entry> {
    let entries = spec.config.and_then(Yaml::entries).into_iter().flatten();
    entries.into_iter().find(|entry| entry.key == name && !entry.value.is_null())
}

/// The key's columns; `None` where `key`, if it is given, is the plugin's own.
fn key(spec: &Spec<'_>, offered: &Offered, report: &mut Report<'_>) -> Option<Vec<Expression>> {
    let given = given(spec, KEY);
    match offered.known.as_ref().map(|known| known.role) {
        Some(PluginRole::Stateless) => {
            if let (Some(entry), false) = (given, setting_of(offered, KEY)) {
                let help = "only a transform that keeps state has a key".to_string();
                report.error_with_help(entry.mark, format!("`{}` is stateless and has no `key`", spec.kind), Some(help));
                return Some(vec![]);
            }
            return None;
        }
        Some(PluginRole::Combine) => {
            let help = format!("write `combine: {{out: {{value: column, fn: {{type: {}}}}}}}`", spec.kind);
            report.error_with_help(spec.kind_mark, format!("`{}` is an aggregation, to be used in a `Combine`", spec.kind), Some(help));
        }
        Some(PluginRole::Stateful) if given.is_none() => {
            let help = "say which columns its state is kept by, for example `key: [user]`".to_string();
            report.error_with_help(spec.kind_mark, format!("`{}` keeps state and needs a `key`", spec.kind), Some(help));
        }
        Some(PluginRole::Stateful) | None => {}
    }
    let entry = given?;
    let mut columns: Vec<Expression> = Vec::new();
    for (name, mark) in texts(&entry.value, "`key`", report) {
        if columns.iter().any(|column| column.text == name) {
            report.error(mark, format!("`{name}` stands twice in `key`"));
        }
        columns.push(expression::column(name, mark, report));
    }
    if columns.is_empty() {
        report.error(entry.mark, "`key` has no columns");
    }
    Some(columns)
}
