//! Transforms that change which rows there are and where: Reshuffle, MatchAll.

use crate::fields::{Fields, text};
use crate::graph::{EmptyMatch, Transform};
use crate::report::{Report, suggestion};
use crate::yaml::Content;

pub(super) fn reshuffle(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Transform> {
    let buckets = fields.get("num_buckets").and_then(|entry| {
        let number = match &entry.value.content {
            Content::Number(number) => number.as_u64().filter(|number| *number > 0).and_then(|number| usize::try_from(number).ok()),
            _ => None,
        };
        if number.is_none() {
            report.error(entry.value.mark, "`num_buckets` must be a whole number of at least 1");
        }
        number
    });
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
