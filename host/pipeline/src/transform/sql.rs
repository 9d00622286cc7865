//! Sql. Its grammar and the names of its inputs are checked here; it is planned when the columns of the inputs are known.

use super::{Arity, Lowered};
use crate::expression::inside;
use crate::fields::{Fields, text};
use crate::graph::{Expression, Language, Transform};
use crate::report::Report;
use crate::syntax::Spec;

/// What the only input of a query is called, as in Beam.
const ONLY: &str = "PCOLLECTION";

pub(super) fn sql(spec: &Spec<'_>, fields: &mut Fields<'_>, report: &mut Report<'_>) -> Lowered {
    let inputs: Vec<String> = match spec.inputs.as_deref() {
        // In a chain the one before it.
        None | Some([]) => vec![ONLY.to_string()],
        Some([port]) if port.tag.is_empty() || port.tag == "input" => vec![ONLY.to_string()],
        Some(ports) => ports.iter().map(|port| port.tag.clone()).collect(),
    };
    let transform = fields.require("query", report).and_then(|entry| {
        let (query, mark) = (text(&entry.value, "`query`", report)?, entry.value.mark);
        let mut names = inputs.clone();
        names.extend((inputs.len() == 1).then(|| ONLY.to_string()));
        if let Err(error) = pelton_expr::check_query(query, &names) {
            let mark = error.offset.and_then(|offset| inside(query, offset, mark, report)).unwrap_or(mark);
            report.error_with_help(mark, error.message, error.help);
            return None;
        }
        let query = Expression { language: Language::Sql, text: query.to_string(), place: report.place(mark), output_type: None };
        Some(Transform::Sql { inputs: inputs.clone(), query })
    });
    Lowered { arity: Some(Arity::Named), ..Lowered::plain(transform) }
}
