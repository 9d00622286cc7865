//! Exactly once: what readers of committed records see, whatever happens between two barriers and a decision.

use crate::epochs::Who;
use crate::proxy::{Loss, Proxy};
use crate::support::{Feeder, PATIENCE, comes_to, records, runtime};
use pelton_connect::{ConnectError, DecideError};
use pelton_tests::broker::{Broker, Detour, free_ports};
use rdkafka::Message;
use rdkafka::producer::Producer;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::time::Duration;

#[test]
fn output_is_visible_once_it_is_decided_and_not_before() {
    let broker = Broker::shared();
    broker.topic("visible", 1);
    broker.topic("visible-too", 1);
    let who = Who::new(&broker.servers(), "visible-7f", &["visible", "visible-too"]);
    let seen = |topic: &str| who.visible(&broker.servers(), topic, 1);
    runtime().block_on(async {
        let mut life = who.begin(1).await;
        assert_eq!(life.found, None);
        life.write(0, &[1, 2]).await.unwrap();
        life.write(1, &[3]).await.unwrap();
        life.prepare(false).await.unwrap();
        assert_eq!([seen("visible"), seen("visible-too")], [Vec::<i64>::new(), Vec::new()]);
        // The next epoch fills while this one is undecided.
        life.write(0, &[4]).await.unwrap();
        life.decide().await.unwrap();
        comes_to(&[vec![1, 2], vec![3]], || [seen("visible"), seen("visible-too")]);
        life.prepare(false).await.unwrap();
        life.decide().await.unwrap();
        comes_to(&vec![1, 2, 4], || seen("visible"));
        // Epochs without records are decided as well.
        for _ in 0..3 {
            life.prepare(false).await.unwrap();
            life.decide().await.unwrap();
        }
        life.write(1, &[5]).await.unwrap();
        life.prepare(true).await.unwrap();
        life.decide().await.unwrap();
        comes_to(&[vec![1, 2, 4], vec![3, 5]], || [seen("visible"), seen("visible-too")]);
        let expected = life.decision(6);
        drop(life);
        assert_eq!(who.begin(2).await.found, Some(expected));
    });
}

#[test]
fn what_a_crash_leaves_undecided_is_never_seen() {
    let broker = Broker::shared();
    broker.topic("crash", 2);
    for (number, interval) in [Duration::from_secs(1), Duration::from_millis(100)].into_iter().enumerate() {
        let who = Who { interval, ..Who::new(&broker.servers(), &format!("crash-{number}"), &["crash"]) };
        let base = number as i64 * 1_000;
        runtime().block_on(async {
            let mut life = who.begin(1).await;
            life.epoch(&[base + 1]).await;
            life.write(0, &[base + 2]).await.unwrap();
            life.prepare(false).await.unwrap();
            life.write(0, &[base + 3]).await.unwrap();
            // Neither aborted nor finished: as if the process had died.
            drop(life);
            let mut next = who.begin(2).await;
            assert_eq!(next.found.as_ref().map(|decision| decision.epoch), Some(1));
            next.epoch(&[base + 20]).await;
            next.epoch(&[base + 30]).await;
        });
    }
    comes_to(&vec![1, 20, 30, 1_001, 1_020, 1_030], || {
        let mut seen = Who::new("", "", &[]).visible(&broker.servers(), "crash", 2);
        seen.sort_unstable();
        seen
    });
}

#[test]
fn an_earlier_process_is_fenced_and_what_it_wrote_is_never_seen() {
    let broker = Broker::shared();
    broker.topic("zombie", 1);
    for (number, interval) in [Duration::from_secs(1), Duration::from_millis(100)].into_iter().enumerate() {
        let who = Who { interval, ..Who::new(&broker.servers(), &format!("zombie-{number}"), &["zombie"]) };
        let base = number as i64 * 1_000;
        runtime().block_on(async {
            let mut zombie = who.begin(1).await;
            zombie.epoch(&[base + 1]).await;
            zombie.write(0, &[base + 2]).await.unwrap();
            zombie.prepare(false).await.unwrap();
            // The successor knows nothing of the zombie's generation, as on a copy of its state.
            let mut successor = who.begin(1).await;
            assert_eq!(successor.found, Some(zombie.decision(1)));
            successor.write(0, &[base + 20]).await.unwrap();
            let fenced = |decided: Result<(), DecideError>| match decided {
                Err(DecideError::Fenced(message)) => assert!(message.contains("taken over"), "{message}"),
                other => panic!("{other:?}"),
            };
            fenced(zombie.decide().await);
            assert!(matches!(zombie.write(0, &[base + 3]).await, Err(ConnectError::Fenced { .. })));
            assert!(matches!(zombie.prepare(false).await, Err(ConnectError::Fenced { .. })));
            successor.prepare(false).await.unwrap();
            successor.decide().await.unwrap();
            // A zombie that writes before it decides hears it then.
            let mut other = who.begin(3).await;
            match successor.write(0, &[base + 21]).await {
                Ok(()) => {
                    let prepared = successor.prepare(false).await;
                    assert!(matches!(prepared, Err(ConnectError::Fenced { .. })), "{prepared:?}");
                }
                Err(error) => assert!(matches!(error, ConnectError::Fenced { .. }), "{error:?}"),
            }
            other.epoch(&[base + 30]).await;
        });
    }
    comes_to(&vec![1, 20, 30, 1_001, 1_020, 1_030], || Who::new("", "", &[]).visible(&broker.servers(), "zombie", 1));
}

#[test]
fn a_transaction_that_the_broker_ends_is_undecided_and_recovery_goes_on_from_the_epoch_before() {
    let broker = Broker::shared();
    broker.topic("ended", 1);
    let who = Who::new(&broker.servers(), "ended", &["ended"]);
    runtime().block_on(async {
        let mut life = who.begin(1).await;
        life.epoch(&[1]).await;
        life.write(0, &[2]).await.unwrap();
        life.prepare(false).await.unwrap();
        // To the producer this is what a timeout is: the broker aborts the transaction and raises the producer's epoch.
        let stranger = Feeder::new(&broker.servers(), &[("transactional.id", "pelton.ended.a")]);
        stranger.producer().init_transactions(PATIENCE).unwrap();
        match life.decide().await {
            Err(DecideError::Undecided(error)) => {
                assert!(error.is_transient() && error.to_string().contains("transaction.timeout.ms"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        // In the same process, by the same decider, and by another.
        let found = life.commits.decider.as_mut().unwrap().fence().await.unwrap();
        assert_eq!(found, Some(life.decision(1)));
        let mut next = who.begin(2).await;
        assert_eq!(next.found, Some(life.decision(1)));
        next.epoch(&[20]).await;
    });
    comes_to(&vec![1, 20], || who.visible(&broker.servers(), "ended", 1));
}

#[test]
fn a_decision_whose_answer_is_lost_is_found_out_by_recovery() {
    let ports: [u16; 2] = free_ports();
    let listeners = ports.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let advertised = [0, 1].map(|number: usize| listeners[number].local_addr().unwrap().port());
    let detours = [0, 1].map(|number| Detour { port: ports[number], advertised: advertised[number] });
    let broker = Broker::start_behind(detours.to_vec());
    let mut ports = ports.into_iter();
    let [answer, request] = listeners.map(|listener| Proxy::start(listener, ports.next().unwrap()));
    runtime().block_on(async {
        tokio::join!(lose(&broker, advertised[0], answer, Loss::Answer), lose(&broker, advertised[1], request, Loss::Request))
    });
}

/// Loses the end of a transaction, on the way there or back.
async fn lose(broker: &Broker, advertised: u16, proxy: Proxy, loss: Loss) {
    let name = format!("{loss:?}");
    tokio::task::block_in_place(|| std::thread::scope(|scope| scope.spawn(|| broker.topic(&name, 1)).join().unwrap()));
    let through = Who::new(&format!("127.0.0.1:{advertised}"), &name, &[&name]);
    let direct = Who { servers: broker.servers(), ..through.clone() };
    let mut life = through.begin(1).await;
    life.epoch(&[1]).await;
    life.write(0, &[2]).await.unwrap();
    life.prepare(false).await.unwrap();
    proxy.lose(loss);
    let decided = life.decide().await;
    assert!(matches!(decided, Err(DecideError::Unknown(_))), "{loss:?}: {decided:?}");
    assert!(proxy.has_lost());
    let mut next = direct.begin(2).await;
    let committed = loss == Loss::Answer;
    assert_eq!(next.found, Some(life.decision(if committed { 2 } else { 1 })));
    next.epoch(&[3]).await;
    comes_to(&if committed { vec![1, 2, 3] } else { vec![1, 3] }, || direct.visible(&direct.servers, &name, 1));
}

#[test]
fn order_by_key_holds_across_epochs_and_slots() {
    let broker = Broker::shared();
    broker.topic("order", 3);
    for (number, interval) in [Duration::from_secs(1), Duration::from_millis(100)].into_iter().enumerate() {
        let who = Who { interval, ..Who::new(&broker.servers(), &format!("order-{number}"), &["order"]) };
        let base = number as i64 * 100_000;
        runtime().block_on(async {
            let mut life = who.begin(1).await;
            let mut next = base;
            for epoch in 0..12 {
                // More than is held back, so that `write` waits as well.
                let size = if epoch == 3 { 60_000 } else { 200 };
                let numbers: Vec<i64> = (next..next + size).collect();
                next += size;
                life.write(0, &numbers).await.unwrap();
                life.prepare(false).await.unwrap();
                life.write(0, &[next]).await.unwrap();
                next += 1;
                life.decide().await.unwrap();
            }
            life.prepare(true).await.unwrap();
            life.decide().await.unwrap();
            comes_to(&(next - base), || {
                let found = records(&broker.servers(), "order", 3);
                let mut count = 0;
                for records in found.values() {
                    let mut last: std::collections::HashMap<Vec<u8>, i64> = std::collections::HashMap::new();
                    for record in records {
                        let number = serde_json::from_slice::<Value>(record.payload().unwrap()).unwrap()["n"].as_i64().unwrap();
                        if let Some(before) = last.insert(record.key().unwrap().to_vec(), number) {
                            assert!(before < number, "{before} before {number}");
                        }
                        count += i64::from(number >= base);
                    }
                }
                count
            });
        });
    }
}

#[test]
fn a_broker_that_restarts_between_epochs_and_within_one_costs_nothing_but_time() {
    let mut broker = Broker::start();
    broker.topic("restart", 1);
    let who = Who::new(&broker.servers(), "restart", &["restart"]);
    let runtime = runtime();
    let mut life = runtime.block_on(async {
        let mut life = who.begin(1).await;
        life.epoch(&[1]).await;
        life
    });
    broker.kill();
    broker.restart();
    runtime.block_on(async {
        life.epoch(&[2]).await;
        life.write(0, &[3]).await.unwrap();
        life.prepare(false).await.unwrap();
    });
    broker.kill();
    broker.restart();
    runtime.block_on(async {
        life.decide().await.unwrap();
        life.epoch(&[4]).await;
        drop(life);
        assert_eq!(who.begin(2).await.found.map(|decision| decision.epoch), Some(4));
    });
    comes_to(&vec![1, 2, 3, 4], || who.visible(&broker.servers(), "restart", 1));
}

#[test]
fn pipelines_share_a_progress_topic_and_a_lost_one_is_noticed() {
    let broker = Broker::start();
    let servers = broker.servers();
    broker.topic("first", 1);
    broker.topic_with("wrong", 1, &[("cleanup.policy", "delete")]);
    let named = |name: &str| Who { more: json!({"progress_topic": "progress"}), ..Who::new(&servers, name, &["first"]) };
    let runtime = runtime();
    runtime.block_on(async {
        for name in ["one", "two"] {
            let mut life = named(name).begin(1).await;
            life.epoch(&[1]).await;
            life.epoch(&[2]).await;
        }
        let mut other = named("three").begin(1).await;
        other.write(0, &[3]).await.unwrap();
        other.prepare(false).await.unwrap();
        assert_eq!(named("one").begin(2).await.found.map(|decision| (decision.pipeline, decision.epoch)), Some(("one".into(), 2)));
        drop(other);
    });
    broker.delete_topic("progress");
    runtime.block_on(async {
        // Recovery compares with its manifests: none of two decided epochs is known here any more.
        assert_eq!(named("two").begin(2).await.found, None);
        let mut wrong = Who { more: json!({"progress_topic": "wrong"}), ..named("one") }.commits(1).await.unwrap();
        let error = wrong.decider.as_mut().unwrap().fence().await.unwrap_err();
        assert!(!error.is_transient() && error.to_string().contains("cleanup.policy=delete"), "{error}");
    });
}

#[test]
fn sinks_of_different_clusters_or_settings_cannot_be_one_transaction() {
    let broker = Broker::shared();
    broker.topic("same", 1);
    let config = |servers: &str| json!({"topic": "same", "bootstrap_servers": servers});
    let target = |uid: &str, config: Value| pelton_connect::CommitTarget {
        uid: uid.into(),
        transform: uid.into(),
        kind: "WriteToKafka".into(),
        config,
        base_dir: ".".into(),
    };
    runtime().block_on(async {
        let mut linger = config(&broker.servers());
        linger["producer_config_updates"] = json!({"linger.ms": 50});
        for (other, key) in [(config("127.0.0.1:1"), "bootstrap_servers"), (linger, "producer_config_updates")] {
            let identity = pelton_connect::Identity {
                pipeline: "same".into(),
                generation: 1,
                again: false,
                interval: Duration::from_secs(1),
                outbox: "unused".into(),
            };
            let targets = vec![target("A", config(&broker.servers())), target("B", other)];
            let error = pelton_connect::open_commits(targets, identity, &tokio::runtime::Handle::current()).await.err().unwrap();
            assert!(error.to_string().contains(key) && error.to_string().contains("A and B"), "{error}");
        }
    });
}
