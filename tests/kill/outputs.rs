//! What a pipeline makes of the records: each output with its part of the pipeline, its rows as an independent reader finds them, and the
//! rows that it must have, computed from the records alone.
//!
//! Another kind of sink is one more [`Output`].

use crate::feed::{PARTITIONS, Record};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use pelton_tests::broker::read_committed;
use pelton_tests::postgres::{Server, USER, instant};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Of the windows, in milliseconds.
const WINDOW_MILLIS: i64 = 10_000;

/// The password of the database is in this variable of the pipeline's process.
pub const PASSWORD_VARIABLE: &str = "PELTON_TEST_PASSWORD";

/// Where everything is.
pub struct Place {
    pub servers: String,
    /// Of the files.
    pub folder: PathBuf,
    pub server: Server,
    /// Of the tables.
    pub database: String,
}

/// What is known beside the records when an answer is computed.
#[derive(Default)]
pub struct Known {
    /// Ids of rows at the output of late ones: which they are depends on when the watermark moved, but each is there or in its window.
    pub late: BTreeSet<i64>,
}

/// A row: what it is about, and what it says of it.
pub type Row = (String, String);

/// An output of the pipeline.
pub trait Output {
    /// For messages.
    fn name(&self) -> &'static str;
    /// The transforms behind `Counts`, `Counts.late`, `Totals` or `Read`.
    fn yaml(&self, place: &Place) -> String;
    /// Everything that a reader sees now.
    fn rows(&self, place: &Place) -> Vec<Row>;
    /// What it must be.
    fn expected(&self, records: &[Record], known: &Known) -> BTreeMap<String, String>;
    /// A topic of this name.
    fn is_topic(&self) -> bool {
        false
    }
}

/// All outputs; what others need to know comes first.
pub fn all() -> Vec<Box<dyn Output>> {
    vec![Box::new(Late), Box::new(Counts), Box::new(Totals), Box::new(Table), Box::new(Newest), Box::new(RawParquet), Box::new(RawJson)]
}

/// Count and sum by user and window.
struct Counts;

impl Output for Counts {
    fn name(&self) -> &'static str {
        "counts"
    }

    fn yaml(&self, place: &Place) -> String {
        format!(
            "    - {{type: ExtractWindowingInfo, name: Windows, input: Counts, config: {{fields: [window_start]}}}}\n{}",
            to_kafka("WriteCounts", "Windows", self.name(), place)
        )
    }

    fn rows(&self, place: &Place) -> Vec<Row> {
        read_topic(place, self.name())
            .iter()
            .map(|row| (format!("{} {}", text(row, "window_start"), text(row, "user")), format!("{} {}", row["n"], row["total"])))
            .collect()
    }

    fn expected(&self, records: &[Record], known: &Known) -> BTreeMap<String, String> {
        let cells = cells(records, known).into_iter();
        cells.map(|((window, user), (n, total))| (format!("{} {user}", start_of(window)), format!("{n} {total}"))).collect()
    }

    fn is_topic(&self) -> bool {
        true
    }
}

/// Count and sum by number of the window and user.
fn cells<'a>(records: &'a [Record], known: &Known) -> BTreeMap<(i64, &'a str), (i64, i64)> {
    let mut cells: BTreeMap<(i64, &str), (i64, i64)> = BTreeMap::new();
    // The windows of the closing records stay open.
    for record in records.iter().filter(|record| !record.closes() && !known.late.contains(&record.id)) {
        let cell = cells.entry((record.millis.div_euclid(WINDOW_MILLIS), &record.user)).or_default();
        *cell = (cell.0 + 1, cell.1 + record.number);
    }
    cells
}

/// The windows once more, in a table that keeps the newest of each user.
pub struct Newest;

impl Output for Newest {
    fn name(&self) -> &'static str {
        "newest"
    }

    fn yaml(&self, place: &Place) -> String {
        to_postgres("WriteNewest", "Windows", self.name(), ", mode: upsert, key: [user]", place)
    }

    fn rows(&self, place: &Place) -> Vec<Row> {
        read_table(place, &format!("SELECT \"user\", {} || ' ' || n || ' ' || total FROM newest", instant("window_start")))
    }

    fn expected(&self, records: &[Record], known: &Known) -> BTreeMap<String, String> {
        let cells = cells(records, known).into_iter();
        cells.map(|((window, user), (n, total))| (user.to_string(), format!("{} {n} {total}", start_of(window)))).collect()
    }
}

/// The running totals once more, in a table without a key.
pub struct Table;

impl Output for Table {
    fn name(&self) -> &'static str {
        "table"
    }

    fn yaml(&self, place: &Place) -> String {
        to_postgres("WriteTable", "Totals", self.name(), "", place)
    }

    fn rows(&self, place: &Place) -> Vec<Row> {
        read_table(place, "SELECT id, total || ' ' || listed || ' ' || mapped FROM \"table\"")
    }

    fn expected(&self, records: &[Record], known: &Known) -> BTreeMap<String, String> {
        Totals.expected(records, known)
    }
}

/// Rows in the table of [`Table`] by now.
pub fn rows_in_table(place: &Place) -> usize {
    place.server.psql(&place.database, "SELECT count(*) FROM \"table\"").parse().unwrap_or(0)
}

/// Rows whose window was closed. Those that are not there are in `counts`, or one of the two is wrong.
struct Late;

impl Output for Late {
    fn name(&self) -> &'static str {
        "late"
    }

    fn yaml(&self, place: &Place) -> String {
        to_kafka("WriteLate", "Counts.late", self.name(), place)
    }

    fn rows(&self, place: &Place) -> Vec<Row> {
        read_topic(place, self.name()).iter().map(raw).collect()
    }

    fn expected(&self, records: &[Record], known: &Known) -> BTreeMap<String, String> {
        records.iter().filter(|record| known.late.contains(&record.id)).map(raw_of).collect()
    }

    fn is_topic(&self) -> bool {
        true
    }
}

/// The plugin's running totals: the order of a user's rows matters, and every row before.
struct Totals;

impl Output for Totals {
    fn name(&self) -> &'static str {
        "totals"
    }

    fn yaml(&self, place: &Place) -> String {
        to_kafka("WriteTotals", "Totals", self.name(), place)
    }

    fn rows(&self, place: &Place) -> Vec<Row> {
        let says = |row: &Value| format!("{} {} {}", row["total"], row["listed"], row["mapped"]);
        read_topic(place, self.name()).iter().map(|row| (row["id"].to_string(), says(row))).collect()
    }

    fn expected(&self, records: &[Record], _: &Known) -> BTreeMap<String, String> {
        let mut users: BTreeMap<&str, (i64, i64, BTreeSet<i64>)> = BTreeMap::new();
        let row = |record| {
            let Record { id, user, number, .. }: &Record = record;
            let (total, rows, seen) = users.entry(user).or_default();
            *total += number;
            *rows += 1;
            seen.insert(*number);
            (id.to_string(), format!("{total} {rows} {}", seen.len()))
        };
        records.iter().map(row).collect()
    }

    fn is_topic(&self) -> bool {
        true
    }
}

/// The records as they are, in Parquet.
struct RawParquet;

impl Output for RawParquet {
    fn name(&self) -> &'static str {
        "parquet"
    }

    fn yaml(&self, place: &Place) -> String {
        to_files("WriteToParquet", "raw-parquet", 2, place)
    }

    fn rows(&self, place: &Place) -> Vec<Row> {
        let mut rows = Vec::new();
        for path in parts(place, "raw-parquet-") {
            let file = std::fs::File::open(&path).expect("a part can be opened");
            let reader = SerializedFileReader::new(file).unwrap_or_else(|error| panic!("{} is not whole: {error}", path.display()));
            let columns: Vec<String> =
                reader.metadata().file_metadata().schema_descr().columns().iter().map(|column| column.name().to_string()).collect();
            let at = |name: &str| columns.iter().position(|column| column == name).expect("a column of the records");
            for row in reader.get_row_iter(None).expect("rows") {
                let row = row.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let (id, number) = (row.get_long(at("id")).expect("an id"), row.get_long(at("number")).expect("a number"));
                rows.push((id.to_string(), format!("{} {number}", row.get_string(at("user")).expect("a user"))));
            }
        }
        rows
    }

    fn expected(&self, records: &[Record], _: &Known) -> BTreeMap<String, String> {
        records.iter().map(raw_of).collect()
    }
}

/// The records as they are, in files that are written on over many epochs.
struct RawJson;

impl Output for RawJson {
    fn name(&self) -> &'static str {
        "json"
    }

    fn yaml(&self, place: &Place) -> String {
        to_files("WriteToJson", "raw-json", 1, place)
    }

    fn rows(&self, place: &Place) -> Vec<Row> {
        let texts = parts(place, "raw-json-").into_iter().map(|path| std::fs::read_to_string(&path).expect("a part can be read"));
        let row = |line: &str| raw(&serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")));
        texts.flat_map(|text| text.lines().map(row).collect::<Vec<_>>()).collect()
    }

    fn expected(&self, records: &[Record], _: &Known) -> BTreeMap<String, String> {
        records.iter().map(raw_of).collect()
    }
}

fn to_kafka(name: &str, input: &str, topic: &str, place: &Place) -> String {
    format!(
        "    - {{type: WriteToKafka, name: {name}, input: {input}, config: {{topic: {topic}, bootstrap_servers: '{}', format: JSON, key: user}}}}\n",
        place.servers
    )
}

fn to_postgres(name: &str, input: &str, table: &str, more: &str, place: &Place) -> String {
    let at = format!("url: 'postgresql://127.0.0.1:{}/{}', username: {USER}", place.server.port(), place.database);
    let password = format!("password: '${{secret:env:{PASSWORD_VARIABLE}}}'");
    format!(
        "    - {{type: WriteToPostgres, name: {name}, input: {input}, config: {{{at}, {password}, table: {table}, create: if_missing{more}}}}}\n"
    )
}

/// The two columns of a query.
fn read_table(place: &Place, query: &str) -> Vec<Row> {
    let text = place.server.psql(&place.database, query);
    text.lines().map(|line| line.split_once('|').map(|(key, says)| (key.into(), says.into())).expect("two columns")).collect()
}

fn to_files(kind: &str, name: &str, shards: u32, place: &Place) -> String {
    let path = place.folder.join(name);
    format!(
        "    - {{type: {kind}, input: Read, config: {{path: '{}', num_shards: {shards}, roll: {{interval: 2s, size: 64KiB}}}}}}\n",
        path.display()
    )
}

/// The start of a window by its number.
fn start_of(window: i64) -> String {
    let seconds = window * WINDOW_MILLIS / 1_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    format!("2026-01-{:02}T{hours:02}:{minutes:02}:{:02}Z", days + 1, seconds % 60)
}

fn text<'a>(row: &'a Value, column: &str) -> &'a str {
    row[column].as_str().unwrap_or_else(|| panic!("no text `{column}` in {row}"))
}

fn raw(row: &Value) -> Row {
    (row["id"].to_string(), format!("{} {}", text(row, "user"), row["number"]))
}

fn raw_of(record: &Record) -> Row {
    (record.id.to_string(), format!("{} {}", record.user, record.number))
}

/// Files under their final names: hidden ones begin with a dot.
fn parts(place: &Place, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(&place.folder).expect("the folder of the files").flatten();
    entries.map(|entry| entry.path()).filter(|path| starts(path, prefix)).collect()
}

fn starts(path: &Path, prefix: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

/// Every committed record of a topic.
fn read_topic(place: &Place, topic: &str) -> Vec<Value> {
    read_committed(&place.servers, topic, PARTITIONS)
}
