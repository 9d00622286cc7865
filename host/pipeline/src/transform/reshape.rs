//! Transforms that change which rows there are and where: Reshuffle, MatchAll.

use crate::fields::{Fields, text};
use crate::graph::{EmptyMatch, Transform};
use crate::report::{Report, suggestion};

pub(super) fn reshuffle(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Transform> {
    let buckets = fields.count("num_buckets", 1, report);
    Some(Transform::Reshuffle { buckets })
}

const TREATMENTS: [(&str, EmptyMatch); 3] =
    [("ALLOW", EmptyMatch::Allow), ("DISALLOW", EmptyMatch::Disallow), ("ALLOW_IF_WILDCARD", EmptyMatch::AllowIfWildcard)];

pub(super) fn match_all(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Transform> {
    let file_pattern = fields.text("file_pattern", report).map(str::to_string);
    let given = fields.get("empty_match_treatment");
    let named = given.and_then(|entry| Some((text(&entry.value, "`empty_match_treatment`", report)?, entry.value.mark)));
    let empty = named.map(|(name, mark)| match TREATMENTS.iter().find(|(known, _)| *known == name) {
        Some((_, treatment)) => *treatment,
        None => {
            let help = suggestion(name, TREATMENTS.map(|(name, _)| name));
            report.error_with_help(mark, format!("`{name}` is no treatment of patterns that match nothing"), help);
            EmptyMatch::default()
        }
    });
    Some(Transform::MatchAll { file_pattern, empty: empty.unwrap_or_default() })
}
