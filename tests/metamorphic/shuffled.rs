//! Nothing can be late in bounded input without a watermark of its own, so order and batches say nothing.

use crate::rows::{Numbers, multiset, pipeline, rows, run, same, write};
use serde_json::Value;
use std::path::Path;

/// Splits rows at random places; a part may be empty or one row.
fn parts<'a>(numbers: &mut Numbers, rows: &'a [Value], count: usize) -> Vec<&'a [Value]> {
    let mut cuts: Vec<usize> = (1..count).map(|_| numbers.below(rows.len() as u64 + 1) as usize).collect();
    cuts.extend([0, rows.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| &rows[cut[0]..cut[1]]).collect()
}

/// Runs transforms over the same rows in several orders, files and parallelisms, and compares each output with that of the plainest run.
fn unchanged(seed: u64, transforms: &str, outputs: &[(&str, usize)]) {
    let mut shuffled = rows(seed, 900);
    let mut numbers = Numbers(seed ^ 0x5eed);
    let names: Vec<&str> = outputs.iter().map(|(name, _)| *name).collect();
    let results = |parts: &[&[Value]], parallelism: &str| {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "in", parts);
        let summary = run(&pipeline(folder.path(), transforms, &names, ""), parallelism);
        assert!(summary["transforms"].as_array().unwrap().iter().all(|node| node["late"] == 0), "{summary}");
        names.iter().map(|name| multiset(folder.path(), name)).collect::<Vec<_>>()
    };
    let want = results(&[&shuffled], "1");
    for ((name, least), rows) in outputs.iter().zip(&want) {
        assert!(rows.len() >= *least, "{name} exercises little: {} rows", rows.len());
    }
    for (parallelism, files) in [("1", 1), ("1", 7), ("2", 3), ("4", 1), ("8", 12)] {
        numbers.shuffle(&mut shuffled);
        let got = results(&parts(&mut numbers, &shuffled, files), parallelism);
        for ((name, want), got) in names.iter().zip(&want).zip(&got) {
            let what = format!("{name}, seed {seed}, parallelism {parallelism}, {files} files");
            assert_eq!(got.len(), want.len(), "{what}: rows");
            got.iter().zip(want).for_each(|(got, want)| assert!(same(got, want), "{what}:\n got {got}\nwant {want}"));
        }
    }
}

/// The bounds of each row's window, as columns.
fn shown(name: &str, input: &str) -> String {
    format!(
        "    - {{type: ExtractWindowingInfo, name: {name}, input: {input}, config: {{fields: [window_start, window_end, timestamp]}}}}\n"
    )
}

#[test]
fn rows_one_by_one() {
    let transforms = "
    - {type: Filter, name: Kept, input: T, config: {language: sql, keep: 'v > 10 and k is not null or b'}}
    - {type: MapToFields, name: Mapped, input: T, config: {language: sql, fields: {id: id, up: 'upper(k)', twice: 'coalesce(v, 0) * 2', ratio: 'f / (v * v + 1)', size: \"case when v is null then 'none' when v < 0 then 'low' else 'high' end\"}}}
    - {type: Partition, name: Parts, input: Mapped, config: {language: sql, by: size, outputs: [low, high], unknown_output: other}}
    - {type: Flatten, name: Whole, input: [Parts.low, Parts.other, Kept]}
    - {type: Explode, name: Exploded, input: T, config: {fields: l}}
";
    let all = transforms.to_string() + &shown("KeptShown", "Kept") + &shown("ExplodedShown", "Exploded");
    unchanged(1, &all, &[("KeptShown", 400), ("Whole", 700), ("ExplodedShown", 1_000)]);
}

const EXACT: &str = "n: count, total: {value: v, fn: sum}, low: {value: v, fn: min}, high: {value: v, fn: max}, some: {value: b, fn: any}, every: {value: b, fn: all}, kinds: {value: k, fn: count_distinct}";

#[test]
fn aggregates_of_windows() {
    let combine = |name: &str, windowing: &str, by: &str, columns: &str| {
        format!(
            "    - {{type: Combine, name: {name}C, input: T, windowing: {windowing}, config: {{group_by: {by}, combine: {{{columns}}}}}}}\n"
        ) + &shown(name, &format!("{name}C"))
    };
    let floats = "mean: {value: f, fn: mean}, sum: {value: f, fn: sum}, lowest: {value: f, fn: min}";
    let lists = "group: {value: id, fn: group}, dearest: {value: v, fn: {type: top, config: {n: 3}}}, oldest: {value: f, fn: first}, newest: {value: id, fn: last}";
    let all = [
        combine("Fixed", "{type: fixed, size: 10s}", "[k]", EXACT),
        combine("Sliding", "{type: sliding, size: 20s, period: 5s}", "[k, b]", floats),
        combine("Sessions", "{type: sessions, gap: 3s}", "k", lists),
        combine("Global", "{type: global}", "[]", &format!("{EXACT}, {floats}, {lists}")),
        combine("Values", "{type: global}", "[v]", lists),
    ];
    unchanged(2, &all.concat(), &[("Fixed", 100), ("Sliding", 300), ("Sessions", 50), ("Global", 1), ("Values", 300)]);
}

/// Half of all rows have one key. With and without `fanout` the same comes out, and with several workers the rows were dealt out.
#[test]
fn keys_in_two_stages() {
    let mut hot = rows(5, 2_000);
    hot.iter_mut().step_by(2).for_each(|row| row["k"] = "hot".into());
    let columns = format!(
        "{EXACT}, mean: {{value: f, fn: mean}}, first: {{value: id, fn: first}}, dearest: {{value: v, fn: {{type: top, config: {{n: 3}}}}}}, spread: {{value: f, fn: stddev}}"
    );
    let of = |name: &str, windowing: &str, by: &str, fanout: &str| {
        format!(
            "    - {{type: Combine, name: {name}C, input: T, windowing: {windowing}, config: {{group_by: {by}, combine: {{{columns}}}{fanout}}}}}\n"
        ) + &shown(name, &format!("{name}C"))
    };
    let kinds =
        [("Fixed", "{type: fixed, size: 10s}", "k"), ("Global", "{type: global}", "[k, b]"), ("Whole", "{type: fixed, size: 7s}", "[]")];
    for fanout in [2, 3, 64] {
        let both = kinds.map(|(name, windowing, by)| {
            of(name, windowing, by, "") + &of(&format!("{name}Spread"), windowing, by, &format!(", fanout: {fanout}"))
        });
        let names = kinds.map(|(name, ..)| name);
        let spread = names.map(|name| format!("{name}Spread"));
        let outputs: Vec<&str> = names.iter().copied().chain(spread.iter().map(String::as_str)).collect();
        for parallelism in ["1", "2", "4"] {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), "in", &hot.chunks(90).collect::<Vec<_>>());
            let summary = run(&pipeline(folder.path(), &both.concat(), &outputs, ""), parallelism);
            let dealt = summary["transforms"].as_array().unwrap().iter().filter(|node| node["name"].as_str().unwrap().ends_with("/fanout"));
            // Lives that crash have a parallelism of their own.
            if std::env::var_os("PELTON_TEST_CRASHES").is_none() {
                assert_eq!(dealt.filter(|node| node["rows_in"] == 2_000).count(), if parallelism == "1" { 0 } else { 3 }, "{summary}");
            }
            for (direct, spread) in names.iter().zip(&spread) {
                let (want, got) = (multiset(folder.path(), direct), multiset(folder.path(), spread));
                assert!(!want.is_empty() && got.len() == want.len(), "{direct}: {} and {} rows", want.len(), got.len());
                for (got, want) in got.iter().zip(&want) {
                    assert!(same(got, want), "{direct}, fanout {fanout}, parallelism {parallelism}:\n got {got}\nwant {want}");
                }
            }
        }
    }
}

#[test]
fn groupings_one_after_the_other() {
    let transforms = format!(
        "
    - {{type: Explode, name: Exploded, input: T, config: {{fields: l}}}}
    - {{type: Combine, name: Inner, input: Exploded, windowing: {{type: fixed, size: 4s}}, config: {{group_by: [k, l], combine: {{n: count, mean: {{value: f, fn: mean}}}}}}}}
    - {{type: Combine, name: OuterC, input: Inner, windowing: {{type: fixed, size: 30s}}, config: {{group_by: l, combine: {{n: {{value: n, fn: sum}}, cells: count, mean: {{value: mean, fn: mean}}}}}}}}
    - {{type: RollUp, name: Levels, input: T, config: {{group_by: k, combine: {{{EXACT}, mean: {{value: f, fn: mean}}}}, levels: [5s, 20s, 1m]}}}}
{}{}{}{}",
        shown("Outer", "OuterC"),
        shown("Fine", "Levels.5s"),
        shown("Middle", "Levels.20s"),
        shown("Coarse", "Levels.1m")
    );
    unchanged(3, &transforms, &[("Outer", 20), ("Fine", 150), ("Middle", 40), ("Coarse", 15)]);
}

#[test]
fn joins_of_branches() {
    let transforms = "
    - {type: Filter, name: A, input: T, config: {language: sql, keep: 'id % 2 = 0'}}
    - {type: Filter, name: B, input: T, config: {language: sql, keep: 'id % 3 = 0'}}
    - {type: Join, name: OuterJ, input: {a: A, b: B}, windowing: {type: fixed, size: 8s}, config: {type: outer, equalities: k, fields: {a: [k, id], b: {other: id, f: f}}}}
    - {type: Combine, name: PairsC, input: OuterJ, config: {group_by: k, combine: {n: count, sum: {value: f, fn: sum}, ids: {value: other, fn: count_distinct}}}}
    - {type: Join, name: InSessions, input: {a: A, b: B}, windowing: {type: sessions, gap: 2s}, config: {type: left, equalities: [{a: k, b: k}, {a: v, b: v}], fields: {a: [k, v, id], b: {other: id}}}}
    - {type: IntervalJoin, name: Near, input: {left: A, right: B}, config: {equalities: k, before: 1s, after: 2s, type: outer, fields: {left: [k, id], right: {other: id}}}}
    - {type: AsOfJoin, name: AsOf, input: {left: A, right: B}, config: {equalities: k, tolerance: 9s, fields: {left: [k, id], right: {other: id}}}}
";
    let all = transforms.to_string() + &shown("Pairs", "PairsC");
    unchanged(4, &all, &[("OuterJ", 700), ("Pairs", 80), ("InSessions", 400), ("Near", 500), ("AsOf", 400)]);
}

/// The comparison itself sees a row that differs, and only then.
#[test]
fn the_comparison_sees_a_difference() {
    let row = |sum: f64, n: i64| serde_json::json!({"sum": sum, "n": n});
    assert!(same(&row(1.0, 2), &row(1.0 + 1e-12, 2)));
    assert!(!same(&row(1.0, 2), &row(1.0 + 1e-6, 2)));
    assert!(!same(&row(1.0, 2), &row(1.0, 3)));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(Path::new(folder.path()).join("x-0-of-1"), "{\"group\":[2,1]}\n").unwrap();
    assert_eq!(multiset(folder.path(), "x"), [serde_json::json!({"group": [1, 2]})]);
}
