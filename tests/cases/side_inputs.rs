//! Side inputs end to end: windows, defaults, keys and plugins against a search through all rows, whatever the files and tasks; and a plugin
//! with state.

use super::{Value, balanced, json_rows, root, sorted, summary};
use pelton_tests::pelton::run;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % limit) as i64
    }
}

/// Rows of `t` and other columns, in order of time within each file, up to two seconds apart from it.
fn rows(numbers: &mut Numbers, count: i64, last: i64, mut row: impl FnMut(&mut Numbers, i64) -> Value) -> Vec<Value> {
    let mut made = Vec::new();
    for id in 0..count {
        let mut row = row(numbers, id);
        row["t"] = json!(id * last / count + numbers.below(3));
        made.push(row);
    }
    made
}

fn user(numbers: &mut Numbers) -> Value {
    match numbers.below(9) {
        8 => Value::Null,
        number => json!(format!("u{number}")),
    }
}

fn write(folder: &Path, name: &str, files: usize, rows: &[Value]) {
    for file in 0..files {
        let own = rows.iter().enumerate().filter(|(number, _)| number % files == file);
        let text: String = own.map(|(_, row)| format!("{row}\n")).collect();
        std::fs::write(folder.join(format!("{name}-{file}.json")), text).unwrap();
    }
}

fn number(row: &Value, name: &str) -> i64 {
    row[name].as_i64().unwrap()
}

/// The newest of the rows with their time in [start, end).
fn newest(rows: &[Value], start: i64, end: i64, is: impl Fn(&Value) -> bool) -> Option<&Value> {
    let inside = rows.iter().filter(|row| start <= number(row, "t") && number(row, "t") < end && is(row));
    inside.max_by_key(|row| (number(row, "t"), number(row, "order")))
}

struct Case {
    events: Vec<Value>,
    profiles: Vec<Value>,
    rates: Vec<Value>,
    blocked: Vec<Value>,
}

impl Case {
    fn new(seed: u64) -> Case {
        let numbers = &mut Numbers(seed);
        Case {
            events: rows(numbers, 400, 200, |numbers, id| json!({"id": id, "user": user(numbers), "amount": numbers.below(50)})),
            // `order` is the first column that is read, so that it decides between rows of one time.
            profiles: rows(numbers, 60, 190, |numbers, id| json!({"order": id, "user": user(numbers), "segment": numbers.below(4)})),
            rates: rows(numbers, 25, 170, |numbers, id| json!({"order": id, "value": numbers.below(9)})),
            blocked: rows(numbers, 30, 160, |numbers, id| json!({"order": id, "user": user(numbers)})),
        }
    }

    fn write(&self, folder: &Path, files: usize) {
        write(folder, "events", files, &self.events);
        write(folder, "profiles", files.min(2), &self.profiles);
        write(folder, "rates", 1, &self.rates);
        write(folder, "blocked", files.min(3), &self.blocked);
    }

    /// Events in fixed windows of 10 s, profiles in sliding ones of 30 s every 10 s, rates in fixed ones of 20 s, blocked users global.
    fn expected(&self) -> Vec<String> {
        let everyone: Vec<&Value> = self.blocked.iter().map(|row| &row["user"]).filter(|user| !user.is_null()).collect();
        let row = |event: &Value| {
            // The window of the event, and in each side input that of its last instant; of the sliding ones the earliest.
            let end = number(event, "t") / 10 * 10 + 10;
            let (user, amount) = (&event["user"], number(event, "amount"));
            let profile = newest(&self.profiles, end - 30, end, |profile| !user.is_null() && profile["user"] == *user);
            let start = (end - 1) / 20 * 20;
            let rate = newest(&self.rates, start, start + 20, |_| true).map_or(-1, |rate| number(rate, "value"));
            json!({
                "id": event["id"],
                "segment": profile.map_or(json!(77), |profile| profile["segment"].clone()),
                "price": amount * rate,
                "blocked": everyone.contains(&user),
            })
        };
        sorted(self.events.iter().map(|event| in_order(&row(event))))
    }
}

/// Columns stand in any order.
fn in_order(row: &Value) -> String {
    json!(row.as_object().unwrap().iter().filter(|(_, value)| !value.is_null()).collect::<BTreeMap<_, _>>()).to_string()
}

const SOURCES: [(&str, &str); 4] = [
    ("events", "id: {type: integer}, user: {type: string}, amount: {type: integer}"),
    ("profiles", "order: {type: integer}, user: {type: string}, segment: {type: integer}"),
    ("rates", "order: {type: integer}, value: {type: integer}"),
    ("blocked", "order: {type: integer}, user: {type: string}"),
];

/// The sources with their event times, as `T-events` and so on, and what follows.
fn pipeline(folder: &Path, transforms: &str, options: &str) -> String {
    let mut text = "pipeline:\n  transforms:\n".to_string();
    for (name, columns) in SOURCES {
        text += &format!(
            "    - {{type: ReadFromJson, name: {name}, config: {{path: '{}/{name}-*.json', schema: {{type: object, properties: {{t: {{type: integer}}, {columns}}}}}}}}}\n    - {{type: AssignTimestamps, name: T-{name}, input: {name}, config: {{timestamp: t}}}}\n",
            folder.display()
        );
    }
    let file = folder.join("pipeline.yaml");
    std::fs::write(&file, text + transforms + options).unwrap();
    file.display().to_string()
}

fn component(name: &str) -> String {
    root().join(format!("tests/.cache/components/{name}.wasm")).display().to_string()
}

const WINDOWS: &str = "    - {type: WindowInto, name: Events, input: T-events, windowing: {type: fixed, size: 10s}}
    - {type: WindowInto, name: Profiles, input: T-profiles, windowing: {type: sliding, size: 30s, period: 10s}}
    - {type: WindowInto, name: Rates, input: T-rates, windowing: {type: fixed, size: 20s}}
";

#[test]
fn expressions_find_what_a_search_finds() {
    for (parallelism, files, seed) in [("1", 1, 1), ("2", 3, 2), ("4", 4, 3), ("8", 2, 4)] {
        let case = Case::new(seed);
        let folder = tempfile::tempdir().unwrap();
        case.write(folder.path(), files);
        // `order` is read too, so that it is what rows of one time are told apart by.
        let transforms = format!(
            "{WINDOWS}    - type: MapToFields
      name: Found
      input: {{main: Events, profiles: Profiles, rates: Rates, blocked: T-blocked}}
      config:
        language: sql
        side_inputs:
          profiles: {{as: dict, key: user, default: {{segment: 77}}}}
          rates: {{as: singleton, default: {{value: -1}}}}
          blocked: {{as: iterable}}
        fields:
          id: id + 0 * coalesce(lookup('profiles', user).order, 0)
          segment: lookup('profiles', user).segment
          price: amount * (lookup('rates').value + 0 * coalesce(lookup('rates').order, 0))
          blocked: user IS NOT NULL AND array_has(lookup('blocked').user, user)
    - {{type: WriteToJson, input: Found, config: {{path: '{}'}}}}
",
            folder.path().join("out").display()
        );
        // Rows of side inputs may lag behind those that look into them, and the other way round.
        for options in ["", "options: {pelton: {watermark: {delay: 3s}}}\n"] {
            balanced(&summary(&[&pipeline(folder.path(), &transforms, options), "--parallelism", parallelism]));
            let got = sorted(json_rows(&folder.path().join("out")).iter().map(in_order));
            assert_eq!(got, case.expected(), "parallelism {parallelism}, {files} files, {options}");
            clear(folder.path(), "out");
        }
    }
}

/// Removes what a sink wrote.
fn clear(folder: &Path, name: &str) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with(name) {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

#[test]
fn a_plugin_finds_what_a_search_finds() {
    for (parallelism, files, seed) in [("1", 2, 11), ("2", 3, 12), ("4", 4, 13)] {
        let case = Case::new(seed);
        let folder = tempfile::tempdir().unwrap();
        case.write(folder.path(), files);
        let at = |name: &str| folder.path().join(name).display().to_string();
        let transforms = format!(
            "{WINDOWS}    - type: Price
      name: Found
      input: {{blocked: T-blocked, main: Events, profiles: Named, rate: Rates}}
      config:
        side_inputs:
          profiles: {{as: dict, key: user, default: {{segment: '77'}}}}
          rate: {{as: singleton, default: {{value: -1}}}}
          blocked: {{as: iterable}}
        error_handling: {{output: errors}}
    - {{type: MapToFields, name: Named, input: Profiles, config: {{language: sql, fields: {{order: order, user: user, segment: CAST(segment AS VARCHAR)}}}}}}
    - {{type: WriteToJson, name: Out, input: Found, config: {{path: '{}'}}}}
    - {{type: WriteToJson, name: Errors, input: Found.errors, config: {{path: '{}'}}}}
providers:
  - {{type: wasm, config: {{plugin: '{}'}}, transforms: {{Price: price}}}}
",
            at("out"),
            at("errors"),
            component("sdk")
        );
        balanced(&summary(&[&pipeline(folder.path(), &transforms, ""), "--parallelism", parallelism]));
        let mut got = Vec::new();
        for row in json_rows(&folder.path().join("out")) {
            let columns: Vec<&String> = row.as_object().unwrap().keys().collect();
            assert!(columns.iter().all(|name| ["id", "user", "amount", "t", "segment", "price"].contains(&name.as_str())), "{columns:?}");
            let segment: i64 = row["segment"].as_str().unwrap().parse().unwrap();
            got.push(in_order(&json!({"id": row["id"], "segment": segment, "price": row["price"], "blocked": false})));
        }
        for error in json_rows(&folder.path().join("errors")) {
            let element = error["element"].as_object().unwrap();
            assert!(element.keys().all(|name| ["id", "user", "amount", "t"].contains(&name.as_str())), "{error}");
            assert_eq!(error["msg"], format!("{} is blocked", element["user"].as_str().unwrap()));
            assert!(error["position"]["source"].as_str().unwrap().contains("events-"), "{error}");
            got.push(in_order(&json!({"id": element["id"], "blocked": true})));
        }
        // Of equal times the largest bytes count, which the search cannot know: it knows which rows could be meant.
        let could = |event: &Value| -> Vec<String> {
            let end = number(event, "t") / 10 * 10 + 10;
            let user = &event["user"];
            if !user.is_null() && case.blocked.iter().any(|row| row["user"] == *user) {
                return vec![in_order(&json!({"id": event["id"], "blocked": true}))];
            }
            let newest_of = |rows: &[Value], start: i64, end: i64, is: &dyn Fn(&Value) -> bool, column: &str, missing: i64| -> Vec<i64> {
                let time = newest(rows, start, end, is).map(|row| number(row, "t"));
                match time {
                    None => vec![missing],
                    Some(time) => rows.iter().filter(|row| number(row, "t") == time && is(row)).map(|row| number(row, column)).collect(),
                }
            };
            let segments = newest_of(&case.profiles, end - 30, end, &|row| !user.is_null() && row["user"] == *user, "segment", 77);
            let start = (end - 1) / 20 * 20;
            let rates = newest_of(&case.rates, start, start + 20, &|_| true, "value", -1);
            // Numbers and texts of one digit sort as their bytes do.
            let (segment, rate) = (segments.iter().max().unwrap(), rates.iter().max().unwrap());
            vec![in_order(&json!({"id": event["id"], "segment": segment, "price": number(event, "amount") * rate, "blocked": false}))]
        };
        let want = sorted(case.events.iter().flat_map(could));
        assert_eq!(sorted(got), want, "parallelism {parallelism}, {files} files");
    }
}

#[test]
fn a_plugin_with_state_has_side_inputs_too() {
    let mut numbers = Numbers(5);
    let events = rows(&mut numbers, 500, 300, |numbers, id| json!({"id": id, "user": user(numbers), "number": numbers.below(50)}));
    let rates: Vec<Value> = (0..6).map(|number| json!({"user": format!("u{number}"), "rate": number + 2})).collect();
    let mut totals: BTreeMap<String, i64> = BTreeMap::new();
    let mut want = Vec::new();
    for event in &events {
        let rate = rates.iter().find(|rate| rate["user"] == event["user"]).map_or(1, |rate| number(rate, "rate"));
        let total = totals.entry(event["user"].to_string()).or_default();
        *total += number(event, "number") * rate;
        want.push(format!("{} {total}", event["id"]));
    }
    for parallelism in ["1", "2", "4"] {
        let folder = tempfile::tempdir().unwrap();
        // One file, so that the rows of a key have one order.
        write(folder.path(), "events", 1, &events);
        write(folder.path(), "rates", 1, &rates);
        let file = folder.path().join("pipeline.yaml");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let text = format!(
            "pipeline:
  transforms:
    - {{type: ReadFromJson, name: Events, config: {{path: '{}'}}}}
    - {{type: ReadFromJson, name: Rates, config: {{path: '{}'}}}}
    - {{type: Spending, input: {{main: Events, rates: Rates}}, config: {{key: [user], side_inputs: {{rates: {{as: dict, key: user}}}}}}}}
    - {{type: WriteToJson, input: Spending, config: {{path: '{}'}}}}
providers:
  - {{type: wasm, config: {{plugin: '{}'}}, transforms: {{Spending: spending}}}}
",
            at("events-0.json"),
            at("rates-0.json"),
            at("out"),
            component("stateful")
        );
        std::fs::write(&file, text).unwrap();
        balanced(&summary(&[file.to_str().unwrap(), "--parallelism", parallelism]));
        let got = json_rows(&folder.path().join("out"));
        let got = sorted(got.iter().map(|row| format!("{} {}", row["id"], row["so_far"])));
        assert_eq!(got, sorted(want.iter()), "parallelism {parallelism}");
    }
}

/// What is wrong with the columns of side inputs is told before anything runs.
#[test]
fn columns_of_side_inputs_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pipeline.yaml");
    let check = |kind: &str, config: &str, parts: &[&str]| {
        let text = format!(
            "pipeline:
  transforms:
    - {{type: Create, name: A, config: {{elements: [{{user: a, amount: 1}}]}}}}
    - {{type: Create, name: B, config: {{elements: [{{user: a, segment: x, value: 2, id: 5}}]}}}}
    - type: {kind}
      name: M
      input: {{main: A, b: B}}
      config: {{{config}}}
    - {{type: WriteToJson, input: M, config: {{path: '{0}/out'}}}}
providers:
  - {{type: wasm, config: {{plugin: '{1}'}}, transforms: {{Price: price}}}}
",
            folder.path().display(),
            component("sdk")
        );
        std::fs::write(&file, text).unwrap();
        let said = run(&["run", file.to_str().unwrap(), "--quiet"]);
        assert_eq!(said.code, 2, "{}", said.err);
        for part in parts {
            assert!(said.err.contains(part), "`{part}` is not in\n{}", said.err);
        }
    };
    let map = |side: &str, expression: &str, parts: &[&str]| {
        let config = format!("language: sql, side_inputs: {{b: {{{side}}}}}, fields: {{x: \"{expression}\"}}");
        check("MapToFields", &config, parts);
    };
    map("as: singleton", "lookup('b').segmnt", &["the side input `b` has no column `segmnt`", "did you mean `segment`?"]);
    map("as: dict, key: usr", "lookup('b', user).segment", &["the side input `b` has no column `usr`", "did you mean `user`?"]);
    map("as: dict, key: user", "lookup('b', usr).segment", &["in `usr`", "did you mean `user`?"]);
    map(
        "as: dict, key: id",
        "lookup('b', user).segment",
        &["`user` is Utf8 and the key of the side input `b` is Int64, so nothing would be found"],
    );
    map(
        "as: dict, key: user, default: {sgment: x}",
        "lookup('b', user).segment",
        &["the side input `b` has no column `sgment`", "did you mean `segment`?"],
    );
    map("as: dict, key: user, default: {value: x}", "lookup('b', user).value", &["`default` of `value`, which is Int64"]);
    map("as: iterable", "lookup('b').value + 1", &["List"]);
    check("Price", "side_inputs: {b: {as: singleton}}", &["profiles.segment"]);
}
