//! A real Kafka broker for tests: own folder, own ports, ended by its pid.
//!
//! The broker is what `cargo xtask setup` has put into the cache folder; the scripts of `xtask/kafka` start and stop it.

use crate::pelton::wait_for;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// How long a call to the broker may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running broker. Ended when dropped.
pub struct Broker {
    folder: tempfile::TempDir,
    port: u16,
    controller_port: u16,
    secure: Option<Secure>,
    detours: Vec<Detour>,
}

/// A listener of a broker at `port` whose clients are told to come to `advertised`: where a proxy stands.
#[derive(Clone, Copy)]
pub struct Detour {
    /// Of the broker.
    pub port: u16,
    /// Of the proxy.
    pub advertised: u16,
}

/// The TLS listener of a broker, and who may use it.
pub struct Secure {
    /// Port of the listener `SASL_SSL`.
    pub port: u16,
    /// The broker's certificate, which is its own authority, as PEM.
    pub certificate: PathBuf,
}

/// The one user of secured brokers.
pub const USER: &str = "alice";
/// Password of [`USER`], with all mechanisms.
pub const PASSWORD: &str = "sesame-9";
const STORE_PASSWORD: &str = "changeit";

impl Broker {
    /// A broker without security.
    pub fn start() -> Broker {
        Self::start_with(false, Vec::new())
    }

    /// A broker that can be reached through proxies as well.
    pub fn start_behind(detours: Vec<Detour>) -> Broker {
        Self::start_with(false, detours)
    }

    /// A broker that also has a listener with TLS and SASL (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512).
    pub fn start_secured() -> Broker {
        Self::start_with(true, Vec::new())
    }

    /// The broker of all tests of this process that do no harm to it. It ends with the last of them.
    pub fn shared() -> Arc<Broker> {
        static SHARED: Mutex<Weak<Broker>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().expect("no test panics while it starts a broker");
        shared.upgrade().unwrap_or_else(|| {
            let broker = Arc::new(Broker::start());
            *shared = Arc::downgrade(&broker);
            broker
        })
    }

    fn start_with(secured: bool, detours: Vec<Detour>) -> Broker {
        let folder = tempfile::Builder::new().prefix("pelton-kafka-").tempdir().expect("a folder for the broker");
        let [port, controller_port, secure_port] = free_ports();
        let secure = secured.then(|| Secure { port: secure_port, certificate: make_certificate(folder.path()) });
        let mut broker = Broker { folder, port, controller_port, secure, detours };
        broker.restart();
        broker
    }

    /// For `bootstrap_servers`.
    pub fn servers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The listener with TLS and SASL of a secured broker.
    pub fn secure(&self) -> &Secure {
        self.secure.as_ref().expect("started with `start_secured`")
    }

    /// Starts the broker again on the same ports and data.
    pub fn restart(&mut self) {
        let mut command = Command::new(script("start.sh"));
        command.arg(self.folder.path()).arg(self.port.to_string()).arg(self.controller_port.to_string()).arg("256m");
        if let Some(secure) = &self.secure {
            command.args(self.secure_properties(secure));
            command.env("KAFKA_FORMAT_ARGS", format!("--add-scram SCRAM-SHA-256=[name={USER},password={PASSWORD}] --add-scram SCRAM-SHA-512=[name={USER},password={PASSWORD}]"));
        }
        if !self.detours.is_empty() {
            let mut listeners = format!("PLAINTEXT://127.0.0.1:{},CONTROLLER://127.0.0.1:{}", self.port, self.controller_port);
            let mut advertised = format!("PLAINTEXT://127.0.0.1:{}", self.port);
            let mut protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_string();
            for (number, detour) in self.detours.iter().enumerate() {
                listeners += &format!(",DETOUR{number}://127.0.0.1:{}", detour.port);
                advertised += &format!(",DETOUR{number}://127.0.0.1:{}", detour.advertised);
                protocols += &format!(",DETOUR{number}:PLAINTEXT");
            }
            command.arg(format!("listeners={listeners}"));
            command.arg(format!("advertised.listeners={advertised}"));
            command.arg(format!("listener.security.protocol.map={protocols}"));
        }
        // Only after a crash somebody waits for the end of a session; until then a starved broker is not to be given up by itself.
        if !self.folder.path().join("server.properties").exists() {
            command.arg("broker.session.timeout.ms=30000");
        }
        run(&mut command);
    }

    /// Ends the broker as a crash would.
    pub fn kill(&mut self) {
        run(Command::new(script("stop.sh")).arg(self.folder.path()).arg("-9"));
    }

    /// Creates a topic.
    pub fn topic(&self, name: &str, partitions: i32) {
        self.topic_with(name, partitions, &[]);
    }

    /// Creates a topic with settings.
    pub fn topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let topic =
            settings.iter().fold(NewTopic::new(name, partitions, TopicReplication::Fixed(1)), |topic, (key, value)| topic.set(key, value));
        let options = AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE));
        let results = block_on(self.admin().create_topics([&topic], &options)).expect("the broker answers");
        results.into_iter().next().expect("one topic").unwrap_or_else(|(name, error)| panic!("cannot create topic {name}: {error}"));
        // It is created before all know of it.
        let admin = self.admin();
        let led = || {
            let found = admin.inner().fetch_metadata(Some(name), PATIENCE).ok()?;
            let led = found.topics().iter().flat_map(|topic| topic.partitions()).filter(|partition| partition.leader() >= 0).count();
            (led == partitions as usize).then_some(())
        };
        wait_for(&format!("topic {name} has leaders"), PATIENCE.as_secs(), led);
    }

    /// Deletes a topic.
    pub fn delete_topic(&self, name: &str) {
        let options = AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE));
        let results = block_on(self.admin().delete_topics(&[name], &options)).expect("the broker answers");
        results.into_iter().next().expect("one topic").unwrap_or_else(|(name, error)| panic!("cannot delete topic {name}: {error}"));
        // What brokers know of topics lags behind what the controller has answered.
        let admin = self.admin();
        let gone = || {
            let found = admin.inner().fetch_metadata(Some(name), PATIENCE).ok()?;
            found.topics().iter().all(|topic| topic.error().is_some() || topic.partitions().is_empty()).then_some(())
        };
        wait_for(&format!("topic {name} is gone"), PATIENCE.as_secs(), gone);
    }

    /// Adds partitions to a topic, up to this number.
    pub fn add_partitions(&self, topic: &str, count: usize) {
        let options = AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE));
        let results = block_on(self.admin().create_partitions([&NewPartitions::new(topic, count)], &options)).expect("the broker answers");
        results.into_iter().next().expect("one topic").unwrap_or_else(|(name, error)| panic!("cannot enlarge topic {name}: {error}"));
    }

    /// Deletes the records before an offset, as retention does.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let options = AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE));
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(before)).expect("an offset");
        let deleted = block_on(self.admin().delete_records(&offsets, &options)).expect("the broker answers");
        assert!(deleted.elements().iter().all(|element| element.error().is_ok()), "{deleted:?}");
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", self.servers()).create().expect("an admin client")
    }

    fn secure_properties(&self, secure: &Secure) -> Vec<String> {
        let (port, controller_port, secure_port) = (self.port, self.controller_port, secure.port);
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        vec![
            format!("listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port},SASL_SSL://127.0.0.1:{secure_port}"),
            format!("advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{secure_port}"),
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL".into(),
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".into(),
            format!(
                "listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";"
            ),
            format!("listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={scram}"),
            format!("listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={scram}"),
            format!("ssl.keystore.location={}", self.folder.path().join("broker.p12").display()),
            format!("ssl.keystore.password={STORE_PASSWORD}"),
            "ssl.keystore.type=PKCS12".into(),
        ]
    }
}

/// Every committed record of a topic in JSON, up to its end, as a reader that shares nothing with the product finds it.
pub fn read_committed(servers: &str, topic: &str, partitions: i32) -> Vec<Value> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "check")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&list).expect("partitions are assigned");
    let (mut rows, mut ends, mut moved) = (Vec::new(), BTreeSet::new(), Instant::now());
    while ends.len() < partitions as usize {
        assert!(moved.elapsed() < PATIENCE, "topic {topic} is not read to its end");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                rows.push(serde_json::from_slice(message.payload().unwrap_or_default()).expect("a row in JSON"));
                moved = Instant::now();
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ends.insert(partition);
            }
            Some(Err(error)) => panic!("topic {topic}: {error}"),
            None => {}
        }
    }
    rows
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A key pair in `broker.p12` and its certificate as PEM.
fn make_certificate(folder: &Path) -> PathBuf {
    let (store, certificate) = (folder.join("broker.p12"), folder.join("broker.pem"));
    run(Command::new("keytool")
        .args(["-genkeypair", "-alias", "broker", "-keyalg", "RSA", "-keysize", "2048", "-validity", "30"])
        .args(["-dname", "CN=localhost", "-ext", "SAN=ip:127.0.0.1,dns:localhost", "-storetype", "PKCS12"])
        .args(["-storepass", STORE_PASSWORD, "-keystore"])
        .arg(&store));
    run(Command::new("keytool")
        .args(["-exportcert", "-rfc", "-alias", "broker", "-storepass", STORE_PASSWORD, "-keystore"])
        .arg(&store)
        .arg("-file")
        .arg(&certificate));
    certificate
}

/// Another certificate, of nobody's authority.
pub fn foreign_certificate() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let certificate = make_certificate(folder.path());
    (folder, certificate)
}

/// Ports that were free a moment ago, below those that the kernel gives to outgoing connections and to whoever wants any port.
pub fn free_ports<const N: usize>() -> [u16; N] {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    std::array::from_fn(|_| {
        loop {
            let port = 10_000 + (first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000) as u16;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    })
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/kafka").join(name)
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed; `cargo xtask setup` prepares the broker\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}
