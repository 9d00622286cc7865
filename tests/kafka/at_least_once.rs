//! `delivery: at_least_once` by the binary: rows are visible as they come, none is lost by `kill -9`, and what a file holds is there once.

use crate::support::{Feeder, records};
use pelton_tests::broker::Broker;
use pelton_tests::life::{Life, newest_manifest};
use pelton_tests::pelton::wait_for;
use rdkafka::Message;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

const PARTITIONS: i32 = 2;
const PATIENCE: u64 = 60;

struct World<'a> {
    servers: String,
    folder: &'a Path,
    fed: i64,
    feeder: Feeder,
}

impl World<'_> {
    fn feed(&mut self, records: i64) {
        for id in self.fed..self.fed + records {
            let value = format!("{{\"id\": {id}}}");
            self.feeder.put("alo-in", (id % i64::from(PARTITIONS)) as i32, Some(value.as_bytes()), None, 1_767_225_600_000 + id);
        }
        self.feeder.flush();
        self.fed += records;
    }

    fn start(&self, delivery: &str, interval: &str) -> Life {
        let file = self.folder.join("pipeline.yaml");
        let text = format!(
            "pipeline:
  transforms:
    - type: ReadFromKafka
      name: Read
      config:
        topic: alo-in
        bootstrap_servers: '{servers}'
        format: JSON
        schema: {{type: object, properties: {{id: {{type: integer}}}}}}
        auto_offset_reset_config: earliest
    - {{type: WriteToKafka, name: Topic, input: Read, config: {{topic: alo-out, bootstrap_servers: '{servers}', format: JSON}}}}
    - {{type: WriteToJson, name: File, input: Read, config: {{path: '{folder}/out'}}}}
options:
  pelton: {{name: alo, delivery: {delivery}, checkpoint: {{interval: {interval}}}}}
",
            servers = self.servers,
            folder = self.folder.display(),
        );
        std::fs::write(&file, text).unwrap();
        let state = self.state();
        let arguments = ["run", file.to_str().unwrap(), "--state", &state, "--parallelism", "2", "--quiet"];
        Life::start(&arguments, &[], &self.folder.join("log"))
    }

    fn state(&self) -> String {
        self.folder.join("state").display().to_string()
    }

    /// How often each record is in the output topic.
    fn visible(&self) -> BTreeMap<i64, u64> {
        let mut times = BTreeMap::new();
        for record in records(&self.servers, "alo-out", PARTITIONS).values().flatten() {
            let row: Value = serde_json::from_slice(record.payload().unwrap()).unwrap();
            *times.entry(row["id"].as_i64().unwrap()).or_default() += 1;
        }
        times
    }

    fn wait_until_all_are_visible(&self, life: &mut Life) {
        wait_for("all records in the output", PATIENCE, || {
            assert!(life.ended().is_none(), "{}", life.said());
            (self.visible().len() as i64 == self.fed).then_some(())
        });
    }

    fn stop(&self, mut life: Life) {
        life.signal("TERM");
        assert!(life.wait(PATIENCE).success(), "{}", life.said());
    }
}

#[test]
fn rows_are_visible_at_once_and_a_kill_loses_none() {
    let broker = Broker::shared();
    broker.topic("alo-in", PARTITIONS);
    broker.topic("alo-out", PARTITIONS);
    let folder = tempfile::tempdir().unwrap();
    let servers = broker.servers();
    let feeder = Feeder::new(&servers, &[]);
    let mut world = World { servers, folder: folder.path(), fed: 0, feeder };

    // No checkpoint for a minute: rows are there all the same, and a kill repeats every one of them.
    world.feed(2_000);
    let mut life = world.start("at_least_once", "60s");
    world.wait_until_all_are_visible(&mut life);
    life.kill();
    assert_eq!(newest_manifest(&folder.path().join("state")), None);

    for _ in 0..3 {
        let before = newest_manifest(&folder.path().join("state"));
        let mut life = world.start("at_least_once", "100ms");
        wait_for("a checkpoint", PATIENCE, || {
            assert!(life.ended().is_none(), "{}", life.said());
            (newest_manifest(&folder.path().join("state")) > before).then_some(())
        });
        world.feed(1_000);
        life.kill();
    }
    let mut life = world.start("at_least_once", "100ms");
    world.wait_until_all_are_visible(&mut life);
    world.stop(life);
    let visible = world.visible();
    let repeated = visible.values().map(|times| times - 1).sum::<u64>();
    println!("kills=4 records={} lost={} duplicated={repeated}", world.fed, world.fed - visible.len() as i64);
    assert!(visible.keys().copied().eq(0..world.fed) && repeated >= 2_000);

    // After a stop in order the same pipeline goes on exactly once: a new decider knows where.
    world.feed(500);
    let mut life = world.start("exactly_once", "200ms");
    world.wait_until_all_are_visible(&mut life);
    world.stop(life);
    assert!(world.visible().range(world.fed - 500..).all(|(_, times)| *times == 1));
    let mut copies: Vec<i64> = Vec::new();
    for entry in std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.file_name().unwrap().to_string_lossy().starts_with("out-") {
            let text = std::fs::read_to_string(entry).unwrap();
            copies.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_i64().unwrap()));
        }
    }
    copies.sort_unstable();
    assert!(copies.iter().copied().eq(0..world.fed), "{} of {} rows in files", copies.len(), world.fed);
}
