//! `examples/plugin-lifecycle/lifecycle.sh`, line by line as a newcomer runs it; and swaps of a pipeline that is restarted again and again.

use pelton_tests::life::{Life, newest_manifest};
use pelton_tests::pelton::{binary, root, run, wait_for};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

/// Rows of all files `NAME*` of a folder.
fn rows(folder: &Path, name: &str) -> Vec<Value> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let files = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(name) && entry.path().is_file());
    let texts: Vec<String> = files.map(|file| std::fs::read_to_string(file.path()).unwrap()).collect();
    texts.iter().flat_map(|text| text.lines()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_script_of_the_plugin_lifecycle_runs_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut script = Command::new("examples/plugin-lifecycle/lifecycle.sh");
    script.arg(folder.path()).current_dir(root()).env("PELTON", binary()).stdin(Stdio::null());
    let output = script.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    for part in [
        "sandbox: 1 passed, 0 failed",
        "the swap can be made; nothing was changed",
        "swap 1: made after epoch",
        "cut at ReadEvents:",
        "swap 2: made",
        "promoted: swap 3",
        "the candidate has gone; nothing was changed",
        "swap 4: made",
        "done:",
    ] {
        assert!(out.contains(part), "`{part}` is not in\n{out}{err}");
    }
    // Each event is there once, and masked are exactly those between two cuts; before the third some are, for a while.
    let cuts = cuts(&folder.path().join("traffic"), "ReadEvents");
    let mut rows = rows(folder.path(), "raw.json");
    rows.sort_by_key(|row| micros(row["event_timestamp"].as_str().unwrap()));
    assert!(cuts.len() == 4 && cuts.is_sorted() && cuts[3] < rows.len(), "{cuts:?} of {} rows\n{out}{err}", rows.len());
    for (number, row) in rows.iter().enumerate() {
        assert_eq!(micros(row["event_timestamp"].as_str().unwrap()), number as u64 * 600_000, "{row}");
    }
    let masked = |rows: &[Value]| rows.iter().filter(|row| row["ip"].as_str().unwrap().ends_with(".0")).count();
    for [from, to] in [[cuts[0], cuts[1]], [cuts[2], cuts[3]]] {
        assert_eq!(masked(&rows[from..to]), to - from);
    }
    let others = masked(&rows[..cuts[0]]) + masked(&rows[cuts[3]..]);
    assert!(others < rows.len() / 20, "{others} addresses outside of the stretches end with 0, which one in 256 does");
    let (some, all) = (masked(&rows[cuts[1]..cuts[2]]), cuts[2] - cuts[1]);
    assert!(some > all / 20 && some < all * 3 / 4, "{some} of {all} events were the canary's");
}

/// Rows of the pipeline that is restarted.
const ROWS: usize = 6_000;
/// It ends by itself within so many seconds.
const PATIENCE: u64 = 120;

#[test]
fn a_swap_is_answered_over_restarts() {
    for seed in ["3", "4"] {
        let folder = tempfile::tempdir().unwrap();
        let (state, file) = (folder.path().join("state"), folder.path().join("pipeline.yaml"));
        let text = format!(
            "pipeline:
  type: chain
  transforms:
    - {{type: GenerateEvents, name: Read, config: {{kind: transactions, count: {ROWS}, rate: 1500, interval: 600ms}}}}
    - {{type: MapToFields, name: Mark, config: {{language: sql, append: true, fields: {{version: '1'}}}}}}
    - {{type: WriteToJson, config: {{path: {}}}}}
",
            folder.path().join("rows").display()
        );
        std::fs::write(&file, text).unwrap();
        let arguments = ["run", file.to_str().unwrap(), "--state", state.to_str().unwrap(), "--quiet"];
        let mut life = Life::start(&arguments, &[("PELTON_TEST_CRASHES", seed)], &folder.path().join("log"));
        let (mut made, mut over_restarts) = (0, 0);
        while life.ended().is_none() {
            let config = json!({"language": "sql", "append": true, "fields": {"version": (made + 2).to_string()}});
            let changes = json!([{"transform": "Mark", "config": config}]);
            let Some(told) = ask(&state, &json!({"do": "swap", "changes": changes, "dry_run": false, "irreversible": false})) else {
                continue;
            };
            if let Some(error) = told["error"].as_str() {
                // One that was asked for as the run began, and whose answer was lost, is on its way; then it is there.
                if error.contains("under way") {
                    continue;
                }
                if error.contains("nothing would change") {
                    made = cuts(&state, "Read").len() as u64;
                    continue;
                }
                let ended = wait_for("the pipeline ends after it has refused a swap", PATIENCE, || life.ended());
                assert!(ended.success() && error.contains("end"), "{error}\n{}", life.said());
                println!("seed={seed} after {made} swaps: {error}");
                break;
            }
            made += 1;
            assert_eq!(told["number"], made, "{told}\n{}", life.said());
            over_restarts += usize::from(told["notes"].to_string().contains("restarted"));
        }
        assert!(life.wait(PATIENCE).success(), "{}", life.said());
        let cuts = cuts(&state, "Read");
        println!("seed={seed} swaps={made} over_restarts={over_restarts} cuts={}", cuts.len());
        assert!(cuts.len() as u64 >= made && made > 5, "{cuts:?}");
        let mut rows = rows(folder.path(), "rows");
        rows.sort_by_key(|row| row["transaction_id"].as_str().unwrap().to_owned());
        assert_eq!(rows.len(), ROWS);
        for (number, row) in rows.iter().enumerate() {
            let version = 1 + cuts.iter().filter(|cut| **cut <= number).count();
            assert_eq!(row["version"], version, "row {number} of seed {seed}: {row}");
        }
    }
}

/// A pipeline whose plugin can be swapped: what makes rows and takes them to the plugin, and what its transforms are called.
fn swappable(folder: &Path, steps: &str, transforms: &str) -> String {
    let plugin = root().join("tests/.cache/components/counting.wasm");
    let text = format!(
        "pipeline:
  type: chain
  transforms:
{steps}
    - {{type: WriteToJson, config: {{path: {}}}}}
providers:
  - {{type: wasm, config: {{plugin: '{}'}}, transforms: {transforms}}}
options:
  pelton: {{checkpoint: {{interval: 200ms}}}}
",
        folder.join("rows").display(),
        plugin.display()
    );
    let file = folder.join("pipeline.yaml");
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// With state: rows, and the first number of each key.
fn counting(folder: &Path, first: i64) -> String {
    let steps = format!(
        "    - {{type: GenerateEvents, name: Read, config: {{kind: transactions, count: 1000000, rate: 400, devices: 40}}}}
    - {{type: MapToFields, name: Rows, config: {{language: sql, fields: {{user: customer_id, number: '{first}'}}}}}}
    - {{type: Count, name: Count, config: {{key: [user]}}}}"
    );
    swappable(folder, &steps, "{Count: counting}")
}

#[test]
fn state_that_cannot_be_brought_over_is_known_before_the_cut() {
    for (first, refused) in [(-5, Some("is negative")), (5, None)] {
        let folder = tempfile::tempdir().unwrap();
        let (file, state) = (counting(folder.path(), first), folder.path().join("state"));
        let arguments = ["run", &file, "--state", state.to_str().unwrap(), "--quiet"];
        let mut life = Life::start(&arguments, &[], &folder.path().join("log"));
        let epoch = || newest_manifest(&state).map_or(0, |(epoch, _)| epoch);
        wait_for("there are checkpoints with state", PATIENCE, || (epoch() > 3).then_some(()));
        let far = root().join("tests/.cache/components/counting-far.wasm");
        let swap = |more: &[&str]| run(&[&["plugin", "swap", state.to_str().unwrap(), "Count", far.to_str().unwrap()], more].concat());
        // The old version knows nothing of the new state.
        let said = swap(&[]);
        assert!(said.code == 2 && said.err.contains("no way back") && said.err.contains("--irreversible"), "{said:?}");
        let said = swap(&["--irreversible"]);
        match refused {
            Some(why) => {
                assert!(said.code == 2 && said.err.contains("cannot go on with the state of the last checkpoint"), "{said:?}");
                assert!(said.err.contains(why) && said.err.contains("the old version goes on"), "{said:?}");
            }
            None => assert!(said.code == 0 && said.out.contains("cells of state can be brought over"), "{said:?}"),
        }
        let version = if refused.is_some() { 1 } else { 3 };
        let before = epoch();
        wait_for("it goes on", PATIENCE, || (epoch() > before + 3).then_some(()));
        assert_eq!(run(&["stop", state.to_str().unwrap()]).code, 0);
        assert!(life.wait(PATIENCE).success(), "{}", life.said());
        let then = rows(folder.path(), "rows");
        assert_eq!(then.last().map(|row| &row["version"]), Some(&json!(version)), "{}", life.said());
        assert!(then.iter().all(|row| row["sum"].as_i64().unwrap() == first * row["rows"].as_i64().unwrap()), "{:?}", then.last());
        assert!(!life.said().contains("goes on from its last checkpoint"), "{}", life.said());
    }
}

/// Rows of the pipeline that groups; it takes fifty seconds for them.
const GROUPED: i64 = 5_000;

/// With an aggregate of the plugin: its windows fire when it ends.
fn grouping(folder: &Path, number: i64) -> String {
    let steps = format!(
        "    - {{type: GenerateEvents, name: Read, config: {{kind: transactions, count: {GROUPED}, rate: 100, devices: 40}}}}
    - {{type: MapToFields, name: Rows, config: {{language: sql, fields: {{user: customer_id, number: '{number}'}}}}}}
    - {{type: Combine, name: Sums, config: {{group_by: user, combine: {{tally: {{value: number, fn: {{type: Tally}}}}}}}}}}"
    );
    swappable(folder, &steps, "{Tally: tally}")
}

#[test]
fn accumulators_that_cannot_be_brought_over_are_known_before_the_cut() {
    for (number, refused) in [(-5, true), (5, false)] {
        let folder = tempfile::tempdir().unwrap();
        let (file, state) = (grouping(folder.path(), number), folder.path().join("state"));
        let arguments = ["run", &file, "--state", state.to_str().unwrap(), "--quiet"];
        let mut life = Life::start(&arguments, &[], &folder.path().join("log"));
        wait_for("there are checkpoints with state", PATIENCE, || newest_manifest(&state).filter(|(epoch, _)| *epoch > 3));
        let far = root().join("tests/.cache/components/counting-far.wasm");
        // The one aggregate of a plugin need not be named.
        let said = run(&["plugin", "swap", state.to_str().unwrap(), "Sums", far.to_str().unwrap(), "--irreversible"]);
        if refused {
            assert!(said.code == 2 && said.err.contains("cannot go on with the state of the last checkpoint"), "{said:?}");
            assert!(said.err.contains("the state `tally` of the key") && said.err.contains("is negative"), "{said:?}");
        } else {
            assert!(said.code == 0 && said.out.contains("cells of state can be brought over"), "{said:?}\n{}", life.said());
        }
        assert!(life.wait(PATIENCE).success(), "{}", life.said());
        let tallies: Vec<Vec<i64>> = rows(folder.path(), "rows")
            .iter()
            .map(|row| row["tally"].as_str().unwrap().split(' ').map(|number| number.parse().unwrap()).collect())
            .collect();
        let all = |place: usize| tallies.iter().map(|tally| tally[place]).sum::<i64>();
        assert_eq!((all(0), all(1) + all(3), all(2)), (number * GROUPED, GROUPED, 0), "{tallies:?}");
        assert!(all(1) > 0 && (all(3) > 0) != refused, "{tallies:?}");
    }
}

#[test]
fn a_component_that_was_damaged_is_fetched_from_the_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let (file, state) = (counting(folder.path(), 5), folder.path().join("state"));
    let arguments = ["run", &file, "--state", state.to_str().unwrap(), "--quiet"];
    let start = |log: &str| Life::start(&arguments, &[], &folder.path().join(log));
    let live = |mut life: Life, then: &dyn Fn()| {
        let before = newest_manifest(&state).map_or(0, |(epoch, _)| epoch);
        wait_for("there are checkpoints", PATIENCE, || {
            assert!(life.ended().is_none(), "{}", life.said());
            newest_manifest(&state).is_some_and(|(epoch, _)| epoch > before + 3).then_some(())
        });
        then();
        assert_eq!(run(&["stop", state.to_str().unwrap()]).code, 0);
        assert!(life.wait(PATIENCE).success(), "{}", life.said());
    };
    let far = root().join("tests/.cache/components/counting-far.wasm");
    live(start("first"), &|| {
        let said = run(&["plugin", "swap", state.to_str().unwrap(), "Count", far.to_str().unwrap(), "--irreversible"]);
        assert_eq!(said.code, 0, "{said:?}");
    });
    // Its file is cut off; then it holds another plugin.
    let components: Vec<_> = std::fs::read_dir(state.join("components")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let whole = std::fs::read(&far).unwrap();
    let kept: Vec<_> = components.iter().filter(|path| std::fs::read(path).unwrap() == whole).collect();
    assert_eq!(kept.len(), 1, "{components:?}");
    for (log, bytes) in
        [("cut", &whole[..whole.len() / 2]), ("other", &std::fs::read(root().join("tests/.cache/components/counting.wasm")).unwrap())]
    {
        std::fs::write(kept[0], bytes).unwrap();
        live(start(log), &|| ());
        assert!(std::fs::read(kept[0]).unwrap() == whole, "it is there again");
    }
    assert!(rows(folder.path(), "rows").last().is_some_and(|row| row["version"] == 3));
}

/// What a run answers; `None`: nobody is there.
fn ask(state: &Path, request: &Value) -> Option<Value> {
    let mut stream = UnixStream::connect(state.join("control.sock")).ok()?;
    stream.write_all(format!("{request}\n").as_bytes()).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

/// How many events came before each swap of a pipeline.
fn cuts(state: &Path, source: &str) -> Vec<usize> {
    let said = run(&["plugin", "history", state.to_str().unwrap(), "--output", "json"]);
    let history: Value = serde_json::from_str(said.out.trim()).unwrap();
    let sent = |swap: &Value| {
        let position = swap["positions"][source][format!("generated:0:{source}")].as_str().unwrap().to_owned();
        serde_json::from_str::<Value>(&position).unwrap()["sent"].as_u64().unwrap() as usize
    };
    history.as_array().unwrap().iter().map(sent).collect()
}

/// Since the beginning of 2026, of a time in its first day.
fn micros(time: &str) -> u64 {
    let time = time.strip_prefix("2026-01-01T").unwrap_or_else(|| panic!("{time} is another day")).trim_end_matches('Z');
    let parts: Vec<&str> = time.split(':').collect();
    let minutes: u64 = parts[0].parse::<u64>().unwrap() * 60 + parts[1].parse::<u64>().unwrap();
    minutes * 60_000_000 + (parts[2].parse::<f64>().unwrap() * 1e6).round() as u64
}
