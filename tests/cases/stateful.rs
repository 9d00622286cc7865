//! Stateful plugins against loops over the same rows: deduplication, sessions, a rate limit, lists and maps by window. The rows of a key keep
//! their order; how keys are mixed, cut into files and spread over tasks must not matter.

use super::{Value, balanced, json_rows, root, sorted, summary};
use serde_json::json;
use std::collections::BTreeMap;

/// A stream of numbers that is the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Event time in seconds and number, in order, by user.
type Users = BTreeMap<String, Vec<(i64, i64)>>;

fn users(numbers: &mut Numbers, users: u64, rows: u64, number: impl Fn(&mut Numbers) -> i64) -> Users {
    let mut all = Users::new();
    for user in 0..users {
        let mut time = numbers.below(50) as i64;
        let times = (0..numbers.below(rows) + 1).map(|_| {
            time += [0, 1, 3, 10, 40][numbers.below(5) as usize];
            time
        });
        let times: Vec<i64> = times.collect();
        all.insert(format!("user {user}"), times.into_iter().map(|time| (time, number(numbers))).collect());
    }
    all
}

/// Writes the rows to files, users mixed at random, each user in one file.
fn write(folder: &std::path::Path, users: &Users, files: usize, numbers: &mut Numbers) {
    for file in 0..files {
        let own = users.iter().enumerate().filter(|(number, _)| number % files == file);
        let mut users: Vec<_> = own.map(|(_, (user, rows))| (user, rows.iter())).collect();
        let mut text = String::new();
        while !users.is_empty() {
            let pick = numbers.below(users.len() as u64) as usize;
            match users[pick].1.next() {
                Some((time, number)) => text += &format!("{}\n", json!({"user": users[pick].0, "t": time, "number": number})),
                None => drop(users.swap_remove(pick)),
            }
        }
        std::fs::write(folder.join(format!("in-{file}.json")), text).unwrap();
    }
}

/// Runs one stateful transform over the rows in several ways, and gives what its outputs are each time.
fn check(users: &Users, transform: &str, config: &str, windowing: &str, outputs: &[&str], want: &BTreeMap<&str, Vec<Value>>) {
    let component = root().join("tests/.cache/components/stateful.wasm");
    for (parallelism, files, seed) in [("1", 1, 1), ("1", 3, 2), ("2", 2, 3), ("4", 5, 4), ("8", 8, 5)] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        write(folder.path(), users, files, &mut Numbers(seed));
        let sinks: String = outputs
            .iter()
            .map(|output| {
                let input = if output.is_empty() { "Keep".to_string() } else { format!("Keep.{output}") };
                format!(
                    "    - {{type: WriteToJson, name: Write{output}, input: {input}, config: {{path: '{}'}}}}\n",
                    at(&format!("out{output}"))
                )
            })
            .collect();
        let pipeline = format!(
            "pipeline:
  transforms:
    - {{type: ReadFromJson, config: {{path: '{}'}}}}
    - {{type: AssignTimestamps, input: ReadFromJson, config: {{timestamp: t}}}}
    - {{type: Keep, input: AssignTimestamps{windowing}, config: {{key: [user]{config}}}}}
{sinks}providers:
  - {{type: wasm, config: {{plugin: '{}'}}, transforms: {{Keep: {transform}}}}}
",
            at("in-*.json"),
            component.display()
        );
        let file = folder.path().join("pipeline.yaml");
        std::fs::write(&file, &pipeline).unwrap();
        balanced(&summary(&[file.to_str().unwrap(), "--parallelism", parallelism]));
        for output in outputs {
            let got = json_rows(&folder.path().join(format!("out{output}")));
            // Columns stand in any order.
            let text = |row: &Value| json!(row.as_object().unwrap().iter().collect::<BTreeMap<_, _>>()).to_string();
            let (got, want) = (sorted(got.iter().map(text)), sorted(want[output].iter().map(text)));
            let differ = got.iter().zip(&want).find(|(got, want)| got != want);
            assert!(
                got == want,
                "{transform}, output `{output}`, parallelism {parallelism}, {files} files: {} for {} rows, {differ:?}",
                got.len(),
                want.len()
            );
        }
    }
}

fn time(seconds: i64) -> String {
    format!("1970-01-01T00:{:02}:{:02}Z", seconds / 60, seconds % 60)
}

#[test]
fn a_deduplicating_transform_keeps_what_a_loop_keeps() {
    let users = users(&mut Numbers(11), 60, 60, |numbers| numbers.below(100) as i64);
    let mut want = vec![];
    for (user, rows) in &users {
        let mut kept: Option<i64> = None;
        for (at, number) in rows {
            if kept.is_none_or(|kept| kept + 60 <= *at) {
                kept = Some(*at);
                want.push(json!({"number": number, "t": at, "user": user}));
            }
        }
    }
    assert!(want.len() > 100);
    check(&users, "dedup", "", "", &[""], &BTreeMap::from([("", want)]));
}

#[test]
fn sessions_by_a_gap_timer_are_those_of_a_loop() {
    let users = users(&mut Numbers(12), 60, 60, |numbers| numbers.below(100) as i64 - 20);
    let mut want = vec![];
    for (user, rows) in &users {
        for session in rows.chunk_by(|(a, _), (b, _)| b - a < 30) {
            let sum: i64 = session.iter().map(|(_, number)| number).sum();
            let largest = session.iter().map(|(_, number)| number).max();
            let (first, last) = (time(session[0].0), time(session[session.len() - 1].0));
            want.push(json!({"user": user, "first": first, "last": last, "rows": session.len(), "sum": sum, "largest": largest}));
        }
    }
    assert!(want.len() > 150);
    check(&users, "sessions", "", "", &[""], &BTreeMap::from([("", want)]));
}

#[test]
fn a_rate_limit_passes_what_a_loop_passes() {
    let users = users(&mut Numbers(13), 40, 80, |numbers| numbers.below(100) as i64);
    let mut want = BTreeMap::from([("", vec![]), ("limited", vec![])]);
    for (user, rows) in &users {
        let (mut until, mut left) = (i64::MIN, 0);
        for (at, number) in rows {
            if *at >= until {
                (until, left) = (at + 20, 3);
            }
            let output = if left > 0 { "" } else { "limited" };
            left = (left - 1).max(0);
            want.get_mut(output).unwrap().push(json!({"number": number, "t": at, "user": user}));
        }
    }
    assert!(want.values().all(|rows| rows.len() > 200), "{:?}", want.values().map(Vec::len).collect::<Vec<_>>());
    check(&users, "rate-limit", ", rows: 3, seconds: 20", "", &["", "limited"], &want);
}

#[test]
fn lists_and_maps_per_window_hold_what_a_loop_holds() {
    let users = users(&mut Numbers(14), 50, 80, |numbers| [0, -1, -2, 1, 1, 2, 3, 4, 5][numbers.below(9) as usize]);
    let mut want = vec![];
    for (user, rows) in &users {
        for window in rows.chunk_by(|(a, _), (b, _)| a / 60 == b / 60) {
            let (mut order, mut counts) = (vec![], BTreeMap::<i64, i64>::new());
            for (_, number) in window {
                match number {
                    0 => {
                        order.clear();
                        counts.clear();
                    }
                    number if *number < 0 => drop(counts.remove(&-number)),
                    number => {
                        order.push(*number);
                        *counts.entry(*number).or_default() += 1;
                    }
                }
            }
            want.push(json!({"user": user, "order": order, "counts": counts, "start": time(window[0].0 / 60 * 60)}));
        }
    }
    assert!(want.len() > 150);
    check(&users, "collect", "", ", windowing: {type: fixed, size: 60}", &[""], &BTreeMap::from([("", want)]));
}
