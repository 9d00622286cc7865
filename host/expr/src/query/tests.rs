//! Queries and the steps that they become, written as one line.

use super::*;
use arrow::datatypes::{DataType, Field, Schema};
use std::sync::Arc;

fn inputs() -> Vec<(String, SchemaRef)> {
    let schema = |fields: &[(&str, DataType)]| -> SchemaRef {
        Arc::new(Schema::new(fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect::<Vec<_>>()))
    };
    vec![
        ("a".into(), schema(&[("k", DataType::Int64), ("v", DataType::Float64), ("S", DataType::Utf8)])),
        ("b".into(), schema(&[("k", DataType::Int32), ("w", DataType::Utf8)])),
    ]
}

fn shown(query: &Query) -> String {
    let named = |columns: &[Named]| columns.iter().map(|column| format!("{}={}", column.name, column.text)).collect::<Vec<_>>().join(", ");
    match query {
        Query::Input(number) => inputs()[*number].0.clone(),
        Query::Project { input, columns } => format!("{} → [{}]", shown(input), named(columns)),
        Query::Filter { input, keep } => format!("{} → keep {keep}", shown(input)),
        Query::Aggregate { input, group_by, aggregates } => {
            let aggregates = aggregates
                .iter()
                .map(|aggregate| format!("{}={:?}({})", aggregate.name, aggregate.function, aggregate.value.as_deref().unwrap_or("*")));
            format!("{} → by [{}] {}", shown(input), named(group_by), aggregates.collect::<Vec<_>>().join(", "))
        }
        Query::Join(join) => {
            let on = join.equalities.iter().map(|(a, b)| format!("{a} = {b}")).collect::<Vec<_>>().join(", ");
            let columns = [&join.columns[0], &join.columns[1]].map(|columns| named(columns)).join("; ");
            format!("({} {:?} {} on {on} [{columns}])", shown(&join.sides[0]), join.kept, shown(&join.sides[1]))
        }
        Query::Union(all) => format!("({})", all.iter().map(shown).collect::<Vec<_>>().join(" + ")),
    }
}

fn check(text: &str, expected: &str) {
    let query = plan_query(text, &inputs()).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    assert_eq!(shown(&query), expected, "{text}");
}

#[test]
fn queries_become_steps() {
    check("SELECT k, v + 1 FROM a", r#"a → [k="k", EXPR$1=("v" + 1)]"#);
    check("SELECT s FROM a WHERE k > 1", r#"a → keep ("k" > 1) → [S="S"]"#);
    check(
        "SELECT k, SUM(v) AS t FROM a GROUP BY k HAVING COUNT(*) > 2",
        r#"a → by [k="k"] $aggregate0=Sum("v"), $aggregate1=Rows(*) → keep ("$aggregate1" > 2) → [k="k", t="$aggregate0"]"#,
    );
    check("SELECT COUNT(*) FROM a", r#"a → by [] $aggregate0=Rows(*) → [EXPR$0="$aggregate0"]"#);
    check("SELECT DISTINCT k FROM a", r#"a → [k="k"] → by [k="k"] "#);
    check("SELECT a.k, w FROM a JOIN b ON a.k = b.k", r#"(a [false, false] b on "k" = "k" [k=k; w=w]) → [k="k", w="w"]"#);
    check(
        "SELECT x.k, y.k FROM a x, a y WHERE x.v = y.v AND x.k < y.k",
        r#"(a [false, false] a on "v" = "v" [k=k; k0=k]) → keep ("k" < "k0") → [k="k", k0="k0"]"#,
    );
    check("SELECT k FROM a UNION ALL SELECT k FROM b", r#"(a → [k="k"] + b → [k="k"] → [k=CAST("k" AS BIGINT)])"#);
}

fn refused(text: &str, at: &str, fragment: &str) {
    let error = plan_query(text, &inputs()).err().unwrap_or_else(|| panic!("{text} is planned"));
    let said = format!("{}; {}", error.message, error.help.clone().unwrap_or_default());
    assert!(said.contains(fragment), "{text}: {said}");
    let found = error.offset.map(|offset| &text[offset..]);
    assert!(found.is_some_and(|rest| rest.starts_with(at)) || at.is_empty() && found.is_none(), "{text}: at {found:?}");
}

#[test]
fn what_a_stream_cannot_give_is_refused_with_its_place() {
    refused("SELECT k FROM a ORDER BY v", "v", "rows of a stream have no order");
    refused("SELECT k FROM a LIMIT 3", "3", "LIMIT");
    refused("SELECT k FROM c", "c", "there is no input `c`");
    refused("SELECT nothing FROM a", "nothing", "nothing");
    refused("SELECT k FROM a WHERE k IN (SELECT k FROM b)", "k IN", "subquery");
    refused("SELECT rank() OVER (ORDER BY k) FROM a", "rank", "window function");
    refused("SELECT median(v) FROM a", "median", "there is no aggregate `median`");
    refused("DELETE FROM a", "DELETE", "a query begins with SELECT");
    refused("SELECT now() FROM a", "now", "reads the clock");
    refused("SELECT SUM(S) FROM a", "", "SUM is of numbers, not of Utf8");
    refused("SELECT a.k FROM a FULL JOIN b USING (k)", "", "USING");
    refused("SELECT a.k FROM a LEFT JOIN b ON a.k < b.k", "", "outer join");
    refused("SELECT k FROM a GROUP BY ROLLUP (k)", "", "ROLLUP");
}
