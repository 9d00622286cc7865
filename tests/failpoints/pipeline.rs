//! The pipeline of the suite: who decides its epochs, its outputs, and what an independent reader finds in them.

use pelton_tests::broker::{Broker, read_committed};
use pelton_tests::pelton::{shards, sorted};
use pelton_tests::postgres::{Server, USER, instant};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The password of the database is in this variable.
pub const PASSWORD_VARIABLE: &str = "PELTON_TEST_PASSWORD";
/// Of the topics.
const PARTITIONS: i32 = 2;
/// The outputs of each kind: transform before them, and the columns that are compared.
const OUTPUTS: [(&str, &str, &[&str]); 2] =
    [("sums", "Windows", &["customer_id", "window_start", "n", "largest"]), ("raw", "Stamped", &["transaction_id", "amount"])];

/// Who decides epochs. The kinds of sinks that come later follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decider {
    /// Kafka; Postgres and files follow.
    Kafka,
    /// Postgres; files follow.
    Postgres,
    /// The checkpoint store; files follow.
    Store,
}

impl Decider {
    /// All of them.
    pub const ALL: [Decider; 3] = [Decider::Kafka, Decider::Postgres, Decider::Store];

    /// Whether its pipeline comes to a failpoint.
    fn reaches(self, name: &str) -> bool {
        match name {
            "decide.before" | "decide.after" => self == Decider::Store,
            "postgres.claim" | "postgres.claimed" | "postgres.written" | "postgres.committed" => self == Decider::Postgres,
            "postgres.clear" => self != Decider::Store,
            _ => self == Decider::Kafka || !(name.starts_with("kafka.") || name.starts_with("postgres.")),
        }
    }
}

/// Where cells live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// In memory.
    Memory,
    /// On disk, all but those of the message at hand.
    Fjall,
}

impl Backend {
    /// Both.
    pub const ALL: [Backend; 2] = [Backend::Memory, Backend::Fjall];

    /// Its part of `options.pelton`.
    fn options(self) -> &'static str {
        match self {
            Backend::Memory => "",
            Backend::Fjall => ", state: {backend: fjall, memory: 1KiB}",
        }
    }

    fn reaches(self, name: &str) -> bool {
        self == Backend::Fjall || !(name.starts_with("evict.") || name == "run.portion")
    }
}

/// Every pipeline that comes to a failpoint.
pub fn reaching(name: &str) -> Vec<(Decider, Backend)> {
    let every = Decider::ALL.into_iter().flat_map(|decider| Backend::ALL.map(|backend| (decider, backend)));
    every.filter(|(decider, backend)| decider.reaches(name) && backend.reaches(name)).collect()
}

/// What is outside, for all pipelines.
pub struct Outside {
    pub broker: Broker,
    pub server: Server,
    pub database: String,
}

impl Outside {
    /// Starts both servers.
    pub fn start() -> Outside {
        let server = Server::start();
        Outside { broker: Broker::start(), database: server.database(), server }
    }
}

/// One pipeline: its number makes its topics and tables its own.
pub struct Pipeline<'a> {
    pub outside: &'a Outside,
    pub decider: Decider,
    pub backend: Backend,
    pub number: usize,
}

/// Events a second of lives that are to die. The last life has no such limit.
const RATE: &str = "rate: 300, ";

/// Rows by output, such as `Kafka sums`.
pub type Rows = BTreeMap<String, Vec<String>>;

impl Pipeline<'_> {
    /// Creates what has to be there before it starts.
    pub fn prepare(&self) {
        for (output, _, _) in OUTPUTS.iter().filter(|_| self.decider == Decider::Kafka) {
            // Event times are old.
            self.outside.broker.topic_with(&self.own(output), PARTITIONS, &[("retention.ms", "-1")]);
        }
    }

    /// Its file: ten seconds of events, or `at_once`. `options` go on after others of `options.pelton`.
    pub fn yaml(&self, folder: &Path, options: &str, at_once: bool) -> String {
        let rate = if at_once { "" } else { RATE };
        let sinks: String = OUTPUTS.iter().map(|(output, input, _)| self.sinks(output, input, folder)).collect();
        format!(
            "pipeline:
  transforms:
    - type: GenerateEvents
      name: Events
      config: {{kind: transactions, seed: 11, {rate}count: 3000, parts: 3, devices: 200, interval: 20ms}}
    - {{type: AssignTimestamps, name: Stamped, input: Events, config: {{timestamp: transaction_date}}}}
    - type: Combine
      name: Sums
      input: Stamped
      windowing: {{type: fixed, size: 5s}}
      config: {{group_by: customer_id, combine: {{n: count, largest: {{value: amount, fn: max}}}}}}
    - {{type: ExtractWindowingInfo, name: Windows, input: Sums, config: {{fields: [window_start]}}}}
{sinks}options:
  pelton: {{name: failpoints-{number}, parallelism: 2, watermark: {{delay: 1s}}{backend}{options}}}
",
            number = self.number,
            backend = self.backend.options()
        )
    }

    fn sinks(&self, output: &str, input: &str, folder: &Path) -> String {
        let path = folder.join(output).display().to_string();
        let mut sinks =
            format!("    - {{type: WriteToJson, name: Files-{output}, input: {input}, config: {{path: '{path}', num_shards: 2}}}}\n");
        if self.decider != Decider::Store {
            let at = format!("url: 'postgresql://127.0.0.1:{}/{}', username: {USER}", self.outside.server.port(), self.outside.database);
            sinks += &format!(
                "    - {{type: WriteToPostgres, name: Table-{output}, input: {input}, config: {{{at}, password: '${{secret:env:{PASSWORD_VARIABLE}}}', table: {}, create: if_missing}}}}\n",
                self.own(output)
            );
        }
        if self.decider == Decider::Kafka {
            sinks += &format!(
                "    - {{type: WriteToKafka, name: Topic-{output}, input: {input}, config: {{topic: {}, bootstrap_servers: '{}', format: JSON}}}}\n",
                self.own(output),
                self.outside.broker.servers()
            );
        }
        sinks
    }

    /// A name of this pipeline's own.
    fn own(&self, output: &str) -> String {
        format!("{output}_{}", self.number)
    }

    /// All rows that anybody can see now.
    pub fn read(&self, folder: &Path) -> Rows {
        let mut rows = Rows::new();
        for (output, _, columns) in OUTPUTS {
            let texts = shards(&folder.join(output));
            let lines = texts.iter().flat_map(|text| text.lines()).map(|line| text_of(&parsed(line), columns));
            rows.insert(format!("files {output}"), sorted(lines));
            if self.decider != Decider::Store {
                let query = format!("SELECT row_to_json(r) FROM (SELECT {} FROM {}) r", selected(columns), self.own(output));
                let found = self.outside.server.psql(&self.outside.database, &query);
                rows.insert(format!("table {output}"), sorted(found.lines().map(|line| text_of(&parsed(line), columns))));
            }
            if self.decider == Decider::Kafka {
                let found = read_committed(&self.outside.broker.servers(), &self.own(output), PARTITIONS);
                rows.insert(format!("topic {output}"), sorted(found.iter().map(|row| text_of(row, columns))));
            }
        }
        rows
    }
}

fn selected(columns: &[&str]) -> String {
    let column = |name: &&str| if *name == "window_start" { format!("{} AS window_start", instant(name)) } else { name.to_string() };
    columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn text_of(row: &Value, columns: &[&str]) -> String {
    // PostgreSQL writes 158.0 as 158.
    let text = |value: &Value| value.as_f64().map_or_else(|| value.to_string(), |number| number.to_string());
    columns.iter().map(|column| text(&row[*column])).collect::<Vec<_>>().join(" ")
}

/// What every pipeline must have written: `rows` of a run without checkpoints. The first difference, in words.
pub fn compare(rows: &Rows, expected: &Rows) -> Result<(), String> {
    for (output, got) in rows {
        let (_, kind) = output.split_once(' ').expect("a kind and a name");
        let want = &expected[&format!("files {kind}")];
        if got != want {
            let first = got.iter().zip(want).find(|(got, want)| got != want);
            return Err(format!("{output} has {} rows for {}; the first that differ: {first:?}", got.len(), want.len()));
        }
    }
    Ok(())
}
