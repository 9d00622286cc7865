//! Brokers that go away, topics that are deleted and transactions that others end, while the binary runs: it goes on by itself, or stops and says what to do.

use crate::support::{Feeder, comes_to, records};
use pelton_tests::broker::Broker;
use pelton_tests::life::{Life, newest_manifest};
use pelton_tests::pelton::{run, shards, wait_for};
use rdkafka::Message;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};
use std::path::PathBuf;
use std::time::Duration;

/// Seconds that no wait takes on a loaded machine.
pub const PATIENCE: u64 = 120;

/// A pipeline to a topic, in a folder of its own.
pub struct World {
    pub servers: String,
    folder: tempfile::TempDir,
    topic: String,
}

impl World {
    pub fn new(broker: &Broker, topic: &str, source: &str) -> World {
        let world = World { servers: broker.servers(), folder: tempfile::tempdir().unwrap(), topic: topic.into() };
        let text = format!(
            "pipeline:
  type: chain
  transforms:
    - {source}
    - type: WriteToKafka
      config: {{topic: {topic}, bootstrap_servers: '{servers}', format: JSON, producer_config_updates: {{message.timeout.ms: '3000'}}}}
options: {{pelton: {{name: {topic}, checkpoint: {{interval: 200ms}}}}}}
",
            servers = world.servers,
        );
        std::fs::write(world.file(), text.replace("SERVERS", &world.servers)).unwrap();
        world
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("pipeline.yaml")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn start(&self) -> Life {
        let (file, state) = (self.file(), self.state());
        let arguments = ["run", file.to_str().unwrap(), "--state", state.to_str().unwrap(), "--parallelism", "1", "--quiet"];
        Life::start(&arguments, &[], &self.folder.path().join("log"))
    }

    /// What readers of committed records see.
    pub fn rows(&self) -> Vec<String> {
        let found = records(&self.servers, &self.topic, 1);
        let mut rows: Vec<String> =
            found.values().flatten().map(|record| String::from_utf8_lossy(record.payload().unwrap()).into_owned()).collect();
        rows.sort();
        rows
    }

    /// From now on the events come as fast as they can; they are the same.
    pub fn hurry(&self, rate: u64) {
        let text = std::fs::read_to_string(self.file()).unwrap();
        std::fs::write(self.file(), text.replace(&format!(", rate: {rate}"), "")).unwrap();
    }

    pub fn wait_for_checkpoints(&self, life: &mut Life) {
        let epoch = |newest: Option<(u64, u64)>| newest.map_or(0, |(epoch, _)| epoch);
        let before = epoch(newest_manifest(&self.state()));
        wait_for("checkpoints", PATIENCE, || {
            assert!(life.ended().is_none(), "{}", life.said());
            (epoch(newest_manifest(&self.state())) >= before + 2).then_some(())
        });
    }

    /// Says what a life that has ended said, which must be no crash, and must have these words.
    pub fn check_stop(&self, mut life: Life, words: &[&str]) {
        let status = life.wait(PATIENCE);
        let said = life.said();
        println!("{status}\n{said}");
        assert!(!status.success() && status.code().is_some() && !said.contains("panicked") && !said.contains("internal"), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "not all of {words:?} in: {said}");
    }
}

/// Purchases at a pace; those that a file gets are what the topic must have.
pub fn generate(count: u64, rate: u64) -> (String, Vec<String>) {
    let source = |rate: String| format!("{{type: GenerateEvents, config: {{kind: transactions, count: {count}, interval: 1ms{rate}}}}}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plain.yaml");
    let sink = format!("{{type: WriteToJson, config: {{path: '{}/rows'}}}}", folder.path().display());
    std::fs::write(&file, format!("pipeline:\n  type: chain\n  transforms:\n    - {}\n    - {sink}\n", source(String::new()))).unwrap();
    assert_eq!(run(&["run", file.to_str().unwrap(), "--quiet"]).code, 0);
    let mut rows: Vec<String> = shards(&folder.path().join("rows")).iter().flat_map(|text| text.lines().map(str::to_string)).collect();
    rows.sort();
    (source(format!(", rate: {rate}")), rows)
}

/// Down for a moment, and then for longer than the client goes on trying to deliver.
#[test]
fn a_broker_that_goes_away_and_comes_back_loses_and_repeats_nothing() {
    let mut broker = Broker::start();
    broker.topic("away", 1);
    let (source, expected) = generate(6_000, 300);
    let world = World::new(&broker, "away", &source);
    let mut life = world.start();
    world.wait_for_checkpoints(&mut life);
    broker.kill();
    broker.restart();
    world.wait_for_checkpoints(&mut life);
    broker.kill();
    wait_for("a restart inside the process", PATIENCE, || {
        assert!(life.ended().is_none(), "{}", life.said());
        life.said().contains("goes on from its last checkpoint").then_some(())
    });
    // And a start that finds nobody.
    let said = life.said().len();
    wait_for("another one", PATIENCE, || life.said()[said..].contains("goes on from its last checkpoint").then_some(()));
    broker.restart();
    let status = life.wait(PATIENCE);
    println!("{}", life.said());
    assert!(status.success() && !life.said().contains("panicked"), "{}", life.said());
    comes_to(&expected, || world.rows());
}

#[test]
fn a_topic_that_is_deleted_while_it_is_read_stops_the_run() {
    let broker = Broker::shared();
    broker.topic("deleted-input", 1);
    broker.topic("deleted-input-out", 1);
    let feeder = Feeder::new(&broker.servers(), &[]);
    let feed = |value: &str| {
        feeder.put("deleted-input", 0, Some(value.as_bytes()), None, 1_767_225_600_000);
        feeder.flush();
    };
    feed("a");
    let source = "{type: ReadFromKafka, config: {topic: deleted-input, bootstrap_servers: 'SERVERS', format: STRING, auto_offset_reset_config: earliest}}";
    let world = World::new(&broker, "deleted-input-out", source);
    let life = world.start();
    wait_for("the first row", PATIENCE, || (world.rows().len() == 1).then_some(()));
    broker.delete_topic("deleted-input");
    world.check_stop(life, &["topic deleted-input was deleted while it was read", "help: "]);
    // A topic of the same name is not the one that was read.
    broker.topic("deleted-input", 1);
    world.check_stop(
        world.start(),
        &["topic deleted-input was deleted and made anew since it was read", "partition 0", "on_offset_out_of_range"],
    );
    assert_eq!(world.rows().len(), 1);
}

/// Somebody else begins with the pipeline's transactional ids, which ends its transactions. Nobody has taken it over, so it goes on.
#[test]
fn transactions_that_are_fenced_by_a_stranger_are_made_anew() {
    let broker = Broker::shared();
    broker.topic("stranger", 1);
    let (source, expected) = generate(4_000, 200);
    let world = World::new(&broker, "stranger", &source);
    let mut life = world.start();
    world.wait_for_checkpoints(&mut life);
    let identity = std::fs::read_to_string(world.state().join("checkpoints/identity")).unwrap();
    let (_, rest) = identity.split_once("\"incarnation\": \"").expect("an incarnation");
    let incarnation = rest.split('"').next().unwrap();
    for slot in ["a", "b"] {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", &world.servers).set("transactional.id", format!("pelton.stranger.{incarnation}.{slot}"));
        let stranger: BaseProducer = settings.create().unwrap();
        stranger.init_transactions(Duration::from_secs(PATIENCE)).unwrap();
    }
    let status = life.wait(PATIENCE);
    println!("{}", life.said());
    assert!(status.success() && life.said().contains("goes on from its last checkpoint"), "{}", life.said());
    comes_to(&expected, || world.rows());
}
