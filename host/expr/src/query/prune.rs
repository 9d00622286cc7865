//! Leaves out of joins the columns that nothing above them reads: a join keeps rows in state until their window ends.

use super::{Named, Query};
use crate::expression::{Language, check_syntax};
use std::collections::BTreeSet;

/// `wanted`: the columns of the query that are read; `None`: all.
pub(super) fn prune(query: &mut Query, wanted: Option<BTreeSet<String>>) {
    match query {
        Query::Input(_) => {}
        Query::Project { input, columns } => prune(input, Some(read(columns.iter().map(|column| column.text.as_str())))),
        Query::Filter { input, keep } => {
            let own = read([keep.as_str()].into_iter());
            prune(input, wanted.map(|wanted| wanted.into_iter().chain(own).collect()));
        }
        Query::Aggregate { input, group_by, aggregates } => {
            let keys = group_by.iter().map(|column| column.text.as_str());
            let values = aggregates.iter().filter_map(|aggregate| aggregate.value.as_deref());
            prune(input, Some(read(keys.chain(values))));
        }
        Query::Join(join) => {
            if let Some(wanted) = wanted {
                join.columns.iter_mut().for_each(|columns| columns.retain(|column| wanted.contains(&column.name)));
            }
            let keys: [Vec<&str>; 2] = [
                join.equalities.iter().map(|(left, _)| left.as_str()).collect(),
                join.equalities.iter().map(|(_, right)| right.as_str()).collect(),
            ];
            for (side, keys) in keys.into_iter().enumerate() {
                let passed = join.columns[side].iter().map(|Named { text, .. }| text.clone());
                let wanted = read(keys.into_iter()).into_iter().chain(passed).collect();
                prune(&mut join.sides[side], Some(wanted));
            }
        }
        Query::Union(all) => all.iter_mut().for_each(|query| prune(query, wanted.clone())),
    }
}

/// The columns that texts mention. A text that cannot be read mentions none; it is refused when it is compiled.
fn read<'t>(texts: impl Iterator<Item = &'t str>) -> BTreeSet<String> {
    texts.flat_map(|text| check_syntax(Language::Sql, text).unwrap_or_default()).collect()
}
