//! The configs of `ReadFromKafka` and `WriteToKafka`: their keys, what can be wrong with them, and what they become.

use super::settings::{self, Client};
use pelton_core::catalog::{ConfigFault, KeySpec, check_keys, kind, nearest};
use serde_json::{Map, Value};

/// How the value of a record is read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object a record.
    Json,
    /// UTF-8 text in the column `payload`.
    Text,
    /// Bytes in the column `payload`.
    Raw,
}

/// What a tombstone becomes where the format is JSON; `RAW` and `STRING` have a null `payload` for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tombstones {
    /// A row error.
    Error,
    /// A row whose value columns are null.
    Null,
}

/// Where a source begins that has no saved position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record that the broker keeps.
    Earliest,
    /// After the newest record at the time of the start.
    Latest,
}

/// What becomes of a position that the broker no longer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfRange {
    /// The pipeline stops with the reason.
    Stop,
    /// Reading goes on at the oldest record that the broker keeps.
    Earliest,
    /// Reading goes on after the newest.
    Latest,
}

/// Column of values in the formats RAW and STRING; Beam's name.
pub const PAYLOAD: &str = "payload";

/// A checked config of `ReadFromKafka`.
#[derive(Clone, Debug)]
pub struct ReadConfig {
    /// One topic.
    pub topic: String,
    /// `host:port`, comma-separated.
    pub bootstrap_servers: String,
    /// `consumer_config`.
    pub client: Map<String, Value>,
    /// Format of values.
    pub format: Format,
    /// JSON schema of values, for JSON.
    pub schema: Option<Value>,
    /// Where to begin.
    pub start: Start,
    /// End at the offsets that were the ends at the start.
    pub stop_at_end: bool,
    /// End after this time.
    pub max_read_time: Option<std::time::Duration>,
    /// How often to look for new partitions.
    pub discover_interval: std::time::Duration,
    /// What becomes of a position that the broker no longer has.
    pub out_of_range: OutOfRange,
    /// What a tombstone becomes.
    pub tombstones: Tombstones,
    /// Names of the columns about the record.
    pub columns: RecordColumns,
}

/// Columns about a record instead of its value; `None`: not wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordColumns {
    /// The key: string, or bytes with `key_format: RAW`.
    pub key: Option<String>,
    /// Keys are bytes.
    pub raw_key: bool,
    /// List of `{key: string, value: bytes}`.
    pub headers: Option<String>,
    /// 32-bit integer.
    pub partition: Option<String>,
    /// 64-bit integer.
    pub offset: Option<String>,
    /// Timestamp.
    pub timestamp: Option<String>,
}

/// A checked config of `WriteToKafka`.
#[derive(Clone, Debug)]
pub struct WriteConfig {
    /// One topic.
    pub topic: String,
    /// `host:port`, comma-separated.
    pub bootstrap_servers: String,
    /// `producer_config_updates`.
    pub client: Map<String, Value>,
    /// Format of values.
    pub format: Format,
    /// Column that becomes the key.
    pub key: Option<String>,
    /// Column that becomes the headers.
    pub headers: Option<String>,
    /// Column with the partition.
    pub partition: Option<String>,
    /// Where decisions about epochs are kept.
    pub progress_topic: String,
}

/// `discover_interval` where the config names none.
const DISCOVER_INTERVAL: std::time::Duration = std::time::Duration::from_secs(30);

/// `progress_topic` where the config names none.
const PROGRESS_TOPIC: &str = "__pelton_progress";

const fn required(name: &'static str, doc: &'static str) -> KeySpec {
    KeySpec { name, required: true, doc }
}

const fn optional(name: &'static str, doc: &'static str) -> KeySpec {
    KeySpec { name, required: false, doc }
}

/// Keys of `ReadFromKafka`.
pub const READ_KEYS: &[KeySpec] = &[
    required("topic", "The topic to read; it must exist."),
    required("bootstrap_servers", "Brokers to ask first, `host:port`, comma-separated."),
    optional("format", "Of record values: `JSON`, `STRING` (column `payload`, string) or `RAW` (column `payload`, bytes). Default: `RAW`."),
    optional("schema", "JSON schema of the values, as a mapping or as JSON text; needed with `format: JSON`."),
    optional(
        "auto_offset_reset_config",
        "Where a pipeline without a saved position begins: `earliest` or `latest`. Default: `latest`, as in Beam.",
    ),
    optional(
        "consumer_config",
        "Properties of librdkafka's consumer, such as `security.protocol`, `sasl.username`, `ssl.ca.location`; those that Pelton owns are refused.",
    ),
    optional("key", "Name of a column for the record's key, null where it has none."),
    optional("key_format", "Of that column: `STRING` (a key that is not UTF-8 is a row error) or `RAW` (bytes). Default: `STRING`."),
    optional("headers", "Name of a column for the record's headers: a list of `{key: string, value: bytes}` in their order."),
    optional("partition_field", "Name of a column for the partition, a 32-bit integer."),
    optional("offset_field", "Name of a column for the offset, a 64-bit integer."),
    optional("timestamp_field", "Name of a column for the record's timestamp, which is the event time too."),
    optional(
        "tombstones",
        "With `format: JSON`, what a record without a value becomes: `error` (a row error) or `null` (a row whose value columns are null). Default: `error`.",
    ),
    optional("stop_at_end", "Read to the ends that the partitions have at the start, then end; makes the source bounded. Default: false."),
    optional("max_read_time_seconds", "End after this many seconds; makes the source bounded."),
    optional(
        "discover_interval",
        "How often to look for partitions that were added to the topic, such as `30s`; they are read from their beginning. Default: 30s.",
    ),
    optional(
        "on_offset_out_of_range",
        "When the broker no longer has the records that come next: `stop` (with what is wanted and what there is), or go on at the `earliest` or `latest` there are. Default: `stop`.",
    ),
];

/// Keys of `WriteToKafka`.
pub const WRITE_KEYS: &[KeySpec] = &[
    required("topic", "The topic to write to; it must exist."),
    required("bootstrap_servers", "Brokers to ask first, `host:port`, comma-separated."),
    optional("format", "Of record values: `JSON` (an object a row), `STRING` or `RAW` (one column, null for a tombstone). Default: `RAW`."),
    optional(
        "key",
        "Column that becomes the record's key, a string or bytes; it decides the partition as Java's clients do, and stays in a JSON value.",
    ),
    optional(
        "headers",
        "Column that becomes the headers: a list of `{key, value}` or a map from string to string or bytes; it is no part of the value.",
    ),
    optional(
        "partition_field",
        "Column with the partition to write to, an integer; null leaves the choice to the key. It is no part of the value.",
    ),
    optional(
        "producer_config_updates",
        "Properties of librdkafka's producer, such as `linger.ms`, `compression.type`, `security.protocol`; those that Pelton owns are refused.",
    ),
    optional(
        "progress_topic",
        "With `delivery: exactly_once`, the compacted topic where Pelton keeps which epochs were decided; created if it is not there. Default: `__pelton_progress`.",
    ),
];

/// Whether reading never ends by itself.
pub fn is_endless(config: &Value) -> bool {
    let given = |key: &str| config.get(key).filter(|value| !value.is_null());
    given("max_read_time_seconds").is_none() && given("stop_at_end").is_none_or(|stop| *stop == Value::Bool(false) || stop == "false")
}

/// All faults of a `ReadFromKafka` config.
pub fn check_read(config: &Value) -> Vec<ConfigFault> {
    let mut faults = check_keys(config, READ_KEYS);
    faults.extend(settings::check(config, Client::Consumer));
    read(config, &mut faults);
    faults
}

/// All faults of a `WriteToKafka` config.
pub fn check_write(config: &Value) -> Vec<ConfigFault> {
    let mut faults = check_keys(config, WRITE_KEYS);
    faults.extend(settings::check(config, Client::Producer));
    write(config, &mut faults);
    faults
}

/// Takes what can be taken and adds the faults; the result counts only when there are none.
pub fn read(config: &Value, faults: &mut Vec<ConfigFault>) -> ReadConfig {
    let format = format(config, faults);
    let columns = RecordColumns {
        key: text(config, "key", faults),
        raw_key: choice(config, "key_format", &[("STRING", false), ("RAW", true)], false, faults),
        headers: text(config, "headers", faults),
        partition: text(config, "partition_field", faults),
        offset: text(config, "offset_field", faults),
        timestamp: text(config, "timestamp_field", faults),
    };
    if config.get("key_format").is_some() && columns.key.is_none() {
        faults.push(ConfigFault::at(&["key_format"], "`key_format` has no effect without `key`").help("name the column with `key`"));
    }
    let schema = config.get("schema").filter(|schema| !schema.is_null()).cloned();
    match (format, &schema) {
        (Format::Json, None) => faults.push(
            ConfigFault::at(&[], "`format: JSON` needs `schema`")
                .help("a topic has no columns of its own; write `schema: {type: object, properties: {name: {type: string}}}`"),
        ),
        (Format::Text | Format::Raw, Some(_)) => {
            faults.push(ConfigFault::at(&["schema"], "`schema` has no effect with this format").help("write `format: JSON`"));
        }
        _ => {}
    }
    if format != Format::Json && config.get("tombstones").is_some() {
        faults.push(
            ConfigFault::at(&["tombstones"], "`tombstones` has no effect with this format")
                .help("the column `payload` is null for a tombstone"),
        );
    }
    check_columns(&columns, format, faults);
    ReadConfig {
        topic: topic(config, "topic", faults),
        bootstrap_servers: servers(config, faults),
        client: client(config, Client::Consumer),
        format,
        schema,
        start: choice(
            config,
            "auto_offset_reset_config",
            &[("latest", Start::Latest), ("earliest", Start::Earliest)],
            Start::Latest,
            faults,
        ),
        stop_at_end: flag(config, "stop_at_end", faults),
        max_read_time: seconds(config, "max_read_time_seconds", faults),
        discover_interval: interval(config, "discover_interval", faults).unwrap_or(DISCOVER_INTERVAL),
        out_of_range: choice(
            config,
            "on_offset_out_of_range",
            &[("stop", OutOfRange::Stop), ("earliest", OutOfRange::Earliest), ("latest", OutOfRange::Latest)],
            OutOfRange::Stop,
            faults,
        ),
        tombstones: choice(config, "tombstones", &[("error", Tombstones::Error), ("null", Tombstones::Null)], Tombstones::Error, faults),
        columns,
    }
}

/// Takes what can be taken and adds the faults; the result counts only when there are none.
pub fn write(config: &Value, faults: &mut Vec<ConfigFault>) -> WriteConfig {
    WriteConfig {
        topic: topic(config, "topic", faults),
        bootstrap_servers: servers(config, faults),
        client: client(config, Client::Producer),
        format: format(config, faults),
        key: text(config, "key", faults),
        headers: text(config, "headers", faults),
        partition: text(config, "partition_field", faults),
        progress_topic: match config.get("progress_topic") {
            None | Some(Value::Null) => PROGRESS_TOPIC.into(),
            Some(_) => topic(config, "progress_topic", faults),
        },
    }
}

/// A column cannot stand twice; JSON's own columns are compared when the schema is known.
fn check_columns(columns: &RecordColumns, format: Format, faults: &mut Vec<ConfigFault>) {
    let mut seen: Vec<&str> = if format == Format::Json { Vec::new() } else { vec![PAYLOAD] };
    for (key, name) in columns.named() {
        if seen.contains(&name) {
            faults.push(ConfigFault::at(&[key], format!("two columns would be called `{name}`")).help("give each its own name"));
        }
        seen.push(name);
    }
}

impl RecordColumns {
    /// The wanted columns in the order in which they follow the value's: config key and column name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let columns = [
            ("key", &self.key),
            ("headers", &self.headers),
            ("partition_field", &self.partition),
            ("offset_field", &self.offset),
            ("timestamp_field", &self.timestamp),
        ];
        columns.into_iter().filter_map(|(key, name)| name.as_deref().map(|name| (key, name)))
    }
}

/// Rule of Kafka's `Topic.validate`.
const MAX_TOPIC_LENGTH: usize = 249;

fn topic(config: &Value, key: &str, faults: &mut Vec<ConfigFault>) -> String {
    let topic = text(config, key, faults).unwrap_or_default();
    let legal = topic.len() <= MAX_TOPIC_LENGTH
        && topic != "."
        && topic != ".."
        && topic.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if !legal {
        faults.push(
            ConfigFault::at(&[key], format!("`{topic}` cannot be the name of a topic"))
                .help(format!("letters, digits, `.`, `_` and `-`, at most {MAX_TOPIC_LENGTH}")),
        );
    }
    topic
}

fn servers(config: &Value, faults: &mut Vec<ConfigFault>) -> String {
    let servers = text(config, "bootstrap_servers", faults).unwrap_or_default();
    let known = !servers.is_empty() && !servers.contains("${secret:");
    for server in servers.split(',').filter(|_| known) {
        let server = server.trim();
        let address = server.split_once("://").map_or(server, |(_, address)| address);
        let port = address.rsplit_once(':').map(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if port == Some(false) || address.is_empty() {
            faults.push(
                ConfigFault::at(&["bootstrap_servers"], format!("`{server}` is no address")).help("write `host:port`, comma-separated"),
            );
        }
    }
    servers
}

fn client(config: &Value, client: Client) -> Map<String, Value> {
    config.get(client.config_key()).and_then(Value::as_object).cloned().unwrap_or_default()
}

fn format(config: &Value, faults: &mut Vec<ConfigFault>) -> Format {
    if let Some(other @ ("AVRO" | "PROTO")) = config.get("format").and_then(Value::as_str) {
        faults.push(
            ConfigFault::at(&["format"], format!("`format: {other}` is not supported yet"))
                .help("read `RAW` and decode `payload` in a plugin"),
        );
        return Format::Raw;
    }
    choice(config, "format", &[("RAW", Format::Raw), ("STRING", Format::Text), ("JSON", Format::Json)], Format::Raw, faults)
}

fn text(config: &Value, key: &str, faults: &mut Vec<ConfigFault>) -> Option<String> {
    match config.get(key) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        Some(Value::String(_)) => {
            faults.push(ConfigFault::at(&[key], format!("`{key}` must not be empty")));
            None
        }
        Some(other) => {
            faults.push(ConfigFault::at(&[key], format!("`{key}` must be a string, not {}", kind(other))));
            None
        }
    }
}

fn flag(config: &Value, key: &str, faults: &mut Vec<ConfigFault>) -> bool {
    match config.get(key) {
        None | Some(Value::Null) => false,
        Some(Value::Bool(flag)) => *flag,
        Some(other) => {
            faults.push(ConfigFault::at(&[key], format!("`{key}` must be true or false, not {}", kind(other))));
            false
        }
    }
}

fn seconds(config: &Value, key: &str, faults: &mut Vec<ConfigFault>) -> Option<std::time::Duration> {
    let value = config.get(key).filter(|value| !value.is_null())?;
    let seconds = value.as_f64().filter(|seconds| *seconds > 0.0).and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok());
    if seconds.is_none() {
        faults.push(ConfigFault::at(&[key], format!("`{key}` must be a number of seconds above 0")));
    }
    seconds
}

fn interval(config: &Value, key: &str, faults: &mut Vec<ConfigFault>) -> Option<std::time::Duration> {
    let given = text(config, key, faults)?;
    let parsed =
        pelton_core::Duration::parse(&given).ok().and_then(|parsed| u64::try_from(parsed.micros()).ok()).filter(|micros| *micros > 0);
    if parsed.is_none() {
        faults.push(ConfigFault::at(&[key], format!("`{given}` is no `{key}`")).help("write a duration above 0, such as `30s` or `5m`"));
    }
    parsed.map(std::time::Duration::from_micros)
}

fn choice<T: Copy>(config: &Value, key: &str, choices: &[(&str, T)], default: T, faults: &mut Vec<ConfigFault>) -> T {
    let Some(given) = text(config, key, faults) else { return default };
    if let Some((_, value)) = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(&given)) {
        return *value;
    }
    let names = choices.iter().map(|(name, _)| *name);
    let help = match nearest(&given, names.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("one of {}", names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    };
    faults.push(ConfigFault::at(&[key], format!("`{given}` is no `{key}`")).help(help));
    default
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(faults: Vec<ConfigFault>, expected: &[&str]) {
        let found: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn all_faults_are_found_at_once() {
        check(
            check_read(&json!({
                "topic": "a b", "bootstrap_servers": "localhost:x", "format": "JSN", "auto_offset_reset_config": 3, "stop_at_end": "yes",
                "max_read_time_seconds": 0, "key": "payload", "consumer_config": {"isolation.level": "x"}, "partition": "p",
            })),
            &[
                "unknown key `partition`",
                "`isolation.level` is set by Pelton",
                "`JSN` is no `format`",
                "two columns would be called `payload`",
                "`a b` cannot be the name of a topic",
                "`localhost:x` is no address",
                "`auto_offset_reset_config` must be a string, not a number",
                "`stop_at_end` must be true or false, not a string",
                "`max_read_time_seconds` must be a number of seconds above 0",
            ],
        );
        check(check_write(&json!({"topic": "t"})), &["missing key `bootstrap_servers`"]);
    }

    #[test]
    fn json_needs_a_schema_and_other_formats_take_none() {
        let base = json!({"topic": "t", "bootstrap_servers": "localhost:9092,[::1]:9092"});
        let with = |key: &str, value: Value| {
            let mut config = base.clone();
            config[key] = value;
            config
        };
        check(check_read(&base), &[]);
        check(check_read(&with("format", json!("JSON"))), &["`format: JSON` needs `schema`"]);
        check(check_read(&with("schema", json!({}))), &["`schema` has no effect with this format"]);
        check(check_read(&with("format", json!("AVRO"))), &["`format: AVRO` is not supported yet"]);
        check(check_read(&with("tombstones", json!("null"))), &["`tombstones` has no effect with this format"]);
    }
}
