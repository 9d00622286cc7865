//! Settings of the Kafka client: what users pass through, what Pelton owns, and the file that both become.
//!
//! `consumer_config` and `producer_config_updates` take librdkafka's property names. A property that Pelton's guarantees
//! rest on is refused by name with the reason, instead of being overridden in silence.
//!
//! Invariant: no message of this module shows the value of a property: passwords are values.

use pelton_core::catalog::{ConfigFault, kind};
use rdkafka::ClientConfig;
use serde_json::{Map, Value};

/// Which client the settings are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// `consumer_config`.
    Consumer,
    /// `producer_config_updates`.
    Producer,
}

impl Client {
    /// The key of a pipeline's config that holds the settings.
    pub fn config_key(self) -> &'static str {
        match self {
            Client::Consumer => "consumer_config",
            Client::Producer => "producer_config_updates",
        }
    }

    fn owned(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Client::Consumer => CONSUMER_OWNED,
            Client::Producer => PRODUCER_OWNED,
        }
    }
}

const POSITIONS: &str =
    "Pelton keeps the positions itself; it commits them to the consumer group at checkpoints, for those who watch the lag";
const ASSIGNED: &str = "Pelton assigns the partitions to its tasks; the consumer group is never joined";
const SERVERS: &str = "use the transform's key `bootstrap_servers`";
const FORMAT: &str = "a setting of Java clients; use the transform's key `format`";
const BOUNDED: &str = "the memory of a pipeline is bounded by Pelton's own limits";

/// Properties of consumers that Pelton owns, with the reason.
pub const CONSUMER_OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", SERVERS),
    ("metadata.broker.list", SERVERS),
    (
        "auto.offset.reset",
        "use the transform's key `auto_offset_reset_config`; a position that is lost later stops the pipeline instead of skipping records",
    ),
    ("enable.auto.commit", POSITIONS),
    ("auto.commit.enable", POSITIONS),
    ("auto.commit.interval.ms", POSITIONS),
    ("enable.auto.offset.store", POSITIONS),
    ("isolation.level", "Pelton always reads committed records only, or aborted transactions would show up in results"),
    ("partition.assignment.strategy", ASSIGNED),
    ("group.instance.id", ASSIGNED),
    ("group.protocol", ASSIGNED),
    ("group.remote.assignor", ASSIGNED),
    ("session.timeout.ms", ASSIGNED),
    ("heartbeat.interval.ms", ASSIGNED),
    ("max.poll.interval.ms", ASSIGNED),
    ("enable.partition.eof", "Pelton needs the ends of partitions to know its lag and when a bounded read is done"),
    ("allow.auto.create.topics", "Pelton never creates a topic by reading it"),
    ("queued.max.messages.kbytes", BOUNDED),
    ("statistics.interval.ms", "Pelton reads its lag from the client's statistics"),
    ("key.deserializer", FORMAT),
    ("value.deserializer", FORMAT),
];

/// Properties of producers that Pelton owns, with the reason.
pub const PRODUCER_OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", SERVERS),
    ("metadata.broker.list", SERVERS),
    ("enable.idempotence", "Pelton's producers are always idempotent, or a retry could write a record twice or out of order"),
    ("acks", "records count as written when all in-sync replicas have them"),
    ("request.required.acks", "records count as written when all in-sync replicas have them"),
    ("transactional.id", "transactions belong to Pelton's delivery guarantee"),
    ("transaction.timeout.ms", "transactions belong to Pelton's delivery guarantee"),
    (
        "partitioner",
        "keys go to the partition that Java's clients choose (murmur2), so that topics are co-partitioned; use `partition_field` for another rule",
    ),
    ("delivery.report.only.error", "Pelton counts every delivery"),
    ("queue.buffering.max.messages", BOUNDED),
    ("queue.buffering.max.kbytes", BOUNDED),
    ("message.max.bytes", "the limit is taken from the topic's `max.message.bytes`"),
    ("allow.auto.create.topics", "Pelton never creates a topic by writing to it"),
    ("statistics.interval.ms", "Pelton takes the client's statistics itself"),
    ("key.serializer", FORMAT),
    ("value.serializer", FORMAT),
];

/// Names of Java's clients that librdkafka has another word for.
const JAVA_NAMES: &[(&str, &str)] = &[
    ("sasl.jaas.config", "`sasl.username` and `sasl.password`"),
    ("ssl.truststore.location", "`ssl.ca.location`, a file of PEM certificates"),
    ("ssl.truststore.certificates", "`ssl.ca.pem`"),
    ("ssl.truststore.password", "`ssl.ca.location`, a file of PEM certificates, which needs no password"),
    ("ssl.truststore.type", "`ssl.ca.location`, a file of PEM certificates"),
    ("ssl.keystore.type", "`ssl.keystore.location`, a PKCS#12 file"),
    ("max.poll.records", "nothing: batches have their own bounds"),
];

/// Everything that is wrong with the pass-through settings; names and plain values are tried on librdkafka itself.
/// A value that holds a secret reference is not tried: it is known only when the connector opens.
pub fn check(config: &Value, client: Client) -> Vec<ConfigFault> {
    let key = client.config_key();
    let settings = match config.get(key) {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Object(settings)) => settings,
        Some(other) => {
            let fault = ConfigFault::at(&[key], format!("`{key}` must be a mapping of client properties, not {}", kind(other)));
            return vec![fault];
        }
    };
    settings.iter().filter_map(|(name, value)| check_one(name, value, client)).collect()
}

fn check_one(name: &str, value: &Value, client: Client) -> Option<ConfigFault> {
    let path = [client.config_key(), name];
    if let Some((_, reason)) = client.owned().iter().find(|(owned, _)| *owned == name) {
        return Some(ConfigFault::at(&path, format!("`{name}` is set by Pelton")).help(*reason));
    }
    if let Some((_, instead)) = JAVA_NAMES.iter().find(|(java, _)| *java == name) {
        return Some(ConfigFault::at(&path, format!("`{name}` is a property of Java's clients")).help(format!("librdkafka has {instead}")));
    }
    let Some(text) = scalar(value) else {
        return Some(ConfigFault::at(&path, format!("`{name}` must be a string, a number or a boolean, not {}", kind(value))));
    };
    let secret = text.contains("${secret:");
    let tried = if secret { None } else { ClientConfig::new().set(name, text).create_native_config().err() };
    tried.map(|error| match error {
        rdkafka::error::KafkaError::ClientConfig(rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..) => {
            ConfigFault::at(&path, format!("librdkafka has no property `{name}`"))
        }
        _ => ConfigFault::at(&path, format!("librdkafka does not take this value for `{name}`")),
    })
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The user's settings (checked, secrets resolved) as a client's configuration; our own are added by the caller.
pub fn client_config(bootstrap_servers: &str, settings: &Map<String, Value>) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in settings {
        if let Some(text) = scalar(value) {
            config.set(name, text);
        }
    }
    config.set("bootstrap.servers", bootstrap_servers);
    config.set("allow.auto.create.topics", "false");
    config
}

/// Beginnings of names that say how to reach brokers, for any kind of client.
const CONNECTION: &[&str] = &[
    "api.version.",
    "broker.",
    "client.",
    "connections.",
    "debug",
    "enable.sasl.",
    "enable.ssl.",
    "https.",
    "log.",
    "metadata.",
    "reconnect.",
    "resolve.",
    "retry.",
    "sasl.",
    "security.",
    "socket.",
    "ssl.",
];

/// Those of the settings that say how to reach brokers, for a client of another kind.
pub fn connection_config(bootstrap_servers: &str, settings: &Map<String, Value>) -> ClientConfig {
    let of_connections = |name: &str| CONNECTION.iter().any(|beginning| name.starts_with(beginning));
    let kept = settings.iter().filter(|(name, _)| of_connections(name)).map(|(name, value)| (name.clone(), value.clone()));
    client_config(bootstrap_servers, &kept.collect())
}

/// Sets a property that the user did not set.
pub fn default_to(config: &mut ClientConfig, name: &str, value: &str) {
    if config.get(name).is_none() {
        config.set(name, value);
    }
}

/// The reason of librdkafka for refusing the configuration as a whole, without the values in it.
pub fn creation_reason(error: &rdkafka::error::KafkaError) -> String {
    match error {
        rdkafka::error::KafkaError::ClientConfig(_, _, name, _) => format!("librdkafka does not take the value of `{name}`"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check_consumer(settings: Value, expected: &[&str]) {
        let faults = check(&json!({ "consumer_config": settings }), Client::Consumer);
        let found: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn properties_that_pelton_owns_are_refused_by_name() {
        check_consumer(json!({"isolation.level": "read_uncommitted"}), &["`isolation.level` is set by Pelton"]);
        check_consumer(json!({"enable.auto.commit": true, "group.id": "mine"}), &["`enable.auto.commit` is set by Pelton"]);
        let faults = check(&json!({"producer_config_updates": {"acks": 1}}), Client::Producer);
        assert_eq!(faults[0].path, ["producer_config_updates", "acks"]);
        assert!(faults[0].help.as_deref().is_some_and(|help| help.contains("in-sync")));
    }

    #[test]
    fn unknown_names_wrong_values_and_java_names_are_all_found_at_once() {
        check_consumer(
            json!({"fetch.min.byte": 1, "fetch.min.bytes": "many", "sasl.jaas.config": "x", "client.rack": ["a"]}),
            &[
                "librdkafka has no property `fetch.min.byte`",
                "librdkafka does not take this value for `fetch.min.bytes`",
                "`sasl.jaas.config` is a property of Java's clients",
                "`client.rack` must be a string, a number or a boolean, not a list",
            ],
        );
        check_consumer(json!("x"), &["`consumer_config` must be a mapping of client properties, not a string"]);
    }

    #[test]
    fn a_secret_is_neither_tried_nor_shown() {
        check_consumer(json!({"sasl.password": "${secret:env:KAFKA_PASSWORD}", "fetch.min.bytes": "${secret:env:X}"}), &[]);
        let faults = check(&json!({"consumer_config": {"fetch.min.bytes": "hunter2"}}), Client::Consumer);
        assert!(!format!("{faults:?}").contains("hunter2"));
    }

    #[test]
    fn owned_properties_exist() {
        for (name, _) in CONSUMER_OWNED.iter().chain(PRODUCER_OWNED).filter(|(_, reason)| *reason != FORMAT) {
            let tried = ClientConfig::new().set(*name, "").create_native_config();
            let unknown =
                matches!(tried, Err(rdkafka::error::KafkaError::ClientConfig(rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)));
            assert!(!unknown, "{name}");
        }
    }
}
