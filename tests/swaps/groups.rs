//! Aggregates of plugins in groupings, swapped under load: each value is added once, by exactly the version that the recorded cuts say.
//!
//! Two groupings read the same records: `Sums` has two aggregates of a plugin for each user and stretch of records, `Spread` has one for each stretch, whose
//! rows are aggregated in two steps (`fanout`). An aggregate tells its sum and how many values each version has added, so that what comes of a group is
//! the result of a loop over the records and the list of swaps. Windows are stretches of record numbers, and so do not depend on the clock.
//!
//! Groups live through several swaps: of one aggregate, of two groupings at once, of a config, and back. Lives are killed between them. The last
//! version keeps its accumulators as texts: there is no way back from it, and those of the others are migrated.

use crate::feed::{Feeder, PARTITIONS, Record};
use crate::{PATIENCE, component, run};
use pelton_tests::broker::{Broker, read_committed};
use pelton_tests::life::{Life, newest_progress};
use pelton_tests::numbers::Numbers;
use pelton_tests::pelton::{Said, wait_for};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

const INPUT: &str = "input-of-groups";
const OUTPUT: &str = "groups";
/// Records of a window: about two seconds of them.
const STRETCH: i64 = 2_000;
/// Event time that the watermark stays behind, in records.
const DELAY: i64 = 1_000;
/// What is swapped, as the history names it.
const NAMES: [&str; 3] = ["Sums.one", "Sums.two", "Spread.tally"];

/// What an aggregate is: which of the three plugins, and what it adds to each value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    plugin: usize,
    plus: i64,
}

/// Of all that are swapped.
type Versions = [Version; 3];

const FIRST: Versions = [Version { plugin: 0, plus: 0 }; 3];
const PLUGINS: [&str; 3] = ["counting", "counting-next", "counting-far"];

/// What came of it.
pub struct Told {
    pub made: u64,
    pub records: usize,
    pub groups: usize,
    /// Groups to which more than one version has added.
    pub mixed: usize,
    pub wrong: Vec<String>,
}

struct Groups<'a> {
    folder: &'a std::path::Path,
    servers: String,
    numbers: Numbers,
    versions: Versions,
    made: u64,
    lives: u64,
}

/// Swaps so often, and then to the last version.
pub fn swap_aggregates(broker: &Broker, folder: &std::path::Path, swaps: u64, rate: u64, seed: u64) -> Told {
    for topic in [INPUT, OUTPUT] {
        broker.topic_with(topic, PARTITIONS, &[("retention.ms", "-1")]);
    }
    let mut test = Groups { folder, servers: broker.servers(), numbers: Numbers::new(seed), versions: FIRST, made: 0, lives: 0 };
    let feeder = Feeder::start(&test.servers, INPUT, rate, seed);
    let mut life = test.start();
    test.refusals();
    for number in 0..swaps {
        test.swap(number, &life);
        if number % 4 == 3 {
            life.kill();
            life = test.start();
        }
    }
    test.last(&life);
    life.kill();
    life = test.start();
    // Records for the last version, after its death.
    let sent = feeder.sent();
    wait_for("more records", PATIENCE, || (feeder.sent() > sent + 3 * STRETCH as usize).then_some(()));
    test.no_way_back();
    let records = feeder.finish();
    test.finish(&records, &mut life)
}

impl Groups<'_> {
    fn state(&self) -> PathBuf {
        self.folder.join("state-of-groups")
    }

    fn start(&mut self) -> Life {
        self.lives += 1;
        let file = self.folder.join("groups.yaml");
        std::fs::write(&file, self.pipeline()).expect("the pipeline is written");
        let (state, parallelism) = (self.state().display().to_string(), self.numbers.between(1, 3).to_string());
        let before = newest_progress(&self.state());
        let arguments = ["run", file.to_str().unwrap(), "--state", &state, "--parallelism", &parallelism, "--quiet"];
        let mut life = Life::start(&arguments, &[], &self.folder.join(format!("log-of-groups-{}", self.lives)));
        wait_for("a life takes the pipeline", PATIENCE, || {
            assert!(life.ended().is_none(), "a life ended at its start\n{}", life.said());
            let listens = || UnixStream::connect(self.state().join("control.sock")).is_ok();
            (newest_progress(&self.state()) > before && listens()).then_some(())
        });
        life
    }

    fn pipeline(&self) -> String {
        format!(
            "pipeline:
  transforms:
    - type: ReadFromKafka
      config:
        topic: {INPUT}
        bootstrap_servers: '{servers}'
        format: JSON
        schema: {{type: object, properties: {{id: {{type: integer}}, user: {{type: string}}, number: {{type: integer}}}}}}
        auto_offset_reset_config: earliest
    - {{type: AssignTimestamps, input: ReadFromKafka, config: {{timestamp: id, unit: ms}}}}
    - type: MapToFields
      name: Rows
      input: AssignTimestamps
      config: {{language: sql, append: true, fields: {{stretch: id / {STRETCH}}}}}
    - type: Combine
      name: Sums
      input: Rows
      windowing: {{type: fixed, size: {STRETCH}ms}}
      config:
        group_by: [user, stretch]
        combine: {{one: {{value: number, fn: {{type: Tally}}}}, n: count, two: {{value: number, fn: {{type: Tally}}}}}}
    - type: Combine
      name: Spread
      input: Rows
      windowing: {{type: fixed, size: {STRETCH}ms}}
      config: {{group_by: stretch, fanout: 2, combine: {{tally: {{value: number, fn: {{type: Tally}}}}, n: count}}}}
    - type: MapToFields
      name: Whole
      input: Spread
      config: {{language: sql, fields: {{user: \"'all'\", stretch: stretch, one: tally, n: n, two: tally}}}}
    - {{type: Flatten, input: [Sums, Whole]}}
    - {{type: WriteToKafka, input: Flatten, config: {{topic: {OUTPUT}, bootstrap_servers: '{servers}', format: JSON}}}}
providers:
  - {{type: wasm, config: {{plugin: '{plugin}'}}, transforms: {{Tally: tally}}}}
options:
  pelton:
    name: groups
    checkpoint: {{interval: 500ms}}
    watermark: {{delay: {DELAY}ms, idle_timeout: 1h}}
",
            servers = self.servers,
            plugin = component(PLUGINS[0]).display(),
        )
    }

    fn ask(&self, what: &str, arguments: &[&str]) -> Said {
        let state = self.state().display().to_string();
        let all = [&["plugin", what, &*state], arguments, &["--output", "json"]].concat();
        run(&all.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    /// What cannot be asked for, and what is only tried.
    fn refusals(&self) {
        let (next, far) = (file(1), file(2));
        for (arguments, why) in [
            (vec!["Sums", &next], "`Sums` has several aggregates of plugins; name one of `Sums.one`, `Sums.two`"),
            (vec!["Sums.n", &next], "the pipeline has no transform `Sums.n`"),
            (vec!["Rows", &next], "has no plugin"),
            (vec!["Sums.two", &far], "there would be no way back"),
            (vec!["Spread", "--config", "{\"minus\": 1}"], "minus"),
        ] {
            let said = self.ask("swap", &arguments);
            assert!(said.code != 0 && said.err.contains(why), "{arguments:?}: {said:?}");
        }
        let said = self.ask("canary", &["Spread", &next, "--seconds", "1"]);
        assert!(said.code != 0 && said.err.contains("no candidate can stand beside its aggregates"), "{said:?}");
        // The first records take their time.
        let trial = wait_for("a trial with rows", PATIENCE, || {
            let said = self.ask("swap", &["Sums.one", &next, "--dry-run"]);
            assert!(said.code == 0, "{said:?}");
            let tried: Value = serde_json::from_str(said.out.trim()).expect("a trial is told as JSON");
            Some(tried["trials"][0].clone()).filter(|trial| trial["rows"] != 0)
        });
        assert!(trial["transform"] == "Sums" && trial["out"].as_u64().unwrap() > 0 && self.history().is_empty(), "{trial}");
    }

    fn swap(&mut self, number: u64, life: &Life) {
        let mut to = self.versions;
        let plus = |version: &mut Version| {
            version.plus = if version.plus == 0 { 100 } else { 0 };
            json!({"plus": version.plus}).to_string()
        };
        let other = |version: &mut Version| {
            version.plugin = 1 - version.plugin;
            file(version.plugin)
        };
        let (what, arguments): (&str, Vec<String>) = match number % 6 {
            0 => ("swap", vec!["Sums.one".into(), other(&mut to[0])]),
            // It has one aggregate of a plugin, which need not be named.
            1 => ("swap", vec!["Spread".into(), other(&mut to[2])]),
            2 => {
                let (two, tally) = (other(&mut to[1]), other(&mut to[2]));
                ("swap", vec!["Sums.two".into(), two, "--and".into(), format!("Spread.tally={tally}")])
            }
            3 => ("swap", vec!["Sums.one".into(), "--config".into(), plus(&mut to[0])]),
            4 => {
                plus(&mut to[0]);
                ("rollback", vec!["Sums.one".into()])
            }
            _ => ("swap", vec!["Spread".into(), "--config".into(), plus(&mut to[2])]),
        };
        self.make(what, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), to, life);
    }

    /// To accumulators of another version.
    fn last(&mut self, life: &Life) {
        let mut to = self.versions;
        (to[1].plugin, to[2].plugin) = (2, 2);
        let far = file(2);
        let made = self.make("swap", &["Sums.two", &far, "--and", &format!("Spread={far}"), "--irreversible"], to, life);
        let cells = |trial: &Value| trial["cells"].as_u64().unwrap();
        assert!(made["trials"].as_array().unwrap().iter().map(cells).sum::<u64>() > 0, "{made}");
    }

    fn make(&mut self, what: &str, arguments: &[&str], to: Versions, life: &Life) -> Value {
        let said = self.ask(what, arguments);
        assert_eq!(said.code, 0, "{arguments:?}\n{}{}", said.err, life.said());
        let made: Value = serde_json::from_str(said.out.trim()).expect("a swap is told as JSON");
        self.made += 1;
        assert_eq!(made["number"], self.made, "{made}");
        self.versions = to;
        made
    }

    /// The first version knows nothing of the last one's accumulators; that is known before anything happens.
    fn no_way_back(&self) {
        let said = self.ask("rollback", &["Spread"]);
        assert!(said.code != 0 && said.err.contains("the new version of `Spread` cannot go on with the state of the old one"), "{said:?}");
        assert_eq!(self.history().len() as u64, self.made);
    }

    fn history(&self) -> Vec<Value> {
        let said = self.ask("history", &[]);
        assert_eq!(said.code, 0, "{}", said.err);
        serde_json::from_str::<Value>(said.out.trim()).expect("the history is JSON").as_array().expect("a list").clone()
    }

    fn finish(&self, records: &[Record], life: &mut Life) -> Told {
        let cuts = cuts(&self.history());
        assert_eq!(cuts.last().map(|(_, versions)| *versions), Some(self.versions), "the history says what runs");
        let (expected, mixed) = expected(records, &cuts);
        let last = (0..PARTITIONS).filter_map(|partition| records.iter().rev().find(|record| record.partition == partition));
        let watermark = last.map(|record| record.id).min().unwrap() - DELAY;
        let fires = |stretch: i64| (stretch + 1) * STRETCH <= watermark;
        let due = expected.keys().filter(|(_, stretch)| fires(*stretch)).count();
        let rows = wait_for("all windows that are over have fired", 5 * PATIENCE, || {
            assert!(life.ended().is_none(), "the last life ended by itself\n{}", life.said());
            let rows = read_committed(&self.servers, OUTPUT, PARTITIONS);
            (rows.len() >= due).then_some(rows)
        });
        let mut wrong = Vec::new();
        let mut seen: HashMap<(String, i64), &Value> = HashMap::new();
        for row in &rows {
            let key = (row["user"].as_str().unwrap().to_string(), row["stretch"].as_i64().unwrap());
            if expected.get(&key) != Some(row) {
                wrong.push(format!("{row}, expected {:?}", expected.get(&key).map(Value::to_string)));
            }
            if seen.insert(key, row).is_some() {
                wrong.push(format!("twice: {row}"));
            }
        }
        let lost = expected.iter().filter(|(key, _)| fires(key.1) && !seen.contains_key(*key));
        wrong.extend(lost.map(|(_, row)| format!("lost: {row}")));
        Told { made: self.made, records: records.len(), groups: rows.len(), mixed, wrong }
    }
}

fn file(plugin: usize) -> String {
    component(PLUGINS[plugin]).display().to_string()
}

/// From old to new: the first offset by partition, and what runs from there on.
fn cuts(history: &[Value]) -> Vec<(BTreeMap<i32, i64>, Versions)> {
    // Plugins by who had them first.
    let mut digests: Vec<Value> = Vec::new();
    let mut number = |digest: &Value| {
        let known = digests.iter().position(|known| known == digest);
        known.unwrap_or_else(|| {
            digests.push(digest.clone());
            digests.len() - 1
        })
    };
    let (mut cuts, mut versions) = (Vec::new(), FIRST);
    for made in history {
        for change in made["changes"].as_array().unwrap() {
            number(&change["base"]["plugin"]);
            let place = NAMES.iter().position(|name| change["transform"] == *name).expect("an aggregate");
            let to = &change["to"];
            versions[place] = Version { plugin: number(&to["plugin"]), plus: to["config"]["plus"].as_i64().unwrap_or(0) };
        }
        cuts.push((crate::model::offsets(made), versions));
    }
    cuts
}

/// What comes of all groups, by user and stretch, and to how many of them more than one version has added.
fn expected(records: &[Record], cuts: &[(BTreeMap<i32, i64>, Versions)]) -> (BTreeMap<(String, i64), Value>, usize) {
    // Of an aggregate: its sum, and how many values each version has added.
    type Tally = [i64; 4];
    let mut groups: BTreeMap<(String, i64), (i64, [Tally; 2])> = BTreeMap::new();
    for record in records {
        let after = |cut: &BTreeMap<i32, i64>| record.offset >= cut.get(&record.partition).copied().unwrap_or(0);
        let versions = cuts.iter().rev().find(|(cut, _)| after(cut)).map_or(FIRST, |(_, versions)| *versions);
        let stretch = record.id / STRETCH;
        for (user, [one, two]) in [(record.user.as_str(), [versions[0], versions[1]]), ("all", [versions[2]; 2])] {
            let (rows, tallies) = groups.entry((user.to_string(), stretch)).or_default();
            *rows += 1;
            for (tally, version) in tallies.iter_mut().zip([one, two]) {
                tally[0] += record.number + version.plus;
                tally[1 + version.plugin] += 1;
            }
        }
    }
    let is_mixed = |tallies: &[Tally; 2]| tallies.iter().any(|tally| tally[1..].iter().filter(|rows| **rows > 0).count() > 1);
    let mixed = groups.values().filter(|(_, tallies)| is_mixed(tallies)).count();
    let told = |tally: &Tally| tally.map(|number| number.to_string()).join(" ");
    let row = |((user, stretch), (rows, [one, two])): ((String, i64), (i64, [Tally; 2]))| {
        let row = json!({"user": user, "stretch": stretch, "one": told(&one), "n": rows, "two": told(&two)});
        ((user, stretch), row)
    };
    (groups.into_iter().map(row).collect(), mixed)
}
