//! Random queries and joins over two inputs, window by window.
//!
//! DuckDB is asked once a window, with the rows of that window as its tables. A query without GROUP BY gives no row for a window
//! that has none (DuckDB: a row of nulls and zeros), so for DuckDB such a query has `HAVING COUNT(*) > 0`.

use crate::numbers::Numbers;
use crate::oracle::{Oracle, Table};
use crate::{Tally, rows};
use pelton_pipeline::{Settings, UncheckedPlugins};
use pelton_runtime::RunOptions;
use pelton_tests::pelton::shards;
use serde_json::{Value as Json, json};
use std::path::Path;

/// Windows are so many seconds long; rows lie in the first seconds of the epoch.
const SIZE: i64 = 10;
const SECONDS: usize = 40;
const KEYS: &[Option<i64>] = &[Some(1), Some(2), Some(3), Some(4), None];
const TEXTS: &[Option<&str>] = &[Some("a"), Some("b"), Some("ab"), Some(""), None];

/// Ours and DuckDB's: a transform in YAML, and a query.
struct Case {
    transform: String,
    query: String,
    is_join: bool,
}

/// Values of a row; of a result, after the window's first second.
type Row = Vec<Json>;

/// Columns of an input besides its time, and rows with the second that they are of.
struct Input {
    columns: &'static [&'static str],
    rows: Vec<(i64, Row)>,
}

/// Fixed windows, or sliding ones, where a row is in several.
#[derive(Clone, Copy)]
struct Windows {
    period: i64,
}

impl Windows {
    fn yaml(self) -> String {
        match self.period == SIZE {
            true => format!("{{type: fixed, size: {SIZE}}}"),
            false => format!("{{type: sliding, size: {SIZE}, period: {}}}", self.period),
        }
    }

    /// The first seconds of all windows that hold a row.
    fn starts(self) -> impl Iterator<Item = i64> {
        (0..).map(move |number| self.period - SIZE + number * self.period).take_while(|start| *start < SECONDS as i64)
    }
}

pub fn run(oracle: &mut Oracle, count: usize, seed: u64, tally: &mut Tally, verbose: bool) {
    let mut numbers = Numbers::new(seed ^ 0x51);
    let io = tokio::runtime::Runtime::new().unwrap();
    for _ in 0..count {
        let a = input(&mut numbers, &["k BIGINT", "v BIGINT", "s VARCHAR", "f DOUBLE"], 60);
        let b = input(&mut numbers, &["k BIGINT", "w BIGINT", "s VARCHAR"], 40);
        let windows = Windows { period: *numbers.pick(&[SIZE, SIZE, 5]) };
        let case = if numbers.once_in(3) { join(&mut numbers) } else { query(&mut numbers) };
        if verbose {
            println!("{}", case.transform);
        }
        *(if case.is_join { &mut tally.joins } else { &mut tally.queries }) += 1;
        let theirs = match asked(oracle, &case.query, windows, &a, &b) {
            Ok(theirs) => theirs,
            Err(error) => {
                tally.wrong(&format!("DuckDB refuses {}\n  {error}", case.query));
                continue;
            }
        };
        match ours(&case.transform, windows, &a, &b, &theirs.0, &io) {
            Ok(ours) => match difference(&ours, &theirs.1) {
                None => tally.equal += 1,
                Some(difference) => tally.wrong(&format!("{}\n  in DuckDB: {}\n  {difference}", case.transform, case.query)),
            },
            Err(error) => tally.wrong(&format!("{}\n  {error}", case.transform)),
        }
    }
}

fn input(numbers: &mut Numbers, columns: &'static [&'static str], count: usize) -> Input {
    let mut row = || {
        let mut values = vec![json!(numbers.pick(KEYS)), json!(numbers.below(9)), json!(numbers.pick(TEXTS))];
        if columns.len() > 3 {
            values.push(json!((numbers.below(40) as f64 - 20.0) / 4.0));
        }
        (numbers.below(SECONDS) as i64, values)
    };
    Input { columns, rows: (0..count).map(|_| row()).collect() }
}

/// A condition on the columns of `a`, with `alias.` before them.
fn condition(numbers: &mut Numbers, alias: &str) -> String {
    let forms = [
        "@v > 3",
        "@k IS NOT NULL",
        "@s LIKE 'a%'",
        "@v % 2 = 0",
        "@f < 1.5 OR @s = 'b'",
        "@k IN (1, 2)",
        "NOT (@v BETWEEN 2 AND 5)",
        "COALESCE(@k, 0) <> 3",
    ];
    numbers.pick(&forms).replace('@', alias)
}

fn query(numbers: &mut Numbers) -> Case {
    let filter = condition(numbers, "");
    let filter = if numbers.once_in(2) { format!(" WHERE {filter}") } else { String::new() };
    let inner = condition(numbers, "");
    let of_a = condition(numbers, "a.");
    let kind = *numbers.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "INNER JOIN", "LEFT OUTER JOIN"]);
    let having = *numbers.pick(&["", " HAVING COUNT(*) > 1", " HAVING SUM(v) > 5 AND MIN(s) IS NOT NULL"]);
    let aggregates = "COUNT(*) AS c, SUM(v) AS sv, MIN(s) AS ms, MAX(f) AS mf, AVG(v) AS av, COUNT(k) AS ck, COUNT(*) FILTER (WHERE v > 4) AS big, SUM(f) FILTER (WHERE s = 'a') AS fa, COUNT(DISTINCT s) AS ds, BOOL_AND(v > 2) AS every, BOOL_OR(f > 4) AS some, STDDEV(v) AS dev, VAR_POP(f) AS vp";
    let made = match numbers.below(16) {
        0 => format!("SELECT k, v + 1 AS x, UPPER(s) || '!' AS y FROM a{filter}"),
        1 => format!("SELECT * FROM a{filter}"),
        2 => format!("SELECT k, {aggregates} FROM a{filter} GROUP BY k{having}"),
        3 => format!("SELECT v % 3 AS g, COUNT(*) AS c, MAX(v) - MIN(v) AS span FROM a{filter} GROUP BY v % 3"),
        4 => format!("SELECT s, v % 2 AS odd, COUNT(*) AS c FROM a{filter} GROUP BY 1, 2{having}"),
        5 => format!("SELECT DISTINCT k, s FROM a{filter}"),
        6 => format!("SELECT a.k AS ak, b.k AS bk, v, w FROM a {kind} b ON a.k = b.k"),
        7 => format!("SELECT a.k AS ak, v, w, b.s AS bs FROM a {kind} b ON a.k = b.k AND a.s = b.s"),
        8 => format!("SELECT a.s AS sa, SUM(v * w) AS t, COUNT(*) AS c FROM a JOIN b ON a.k = b.k WHERE {of_a} GROUP BY a.s"),
        9 => "SELECT x.v AS xv, y.w AS yw FROM a x, b AS y WHERE x.k = y.k AND x.v < y.w".to_string(),
        10 => format!("SELECT k, s FROM a{filter} UNION ALL SELECT w, s FROM b"),
        11 => format!("SELECT g, SUM(n) AS total FROM (SELECT s AS g, v * 2 AS n FROM a WHERE {inner}) q GROUP BY g"),
        12 => "WITH big AS (SELECT k, COUNT(*) AS n FROM a GROUP BY k) SELECT b.w, big.n FROM b LEFT JOIN big ON b.k = big.k AND big.n > 1"
            .to_string(),
        13 => {
            let global = "SELECT COUNT(*) AS c, SUM(v) AS sv, AVG(f) AS af FROM a";
            return Case { query: format!("{global}{filter} HAVING COUNT(*) > 0"), ..sql(&format!("{global}{filter}")) };
        }
        14 => {
            "SELECT p.v AS pv, q.v AS qv, r.w AS rw FROM a p JOIN a q ON p.k = q.k LEFT JOIN b r ON q.v = r.w WHERE p.v <= q.v".to_string()
        }
        _ => format!(
            "SELECT CASE WHEN v > 4 THEN 'high' ELSE 'low' END AS level, COUNT(*) AS c FROM a WHERE {inner} GROUP BY CASE WHEN v > 4 THEN 'high' ELSE 'low' END"
        ),
    };
    sql(&made)
}

fn sql(query: &str) -> Case {
    let quoted = query.replace('"', "\\\"");
    Case {
        transform: format!("{{type: Sql, name: Out, input: {{a: A, b: B}}, config: {{query: \"{quoted}\"}}}}"),
        query: query.to_string(),
        is_join: false,
    }
}

/// A Join, and the query that Beam makes of its config.
fn join(numbers: &mut Numbers) -> Case {
    let all: [&[(&str, &str)]; 4] = [&[("k", "k")], &[("k", "k"), ("s", "s")], &[("v", "w")], &[("v", "w"), ("k", "k")]];
    let equalities = *numbers.pick(&all);
    let on = equalities.iter().map(|(a, b)| format!("a.{a} = b.{b}")).collect::<Vec<_>>().join(" AND ");
    let listed = equalities.iter().map(|(a, b)| format!("{{a: {a}, b: {b}}}")).collect::<Vec<_>>().join(", ");
    let three = numbers.once_in(3);
    let (kind, first) = *numbers.pick(&[("inner", "INNER"), ("left", "LEFT"), ("right", "RIGHT"), ("outer", "FULL")]);
    if !three {
        let transform = format!(
            "{{type: Join, name: Out, input: {{a: A, b: B}}, config: {{type: {kind}, equalities: [{listed}], fields: {{a: [k, v], b: {{bk: k, w: w}}}}}}}}"
        );
        return Case { transform, query: format!("SELECT a.k AS k, v, b.k AS bk, w FROM a {first} JOIN b ON {on}"), is_join: true };
    }
    // The third input is `a` again, joined to what the second gave.
    let (outer, kinds) =
        *numbers.pick(&[("[a]", ["LEFT", "INNER"]), ("[b]", ["RIGHT", "LEFT"]), ("[c]", ["INNER", "RIGHT"]), ("[a, b]", ["FULL", "LEFT"])]);
    let transform = format!(
        "{{type: Join, name: Out, input: {{a: A, b: B, c: A}}, config: {{type: {{outer: {outer}}}, equalities: [{listed}, {{b: w, c: v}}], fields: {{a: {{ak: k, av: v}}, b: {{bs: s}}, c: [v, f]}}}}}}"
    );
    let query = format!(
        "SELECT a.k AS ak, a.v AS av, b.s AS bs, c.v AS v, c.f AS f FROM a {} JOIN b ON {on} {} JOIN a AS c ON b.w = c.v",
        kinds[0], kinds[1]
    );
    Case { transform, query, is_join: true }
}

/// What DuckDB says: names of columns, and the rows of all windows, each with its window before it.
fn asked(oracle: &mut Oracle, query: &str, windows: Windows, a: &Input, b: &Input) -> Result<(Vec<String>, Vec<Row>), String> {
    let (mut names, mut all) = (Vec::new(), Vec::new());
    for window in windows.starts() {
        let table = |input: &Input| Table {
            columns: input.columns.iter().map(|column| column.to_string()).collect(),
            rows: input.rows.iter().filter(|(second, _)| (window..window + SIZE).contains(second)).map(|(_, row)| row.clone()).collect(),
        };
        let answer = oracle.query(&[("a", table(a)), ("b", table(b))], query)?;
        names = answer.0;
        all.extend(answer.1.into_iter().map(|row| [vec![json!(window)], row].concat()));
    }
    Ok((names, all))
}

fn ours(
    transform: &str,
    windows: Windows,
    a: &Input,
    b: &Input,
    names: &[String],
    io: &tokio::runtime::Runtime,
) -> Result<Vec<Row>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(&path.join("a.jsonl"), a);
    write(&path.join("b.jsonl"), b);
    let (at, windowing) = (path.display(), windows.yaml());
    let text = format!(
        "pipeline:
  transforms:
    - {{type: ReadFromJson, name: ReadA, config: {{path: {at}/a.jsonl}}}}
    - {{type: ReadFromJson, name: ReadB, config: {{path: {at}/b.jsonl}}}}
    - {{type: AssignTimestamps, name: TimeA, input: ReadA, config: {{timestamp: at}}}}
    - {{type: AssignTimestamps, name: TimeB, input: ReadB, config: {{timestamp: at}}}}
    - {{type: MapToFields, name: OnlyA, input: TimeA, config: {{fields: {{k: k, v: v, s: s, f: f}}}}}}
    - {{type: MapToFields, name: OnlyB, input: TimeB, config: {{fields: {{k: k, w: w, s: s}}}}}}
    - {{type: WindowInto, name: A, input: OnlyA, windowing: {windowing}}}
    - {{type: WindowInto, name: B, input: OnlyB, windowing: {windowing}}}
    - {transform}
    - {{type: ExtractWindowingInfo, name: Window, input: Out, config: {{fields: {{the_window: window_start}}}}}}
    - {{type: WriteToJson, input: Window, config: {{path: {at}/out}}}}
"
    );
    let settings = Settings { file: path.join("case.yaml"), text, ..Settings::default() };
    let graph = pelton_pipeline::load(&settings, &pelton_connect::catalog(), &UncheckedPlugins)
        .map_err(|findings| pelton_pipeline::render(&findings))?;
    let options = RunOptions { file: "case.yaml".into(), base_dir: path.into(), parallelism: 2, io: io.handle().clone() };
    io.block_on(async { pelton_runtime::prepare(graph, &[], options).await?.run().await }).map_err(|failure| failure.to_string())?;
    let mut rows = Vec::new();
    for shard in shards(&path.join("out")) {
        for line in shard.lines() {
            let row: Json = serde_json::from_str(line).unwrap();
            let start = row["the_window"].as_str().and_then(|at| pelton_core::Instant::parse_rfc3339(at).ok()).unwrap();
            let values = names.iter().map(|name| row.get(name).cloned().unwrap_or(json!({"o": "no such column"})));
            rows.push(std::iter::once(json!(start.micros() / 1_000_000)).chain(values).collect());
        }
    }
    Ok(rows)
}

fn write(path: &Path, input: &Input) {
    let names: Vec<&str> = input.columns.iter().map(|column| column.split(' ').next().unwrap()).collect();
    let lines = input.rows.iter().map(|(second, row)| {
        let mut object: serde_json::Map<String, Json> = names.iter().map(|name| name.to_string()).zip(row.iter().cloned()).collect();
        object.insert("at".into(), json!(second));
        format!("{}\n", Json::Object(object))
    });
    std::fs::write(path, lines.collect::<String>()).unwrap();
}

/// What two multisets of rows do not have in common.
fn difference(ours: &[Row], theirs: &[Row]) -> Option<String> {
    let mut left: Vec<&Row> = theirs.iter().collect();
    let mut more = Vec::new();
    for row in ours {
        match left.iter().position(|other| row.len() == other.len() && row.iter().zip(*other).all(|(a, b)| rows::same(a, b))) {
            Some(at) => drop(left.swap_remove(at)),
            None => more.push(row),
        }
    }
    if more.is_empty() && left.is_empty() {
        return None;
    }
    let some = |rows: &[&Row]| rows.iter().take(3).map(|row| json!(row).to_string()).collect::<Vec<_>>().join(" ");
    Some(format!("ours has {} rows more: {}\n  DuckDB's has {} more: {}", more.len(), some(&more), left.len(), some(&left)))
}
