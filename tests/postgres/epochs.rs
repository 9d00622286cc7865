//! Epochs: two sinks in the deciding database and one in another that follows.

use crate::support::{Life, Manifest, batch, config, ids, names, runtime};
use arrow::array::{ArrayRef, Int64Array};
use pelton_connect::{DecideError, Staged};
use pelton_core::{Batch, Epoch};
use pelton_tests::postgres::Server;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const TABLES: [&str; 3] = ["first", "second", "follower"];

struct World {
    server: Arc<Server>,
    databases: [String; 2],
    outbox: tempfile::TempDir,
    manifests: BTreeMap<Epoch, Manifest>,
}

impl World {
    fn new() -> World {
        let server = Server::shared();
        let databases = [server.database(), server.database()];
        World { server, databases, outbox: tempfile::tempdir().unwrap(), manifests: BTreeMap::new() }
    }

    fn database(&self, table: &str) -> &str {
        &self.databases[usize::from(table == "follower")]
    }

    fn targets(&self) -> Vec<(&'static str, Value)> {
        let target = |table| (table, config(self.server.port(), self.database(table), table, json!({"create": "if_missing"})));
        TABLES.into_iter().map(target).collect()
    }

    async fn start(&self, generation: u64) -> Life {
        Life::start(&self.targets(), &numbers(0..0).schema(), generation, self.outbox.path(), &self.manifests).await
    }

    fn check(&self, expected: &[(&str, &str)]) {
        for (table, rows) in expected {
            assert_eq!(ids(&self.server, self.database(table), table), *rows, "{table}");
        }
    }

    fn check_all(&self, rows: &str) {
        self.check(&TABLES.map(|table| (table, rows)));
    }
}

fn numbers(range: std::ops::Range<i64>) -> Batch {
    batch(vec![("id", Arc::new(Int64Array::from_iter_values(range)) as ArrayRef)])
}

#[test]
fn rows_of_an_epoch_are_there_once_whatever_dies() {
    runtime().block_on(async {
        let mut world = World::new();
        let mut life = world.start(1).await;
        assert_eq!(life.decided, None);
        assert_eq!(
            life.commits.decider.as_ref().unwrap().describe(),
            format!("PostgreSQL at 127.0.0.1:{}/{}", world.server.port(), world.databases[0])
        );
        assert_eq!(life.commits.committers.len(), 1);

        // An epoch shows itself at the decision, and at the follower's commit.
        life.write(&numbers(0..2)).await;
        let manifest = life.prepare(1).await;
        world.check_all("");
        life.write(&numbers(2..3)).await;
        life.decide(1).await.unwrap();
        world.check(&[("first", "0,1"), ("second", "0,1"), ("follower", "")]);
        life.commit(1, &manifest).await.unwrap();
        life.commit(1, &manifest).await.unwrap();
        life.decide(1).await.unwrap();
        world.check_all("0,1");
        world.manifests.insert(1, manifest);

        // Prepared and not decided: it never was.
        let lost = life.prepare(2).await;
        assert_eq!(names(world.outbox.path()).len(), 3);
        drop(life);
        let mut life = world.start(2).await;
        assert_eq!(life.decided, Some(pelton_core::Decision { generation: 1, manifest: u64::MAX - 1, ..life.decision(1) }));
        assert_eq!(names(world.outbox.path()), Vec::<String>::new());
        world.check_all("0,1");
        assert_ne!(lost["follower"], vec![Staged(b"[]".to_vec())]);

        // Decided and not committed: the next life commits it.
        life.write(&numbers(2..4)).await;
        let manifest = life.prepare(2).await;
        world.manifests.insert(2, manifest);
        life.decide(2).await.unwrap();
        world.check(&[("first", "0,1,2,3"), ("follower", "0,1")]);
        drop(life);
        drop(world.start(3).await);
        world.check_all("0,1,2,3");
        let mut life = world.start(4).await;
        world.check_all("0,1,2,3");

        // An epoch without rows is decided too, and a follower that lags behind catches up with the next.
        let manifest = life.prepare(3).await;
        life.decide(3).await.unwrap();
        life.commit(3, &manifest).await.unwrap();
        life.write(&numbers(4..5)).await;
        let manifest = life.prepare(4).await;
        life.decide(4).await.unwrap();
        life.write(&numbers(5..6)).await;
        let next = life.prepare(5).await;
        life.decide(5).await.unwrap();
        life.commit(5, &next).await.unwrap();
        life.commit(4, &manifest).await.unwrap();
        world.check_all("0,1,2,3,4,5");
        assert_eq!(names(world.outbox.path()), Vec::<String>::new());
        let rows = world.server.psql(&world.databases[0], "SELECT sink, generation, epoch, decided_by FROM pelton_epochs");
        assert_eq!(rows, "|4|5|4");
        assert_eq!(world.server.psql(&world.databases[1], "SELECT sink, generation, epoch FROM pelton_epochs"), "follower|4|5");
    });
}

#[test]
fn a_process_that_was_replaced_writes_nothing() {
    runtime().block_on(async {
        let mut world = World::new();
        let mut zombie = world.start(1).await;
        zombie.write(&numbers(0..1)).await;
        let stale = zombie.prepare(1).await;
        let mut life = world.start(2).await;
        assert!(matches!(zombie.decide(1).await, Err(DecideError::Fenced(message)) if message.contains("a later process of the pipeline orders-7f3a")));
        let error = zombie.commit(1, &stale).await.unwrap_err();
        assert!(error.to_string().contains("a later process"), "{error}");
        let Err(error) = Life::fence(&world.targets(), 1, world.outbox.path()).await else { panic!("an old generation got in") };
        assert!(error.to_string().contains("a later process"), "{error}");
        world.check_all("");
        life.write(&numbers(0..1)).await;
        let manifest = life.prepare(1).await;
        life.decide(1).await.unwrap();
        life.commit(1, &manifest).await.unwrap();
        world.check_all("0");
        world.manifests.insert(1, manifest);

        // A database that is ahead of the decisions is not written to: something was restored from a copy.
        world.server.psql(&world.databases[0], "UPDATE pelton_epochs SET epoch = 0");
        let mut life = Life::fence(&world.targets(), 3, world.outbox.path()).await.unwrap();
        assert_eq!(life.decided, None);
        let error = life.commits.committers[0].1.recover(0, &[]).await.unwrap_err();
        assert!(error.to_string().contains("has the rows of epoch 1 of this pipeline, but only epoch 0 is decided"), "{error}");
    });
}

#[test]
fn a_damaged_outbox_file_is_refused_and_nothing_of_it_applied() {
    runtime().block_on(async {
        let world = World::new();
        let mut life = world.start(1).await;
        life.write(&numbers(0..100_000)).await;
        let manifest = life.prepare(1).await;
        life.decide(1).await.unwrap();
        let [name] = &names(world.outbox.path())[..] else { panic!("one file of the follower") };
        let path = world.outbox.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        // The lowest bit of a number: PostgreSQL would take it.
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        for (bytes, reason) in [(&flipped[..], "its checksum is wrong"), (&whole[..100], "it has 100 bytes instead of")] {
            std::fs::write(&path, bytes).unwrap();
            let error = life.commit(1, &manifest).await.unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
            world.check(&[("follower", "")]);
        }
        std::fs::write(&path, &whole).unwrap();
        life.commit(1, &manifest).await.unwrap();
        assert_eq!(world.server.psql(&world.databases[1], "SELECT count(*), sum(id) FROM follower"), "100000|4999950000");
    });
}
