//! Connections that are cut, and servers that go away.

use crate::proxy::{Cut, Proxy};
use crate::support::{Life, batch, config, ids, runtime, sink};
use arrow::array::{ArrayRef, Int64Array};
use pelton_connect::DecideError;
use pelton_core::{Batch, Instant};
use pelton_tests::pelton::wait_for;
use pelton_tests::postgres::Server;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A database behind a proxy, which must be able to read what passes.
fn plain(port: u16, database: &str) -> Value {
    config(port, database, "t", json!({"create": "if_missing", "connection_properties": "sslmode=disable"}))
}

fn numbers(range: std::ops::Range<i64>) -> Batch {
    batch(vec![("id", Arc::new(Int64Array::from_iter_values(range)) as ArrayRef)])
}

#[test]
fn a_commit_whose_answer_is_lost_is_unknown_and_the_fence_tells() {
    let server = Server::shared();
    for (cut, decided, rows) in [(Cut::BeforeCommit, 1, "0"), (Cut::AfterCommit, 2, "0,1")] {
        runtime().block_on(async {
            let (database, outbox) = (server.database(), tempfile::tempdir().unwrap());
            let proxy = Proxy::start(server.port());
            let targets = |port| [("t", plain(port, &database))];
            let (schema, none) = (numbers(0..0).schema(), BTreeMap::new());
            let mut life = Life::start(&targets(proxy.port), &schema, 1, outbox.path(), &none).await;
            life.write(&numbers(0..1)).await;
            life.prepare(1).await;
            life.decide(1).await.unwrap();
            life.write(&numbers(1..2)).await;
            life.prepare(2).await;
            proxy.cut(cut);
            assert!(matches!(life.decide(2).await, Err(DecideError::Unknown(message)) if message.contains("cannot commit an epoch")));
            let mut life = Life::start(&targets(server.port()), &schema, 2, outbox.path(), &none).await;
            assert_eq!(life.decided.as_ref().map(|decision| decision.epoch), Some(decided));
            assert_eq!(ids(&server, &database, "t"), rows);
            // Made anew where it was lost; the table ends the same.
            if decided == 1 {
                life.write(&numbers(1..2)).await;
            }
            life.prepare(decided + 1).await;
            life.decide(decided + 1).await.unwrap();
            assert_eq!(ids(&server, &database, "t"), "0,1");
        });
    }
}

/// A process that hangs inside its transaction is not waited for.
#[test]
fn a_transaction_that_hangs_is_ended_by_the_next_process() {
    let server = Server::shared();
    runtime().block_on(async {
        let (database, outbox) = (server.database(), tempfile::tempdir().unwrap());
        let proxy = Proxy::start(server.port());
        let targets = |port| [("t", plain(port, &database))];
        let (schema, none) = (numbers(0..0).schema(), BTreeMap::new());
        let mut zombie = Life::start(&targets(proxy.port), &schema, 1, outbox.path(), &none).await;
        zombie.write(&numbers(0..1)).await;
        zombie.prepare(1).await;
        proxy.cut(Cut::Hang);
        let hanging = tokio::spawn(async move { zombie.decide(1).await });
        // Not sooner: a transaction that is ended before its commit is known to be undone.
        tokio::task::block_in_place(|| wait_for("the commit hangs", 120, || (proxy.cuts() > 0).then_some(())));
        let direct = targets(server.port());
        // Without it the server itself would end the session after a minute.
        let starting = Life::start(&direct, &schema, 2, outbox.path(), &none);
        let life = tokio::time::timeout(std::time::Duration::from_secs(50), starting).await.expect("nobody waits for the zombie");
        assert_eq!(life.decided, None);
        assert!(matches!(hanging.await.unwrap(), Err(DecideError::Unknown(_))));
        assert_eq!(ids(&server, &database, "t"), "");
    });
}

/// A follower asks the row of the epoch when the answer to its commit is lost; a sink without checkpoints writes again.
#[test]
fn a_follower_repairs_a_lost_answer_by_itself() {
    let server = Server::shared();
    runtime().block_on(async {
        let (databases, outbox) = ([server.database(), server.database()], tempfile::tempdir().unwrap());
        let proxy = Proxy::start(server.port());
        let targets = [("a", plain(server.port(), &databases[0])), ("b", plain(proxy.port, &databases[1]))];
        let mut life = Life::start(&targets, &numbers(0..0).schema(), 1, outbox.path(), &BTreeMap::new()).await;
        for (epoch, cut) in [(1, Cut::AfterCommit), (2, Cut::BeforeCommit)] {
            life.write(&numbers(epoch..epoch + 1)).await;
            let manifest = life.prepare(epoch as u64).await;
            life.decide(epoch as u64).await.unwrap();
            let before = proxy.cuts();
            proxy.cut(cut);
            std::thread::scope(|scope| {
                // The proxy lets the second attempt or a later one through.
                scope.spawn(|| {
                    wait_for("the proxy cuts", 120, || (proxy.cuts() > before).then_some(()));
                    proxy.cut(Cut::Never);
                });
                tokio::task::block_in_place(|| {
                    tokio::runtime::Handle::current().block_on(life.commit(epoch as u64, &manifest)).unwrap();
                });
            });
        }
        assert_eq!(ids(&server, &databases[1], "t"), "1,2");
    });
}

#[test]
fn a_server_that_comes_back_is_used_again() {
    let mut server = Server::start();
    let database = server.database();
    let outbox = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let at = |table: &str| config(server.port(), &database, table, json!({"create": "if_missing"}));
    let (once, direct) = (at("once"), at("direct"));
    let (mut life, mut plain) = runtime.block_on(async {
        let schema = numbers(0..0).schema();
        let mut life = Life::start(&[("t", once)], &schema, 1, outbox.path(), &BTreeMap::new()).await;
        let mut plain = sink(&direct, schema).await.unwrap();
        life.write(&numbers(0..1)).await;
        life.prepare(1).await;
        life.decide(1).await.unwrap();
        plain.write(&numbers(0..1)).await.unwrap();
        plain.tick(Instant::from_micros_saturating(0)).await.unwrap();
        (life, plain)
    });
    server.psql(&database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pelton'");
    runtime.block_on(async {
        life.write(&numbers(1..2)).await;
        life.prepare(2).await;
        life.decide(2).await.unwrap();
        plain.write(&numbers(1..2)).await.unwrap();
        plain.tick(Instant::from_micros_saturating(0)).await.unwrap();
    });
    server.crash();
    runtime.block_on(async {
        life.write(&numbers(2..3)).await;
        life.prepare(3).await;
        plain.write(&numbers(2..3)).await.unwrap();
    });
    let deciding = runtime.spawn(async move { life.decide(3).await });
    server.up();
    runtime.block_on(async {
        deciding.await.unwrap().unwrap();
        plain.finish().await.unwrap();
    });
    assert_eq!(ids(&server, &database, "once"), "0,1,2");
    assert_eq!(ids(&server, &database, "direct"), "0,1,2");
}
