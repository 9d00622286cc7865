//! A topic is deleted while a pipeline writes to it exactly once: the run stops and says so, and nothing is decided that was not written.
//!
//! A second topic gets the same rows in the same transactions, so it tells which rows were decided.

use crate::outages::{PATIENCE, World, generate};
use crate::support::{comes_to, records};
use pelton_tests::broker::Broker;
use rdkafka::Message;
use std::time::Duration;

/// Events a second: a run does not end before its topic is missed.
const RATE: u64 = 150;

/// A pipeline to two topics, one of which goes away.
struct Pair {
    world: World,
    kept: String,
}

impl Pair {
    fn new(broker: &Broker, gone: &str, source: &str, client: &str) -> Pair {
        let (world, kept) = (World::new(broker, gone, source), format!("{gone}-kept"));
        broker.topic(gone, 1);
        broker.topic(&kept, 1);
        let mut text = format!("pipeline:\n  transforms:\n    - {source}\n");
        for topic in [gone, &kept] {
            text += &format!(
                "    - {{type: WriteToKafka, name: {topic}, input: GenerateEvents, config: {{topic: {topic}, bootstrap_servers: '{}', format: JSON{client}}}}}\n",
                world.servers
            );
        }
        text += &format!("options: {{pelton: {{name: {gone}, checkpoint: {{interval: 200ms}}}}}}\n");
        std::fs::write(world.file(), text).unwrap();
        Pair { world, kept }
    }

    fn kept(&self) -> Vec<String> {
        let found = records(&self.world.servers, &self.kept, 1);
        let mut rows: Vec<String> =
            found.values().flatten().map(|record| String::from_utf8_lossy(record.payload().unwrap()).into_owned()).collect();
        rows.sort();
        rows
    }

    /// What was decided: nobody writes any more, but brokers may still be marking the last transaction.
    fn decided(&self) -> Vec<String> {
        let mut before = self.kept();
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let found = self.kept();
            if found == before {
                return found;
            }
            before = found;
        }
    }

    /// Starts once more, to the end. `decided`: the rows that counted when the run stopped; the topic that was made anew has all others.
    fn finish(&self, decided: &[String], expected: &Vec<String>) {
        self.world.hurry(RATE);
        let mut life = self.world.start();
        assert!(life.wait(PATIENCE).success(), "{}", life.said());
        comes_to(expected, || self.kept());
        let anew = self.world.rows();
        println!("decided={} anew={} of {}", decided.len(), anew.len(), expected.len());
        assert!(decided.len() < expected.len() && anew.windows(2).all(|rows| rows[0] != rows[1]));
        let lost = expected.iter().filter(|row| decided.binary_search(row).is_err() && anew.binary_search(row).is_err()).count();
        assert_eq!(lost, 0, "rows are in neither topic");
    }
}

#[test]
fn a_topic_that_is_deleted_while_it_is_written_stops_the_run_until_it_is_there_again() {
    let broker = Broker::shared();
    let (source, expected) = generate(4_000, RATE);
    // The client tells of undelivered records soon, or after minutes.
    for (topic, client) in [("deleted-soon", ", producer_config_updates: {message.timeout.ms: '1500'}"), ("deleted-late", "")] {
        let pair = Pair::new(&broker, topic, &source, client);
        let mut life = pair.world.start();
        pair.world.wait_for_checkpoints(&mut life);
        broker.delete_topic(topic);
        pair.world.check_stop(life, &[&format!("topic `{topic}`"), "was deleted while the pipeline wrote to it", "Create it again"]);
        let decided = pair.decided();
        pair.world.check_stop(pair.world.start(), &[&format!("topic `{topic}` does not exist"), "create it first"]);
        assert_eq!(pair.kept(), decided);
        broker.topic(topic, 1);
        pair.finish(&decided, &expected);
    }
}

#[test]
fn nor_is_a_topic_that_is_made_anew_taken_for_the_old_one() {
    let broker = Broker::shared();
    let (source, expected) = generate(6_000, RATE);
    let topic = "made-anew";
    let pair = Pair::new(&broker, topic, &source, "");
    let mut life = pair.world.start();
    pair.world.wait_for_checkpoints(&mut life);
    broker.delete_topic(topic);
    broker.topic(topic, 1);
    pair.world.check_stop(life, &[&format!("topic `{topic}`"), "was deleted and made anew while the pipeline wrote to it"]);
    pair.finish(&pair.decided(), &expected);
}
