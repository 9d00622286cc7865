//! A pipeline whose plugin changes while it is down: real processes, the binary as users run it.
//!
//! The guest program `stateful` has one transform in four versions. What each gives out of a row depends on all rows of the key before it, and not on which version saw
//! them; so the output of lives of several versions is that of a loop over the rows.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and waits by the clock")]

use pelton_tests::life::Life;
use pelton_tests::pelton::{json_rows, root, run, sorted, summary};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// More cells than a task brings to the present before its first message.
const USERS: u32 = 30_000;
const PATIENCE: u64 = 300;
const AMOUNT: &str = "CAST(amount AS BIGINT)";

struct Lives {
    folder: tempfile::TempDir,
    /// What a row's number is made of.
    number: &'static str,
    users: u32,
    count: u32,
    /// Rows a second.
    rate: u32,
    /// What stands before the names of its state folder and its output: a fork has its own.
    fork: &'static str,
    started: u32,
}

impl Lives {
    fn new(users: u32, count: u32, number: &'static str) -> Lives {
        let folder = tempfile::Builder::new().prefix("pelton-evolution-").tempdir().unwrap();
        Lives { folder, number, users, count, rate: 5_000, fork: "", started: 0 }
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn state(&self) -> String {
        self.at(&format!("{}state", self.fork))
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join(format!("{}out", self.fork))
    }

    /// Rows of a user and a number, slowly enough for some epochs or as fast as they come, and what follows them.
    fn written(&self, name: &str, rate: &str, then: &str) -> String {
        let text = format!(
            "pipeline:
  transforms:
    - {{type: GenerateEvents, name: Events, config: {{kind: transactions, seed: 5, count: {}, devices: {}, interval: 1ms{rate}}}}}
    - type: MapToFields
      name: Rows
      input: Events
      config: {{language: sql, fields: {{user: customer_id, number: \"{}\"}}}}
{then}options:
  pelton: {{name: evolution, parallelism: 1, checkpoint: {{interval: 200ms}}}}
",
            self.count, self.users, self.number
        );
        let file = self.folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    }

    /// The pipeline with a version of the transform, or of the aggregation.
    fn pipeline(&self, version: &str) -> String {
        let component: PathBuf = root().join("tests/.cache/components/stateful.wasm");
        let (step, name) = match version.starts_with("total") {
            true => ("Combine, input: Rows, config: {group_by: user, combine: {total: {value: number, fn: {type: Total}}}}", "Total"),
            false => ("Figures, input: Rows, config: {key: [user]}", "Figures"),
        };
        let then = format!(
            "    - {{name: Figures, type: {step}}}
    - {{type: WriteToJson, name: Write, input: Figures, config: {{path: '{}'}}}}
providers:
  - {{type: wasm, config: {{plugin: '{}', limits: {{call_deadline: 20s}}}}, transforms: {{{name}: {version}}}}}
",
            self.out().display(),
            component.display()
        );
        self.written(&format!("{version}{}.yaml", self.fork), &format!(", rate: {}", self.rate), &then)
    }

    /// The rows, in order.
    fn rows(&self) -> Vec<(i64, i64)> {
        let then = format!("    - {{type: WriteToJson, name: Write, input: Rows, config: {{path: '{}'}}}}\n", self.at("rows"));
        summary(&[&self.written("rows.yaml", "", &then)]);
        let number = |row: &Value, name: &str| row[name].as_i64().unwrap();
        json_rows(&self.folder.path().join("rows")).iter().map(|row| (number(row, "user"), number(row, "number"))).collect()
    }

    /// A life that ends by itself, or dies at a failpoint; gives what it said.
    fn live(&mut self, version: &str, failpoint: Option<&str>, more: &[&str]) -> (Option<i32>, String) {
        self.started += 1;
        let (pipeline, state, log) = (self.pipeline(version), self.state(), self.folder.path().join(format!("log-{}", self.started)));
        let mut arguments = vec!["run", &pipeline, "--state", &state, "--quiet"];
        arguments.extend(more);
        let environment: Vec<(&str, &str)> = failpoint.map(|name| ("PELTON_FAILPOINT", name)).into_iter().collect();
        let mut life = Life::start(&arguments, &environment, &log);
        let status = life.wait(PATIENCE);
        (status.code(), life.said())
    }

    fn dies(&mut self, version: &str, failpoint: &str) -> String {
        let (code, said) = self.live(version, Some(failpoint), &[]);
        let name = failpoint.split(':').next().unwrap();
        assert!(
            code.is_none() && said.contains(&format!("failpoint {name}: the process")),
            "{version} did not come to {failpoint}: {code:?}\n{said}"
        );
        said
    }

    fn refused(&mut self, version: &str, more: &[&str]) -> String {
        let (code, said) = self.live(version, None, more);
        assert!(code.is_some_and(|code| code != 0), "{version} is refused: {code:?}\n{said}");
        said
    }

    fn ends(&mut self, version: &str, more: &[&str]) -> String {
        let (code, said) = self.live(version, None, more);
        assert_eq!(code, Some(0), "{said}");
        said
    }

    /// All output against a loop over the rows, that of a fork against its last part; gives the versions that made it.
    fn check(&self) -> BTreeSet<i64> {
        #[derive(Default)]
        struct Model {
            count: i64,
            sum: i64,
            even: i64,
            first: Option<i64>,
        }
        let mut models: BTreeMap<i64, Model> = BTreeMap::new();
        let want = self.rows().into_iter().map(|(user, number)| {
            let model = models.entry(user).or_default();
            model.count += 1;
            model.sum += number;
            model.even += i64::from(number % 2 == 0);
            let first = *model.first.get_or_insert(number);
            json!({"user": user, "count": model.count, "sum": model.sum, "recent": model.sum, "even": model.even, "first": first})
        });
        let mut want: Vec<Value> = want.collect();
        let mut versions = BTreeSet::new();
        let got = json_rows(&self.out()).into_iter().map(|row| {
            versions.insert(row["version"].as_i64().unwrap());
            let of = |name: &str| row[name].clone();
            json!({"user": of("user"), "count": of("count"), "sum": of("sum"), "recent": of("recent"), "even": of("even"), "first": of("first")})
        });
        let got = sorted(got);
        if !self.fork.is_empty() {
            assert!(!got.is_empty() && got.len() < want.len(), "a part of {} rows: {}", want.len(), got.len());
            want.drain(..want.len() - got.len());
        }
        let want = sorted(want);
        let first = got.iter().zip(&want).find(|(got, want)| got != want);
        assert!(got == want, "{} rows for {}; the first that differ: {first:?}", got.len(), want.len());
        versions
    }
}

#[test]
fn state_goes_on_through_versions_and_deaths() {
    let mut lives = Lives::new(USERS, 90_000, AMOUNT);
    lives.dies("figures-one", "decide.after:9");

    // Refused before anything is written, with all that is wrong and what to do.
    let said = lives.refused("figures-four", &[]);
    for want in [
        "state `recent`: the plugin has no such state any more",
        "--drop-state 'Figures#recent'",
        "state `tally`: its value was {count: int32, scratch: text, sum: int32, first: int64 or none} and is text now",
        "raise the version to 2 and add a migration from 1",
    ] {
        assert!(said.contains(want), "{want} is not in\n{said}");
    }

    // By the host's rules: it dies in the sweep, and once more later.
    let said = lives.dies("figures-two", "evolve.sweep:1");
    assert!(said.contains("Figures#tally (by rule)") && said.contains("Figures#seen"), "{said}");
    lives.dies("figures-two", "evolve.sweep:2");
    lives.dies("figures-two", "decide.after:2");

    // The first version has no way back: its types are narrower.
    let said = lives.refused("figures-one", &[]);
    assert!(said.contains("field `count` was int64 and is int32 now: some would not fit"), "{said}");
    assert!(said.contains("state `seen`: the plugin has no such state any more"), "{said}");

    // By the plugin's migration, which takes either of the types before. One state is dropped by name.
    let said = lives.refused("figures-three", &[]);
    assert!(said.contains("--drop-state 'Figures#seen'"), "{said}");
    let said = lives.ends("figures-three", &["--drop-state", "Figures#seen"]);
    assert!(said.contains("Figures#tally (by the plugin, version 1 to 2)") && said.contains("Figures#seen"), "{said}");
    assert_eq!(lives.check(), BTreeSet::from([1, 2, 3]));
}

/// Cells by era, as `pelton state ls` lists them, the present one first.
fn cells_by_era(place: &str) -> Vec<u64> {
    let said = run(&["state", "ls", place]);
    assert_eq!(said.code, 0, "{}", said.err);
    let era = |line: &str| line.trim_start().strip_prefix("era ")?.strip_suffix(" cells")?.rsplit(' ').next()?.parse().ok();
    said.out.lines().filter_map(era).collect()
}

#[test]
fn a_savepoint_in_the_middle_of_a_sweep_is_like_any_other() {
    let mut lives = Lives { rate: 60_000, ..Lives::new(100_000, 150_000, AMOUNT) };
    lives.dies("figures-one", "decide.after:3");
    lives.dies("figures-two", "decide.after:1");
    let savepoint = lives.at("savepoint");
    let said = run(&["savepoint", &lives.state(), &savepoint]);
    assert_eq!(said.code, 0, "{}", said.err);
    let cells = cells_by_era(&savepoint);
    assert!(matches!(cells[..], [new, old] if new > 0 && old > 0), "cells of both versions: {cells:?}");
    // Forks of it: with the same version, and with one that is newer still.
    for (fork, version, more) in [("same-", "figures-two", &[][..]), ("newer-", "figures-three", &["--drop-state", "Figures#seen"])] {
        lives.fork = fork;
        let from = ["--from", &savepoint];
        lives.ends(version, &[&from[..], more].concat());
        lives.check();
        assert_eq!(cells_by_era(&lives.state()).len(), 1, "all has been converted");
    }
    // The original has not been disturbed.
    lives.fork = "";
    lives.ends("figures-two", &[]);
    assert_eq!(lives.check(), BTreeSet::from([1, 2]));
}

#[test]
fn a_fork_that_dies_before_its_first_epoch_begins_with_the_savepoint_again() {
    let mut lives = Lives::new(200, 30_000, AMOUNT);
    lives.dies("figures-one", "decide.after:3");
    let savepoint = lives.at("savepoint");
    assert_eq!(run(&["savepoint", &lives.state(), &savepoint]).code, 0);
    lives.fork = "fork-";
    let from = ["--from", &savepoint];
    for failpoint in ["manifest.before", "decide.before"] {
        let (code, said) = lives.live("figures-one", Some(failpoint), if lives.started == 1 { &from } else { &[] });
        assert!(code.is_none() && said.contains(&format!("failpoint {failpoint}: the process")), "{said}");
    }
    let said = lives.refused("figures-one", &from);
    assert!(said.contains("begins a new pipeline, and one has begun in") && said.contains("leave --from out"), "{said}");
    lives.ends("figures-one", &[]);
    lives.check();
}

#[test]
fn accumulators_go_on_through_versions_and_deaths() {
    let mut lives = Lives::new(USERS, 90_000, AMOUNT);
    lives.dies("total-one", "decide.after:9");
    let said = lives.dies("total-two", "evolve.sweep:1");
    assert!(said.contains("Figures#total (by rule)"), "{said}");
    lives.dies("total-two", "decide.after:2");
    let said = lives.refused("total-one", &[]);
    assert!(said.contains("field `note` is new and of type text") && said.contains("--drop-state 'Figures'"), "{said}");
    let said = lives.ends("total-three", &[]);
    assert!(said.contains("Figures#total (by the plugin, version 1 to 2)"), "{said}");
    let mut totals: BTreeMap<i64, i64> = BTreeMap::new();
    lives.rows().into_iter().for_each(|(user, number)| *totals.entry(user).or_default() += number);
    let want = sorted(totals.into_iter().map(|(user, total)| json!({"user": user, "total": total})));
    assert_eq!(sorted(json_rows(&lives.out())), want);

    // Its migration takes no negative sum.
    let mut negative = Lives::new(200, 30_000, "CASE WHEN customer_id = 77 THEN -13 ELSE CAST(amount AS BIGINT) END");
    negative.dies("total-one", "decide.after:2");
    let said = negative.refused("total-three", &[]);
    assert!(said.contains("cannot bring the state `total` of the key `77` from version 1") && said.contains("is negative"), "{said}");
    negative.ends("total-two", &[]);
}

#[test]
fn a_migration_that_refuses_fails_the_start_and_changes_nothing() {
    // The migration of the third version takes no negative number.
    let mut lives = Lives::new(200, 30_000, "CASE WHEN customer_id = 77 THEN -13 ELSE CAST(amount AS BIGINT) END");
    lives.dies("figures-one", "decide.after:2");
    for _ in 0..2 {
        let said = lives.refused("figures-three", &[]);
        for want in ["cannot bring the state `tally` of the key `77` from version 1", "-13 is negative", "the checkpoint is as it was"] {
            assert!(said.contains(want), "{want} is not in\n{said}");
        }
    }
    // The first version goes on as if nothing had been.
    lives.ends("figures-one", &[]);
    assert_eq!(lives.check(), BTreeSet::from([1]));
}

#[test]
fn a_state_can_begin_anew() {
    let mut lives = Lives::new(50, 30_000, AMOUNT);
    lives.dies("figures-one", "decide.after:2");
    let drop = ["--drop-state", "Figures"];
    let (_, said) = lives.live("figures-four", Some("decide.after:2"), &drop);
    assert!(said.contains("dropped=\"Figures\""), "{said}");
    // Whoever starts it again by the same command drops nothing that has come since.
    let said = lives.ends("figures-four", &drop);
    assert!(said.contains("what has come since is kept") && said.contains("dropped=\"\""), "{said}");
    // Had anything been left of it, the first rows after the cut would count on.
    let of_four = json_rows(&lives.out()).into_iter().filter(|row| row["version"] == 4);
    let mut counts: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    of_four.for_each(|row| counts.entry(row["user"].to_string()).or_default().push(row["count"].as_i64().unwrap()));
    assert!(!counts.is_empty(), "the second life has read rows");
    for (user, mut counts) in counts {
        counts.sort_unstable();
        assert!(counts.iter().enumerate().all(|(number, count)| *count == number as i64 + 1), "{user}: {counts:?}");
    }
}

#[test]
fn a_plugin_says_what_it_keeps() {
    let component = root().join("tests/.cache/components/stateful.wasm");
    let said = run(&["plugin", "inspect", &component.display().to_string()]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("version 2, from 1"), "{}", said.out);
}
