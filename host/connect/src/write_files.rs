//! `WriteToText`, `WriteToJson`, `WriteToCsv`, `WriteToParquet` and `WriteToAvro`: one sink of files, five encoders.

use crate::ConnectError;
use crate::avro_write::{self, AvroEncode};
use crate::commit::{CommitTarget, Committer, Identity};
use crate::file::committer::FileCommitter;
use crate::file::part::Encode;
use crate::file::publish::Disposition;
use crate::file::sink::{self, FileOptions};
use crate::format::csv_write::{CsvEncoder, write_header, write_value};
use crate::format::json_write::{Cells, JsonEncoder};
use crate::parquet_write::{ParquetCompression, ParquetEncode, choices};
use crate::registry::{MAX_SHARDS, sink_shards};
use crate::settings::Settings;
use crate::sink::{Sink, SinkContext};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use pelton_core::catalog::{ConfigFault, ConnectorSpec, KeySpec, Role};
use pelton_core::{Duration, RowError};
use serde_json::Value;

const PATH: KeySpec = KeySpec {
    name: "path",
    required: true,
    doc: "Beginning of the files' names: a bounded run publishes PATH-SSSSS-of-NNNNN at its end, an unbounded one PATH-<window or time>-<part> as it goes.",
};
const NUM_SHARDS: KeySpec =
    KeySpec { name: "num_shards", required: false, doc: "Files that a bounded run writes, and tasks that write them (default 1)." };
const WRITE_DISPOSITION: KeySpec = KeySpec {
    name: "write_disposition",
    required: false,
    doc: "`truncate` removes the files of earlier runs when new ones are published, `append` keeps them, `fail-if-exists` refuses to start beside them (default: truncate for bounded input, append for unbounded). With checkpoints `append` is refused beside files that the pipeline did not write.",
};
const ROLL: KeySpec = KeySpec {
    name: "roll",
    required: false,
    doc: "`{size, interval}`: an unbounded run publishes a part when it has this size (default 128MiB) or age (default 60s); with checkpoints at the next one.",
};
const DELIMITER: KeySpec = KeySpec { name: "delimiter", required: false, doc: "The character between fields (default `,`)." };
const COMPRESSION: KeySpec = KeySpec { name: "compression", required: false, doc: "`zstd` (default), `snappy` or `none`." };

const AVRO_COMPRESSION: KeySpec =
    KeySpec { name: "compression", required: false, doc: "`deflate` (default, as in Beam), `snappy`, `zstd` or `none`." };

/// `WriteToText`.
pub static TEXT: ConnectorSpec = ConnectorSpec {
    name: "WriteToText",
    role: Role::Sink,
    doc: "Writes rows of exactly one field as lines of text; a null is a blank line. Exactly once where the pipeline takes checkpoints.",
    keys: &[PATH, NUM_SHARDS, WRITE_DISPOSITION, ROLL],
    has_errors: true,
    endless: |_| false,
    timed: false,
    check: |config| check(config).1,
};

/// `WriteToJson`.
pub static JSON: ConnectorSpec = ConnectorSpec {
    name: "WriteToJson",
    role: Role::Sink,
    doc: "Writes rows as JSON objects, one a line: timestamps as RFC 3339 with Z, bytes as base64; rows with NaN or infinities are refused. Exactly once where the pipeline takes checkpoints.",
    keys: &[PATH, NUM_SHARDS, WRITE_DISPOSITION, ROLL],
    has_errors: true,
    endless: |_| false,
    timed: false,
    check: |config| check(config).1,
};

/// `WriteToCsv`.
pub static CSV: ConnectorSpec = ConnectorSpec {
    name: "WriteToCsv",
    role: Role::Sink,
    doc: "Writes rows as CSV with a header: null is blank, an empty string is \"\", lists and rows are JSON text. Exactly once where the pipeline takes checkpoints.",
    keys: &[PATH, DELIMITER, NUM_SHARDS, WRITE_DISPOSITION, ROLL],
    has_errors: true,
    endless: |_| false,
    timed: false,
    check: |config| check(config).1,
};

/// `WriteToParquet`.
pub static PARQUET: ConnectorSpec = ConnectorSpec {
    name: "WriteToParquet",
    role: Role::Sink,
    doc: "Writes rows as Parquet. Exactly once where the pipeline takes checkpoints.",
    keys: &[PATH, COMPRESSION, NUM_SHARDS, WRITE_DISPOSITION, ROLL],
    has_errors: false,
    endless: |_| false,
    timed: false,
    check: |config| {
        let mut faults = check(config).1;
        let mut settings = Settings::new(config);
        settings.choice("compression", &choices());
        faults.extend(settings.into_faults());
        faults
    },
};

/// `WriteToAvro`.
pub static AVRO: ConnectorSpec = ConnectorSpec {
    name: "WriteToAvro",
    role: Role::Sink,
    doc: "Writes rows as Avro object container files, with a schema made of the columns. Exactly once where the pipeline takes checkpoints.",
    keys: &[PATH, AVRO_COMPRESSION, NUM_SHARDS, WRITE_DISPOSITION, ROLL],
    has_errors: false,
    endless: |_| false,
    timed: false,
    check: |config| {
        let mut faults = check(config).1;
        let mut settings = Settings::new(config);
        settings.choice("compression", &avro_write::choices());
        faults.extend(settings.into_faults());
        faults
    },
};

fn check(config: &Value) -> ((FileOptions, u8), Vec<ConfigFault>) {
    let mut settings = Settings::new(config);
    settings.integer("num_shards", 1..=MAX_SHARDS as u64);
    let dispositions =
        [("truncate", Disposition::Truncate), ("append", Disposition::Append), ("fail-if-exists", Disposition::FailIfExists)];
    let disposition = settings.choice("write_disposition", &dispositions);
    let delimiter = settings.character("delimiter").unwrap_or(b',');
    let mut roll = settings.section("roll", &["size", "interval"]);
    let options = FileOptions {
        path: settings.string("path").unwrap_or_default(),
        disposition,
        roll_bytes: roll.size("size").unwrap_or(128 << 20).max(1),
        roll_interval: roll.duration("interval").unwrap_or(Duration::from_micros(60_000_000)),
    };
    settings.absorb(roll);
    if options.path.ends_with('/') {
        settings.fault("path", "`path` ends with `/`", "give the beginning of the files' names too, such as out/part");
    }
    ((options, delimiter), settings.into_faults())
}

/// Opens a shard of `WriteToText`.
pub async fn open_text(config: Value, ctx: SinkContext) -> Result<Box<dyn Sink>, ConnectError> {
    let columns = ctx.schema.fields().len();
    if columns != 1 {
        return Err(ConnectError::user(
            format!("{}: WriteToText takes rows of exactly one field, and these have {columns}", ctx.transform),
            "map the row to one string before, or use WriteToJson or WriteToCsv",
        ));
    }
    sink::open(check(&config).0.0, Box::new(|_| Ok(Box::new(Lines::Text) as Box<dyn Encode>)), ctx).await
}

/// Opens a shard of `WriteToJson`.
pub async fn open_json(config: Value, ctx: SinkContext) -> Result<Box<dyn Sink>, ConnectError> {
    let make = |schema: &SchemaRef| {
        JsonEncoder::new(&RecordBatch::new_empty(schema.clone()))?;
        Ok(Box::new(Lines::Json) as Box<dyn Encode>)
    };
    sink::open(check(&config).0.0, Box::new(make), ctx).await
}

/// Opens a shard of `WriteToCsv`.
pub async fn open_csv(config: Value, ctx: SinkContext) -> Result<Box<dyn Sink>, ConnectError> {
    let (options, delimiter) = check(&config).0;
    let make = move |schema: &SchemaRef| {
        CsvEncoder::new(&RecordBatch::new_empty(schema.clone()), delimiter)?;
        Ok(Box::new(Lines::Csv { schema: schema.clone(), delimiter }) as Box<dyn Encode>)
    };
    sink::open(options, Box::new(make), ctx).await
}

/// Opens a shard of `WriteToParquet`.
pub async fn open_parquet(config: Value, ctx: SinkContext) -> Result<Box<dyn Sink>, ConnectError> {
    let compression = Settings::new(&config).choice("compression", &choices()).unwrap_or(ParquetCompression::Zstd);
    let make = move |schema: &SchemaRef| Ok(Box::new(ParquetEncode::new(schema.clone(), compression)?) as Box<dyn Encode>);
    sink::open(check(&config).0.0, Box::new(make), ctx).await
}

/// Opens a shard of `WriteToAvro`.
pub async fn open_avro(config: Value, ctx: SinkContext) -> Result<Box<dyn Sink>, ConnectError> {
    let [(_, default), ..] = avro_write::choices();
    let compression = Settings::new(&config).choice("compression", &avro_write::choices()).unwrap_or(default);
    let make = move |schema: &SchemaRef| Ok(Box::new(AvroEncode::new(schema, compression)?) as Box<dyn Encode>);
    sink::open(check(&config).0.0, Box::new(make), ctx).await
}

/// Commits for any of these sinks.
pub async fn open_committer(
    target: CommitTarget,
    identity: Identity,
    io: tokio::runtime::Handle,
) -> Result<Box<dyn Committer>, ConnectError> {
    let shards = sink_shards(&target.kind, &target.config);
    Ok(Box::new(FileCommitter::new(target, &identity, shards, io)?))
}

/// Formats whose rows are written one after the other.
enum Lines {
    Text,
    Json,
    Csv { schema: SchemaRef, delimiter: u8 },
}

impl Encode for Lines {
    fn begin(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        if let Lines::Csv { schema, delimiter } = self {
            write_header(schema, *delimiter, out);
        }
        Ok(())
    }

    #[allow(clippy::type_complexity, reason = "the closure's type is said once, where it is used")]
    fn rows(&mut self, batch: &RecordBatch, picked: &[u32], out: &mut Vec<u8>) -> Result<Vec<RowError>, String> {
        let mut errors = Vec::new();
        let mut each = |write: &mut dyn FnMut(usize, &mut Vec<u8>) -> Result<(), String>| {
            for row in picked {
                if let Err(message) = write(*row as usize, out) {
                    errors.push(RowError { row: *row, message, stack: String::new() });
                }
            }
        };
        match self {
            Lines::Text => {
                let cells = Cells::of(batch.column(0))?;
                each(&mut |row, out| {
                    let start = out.len();
                    write_value(&cells, row, None, out).inspect_err(|_| out.truncate(start))?;
                    out.push(b'\n');
                    Ok(())
                });
            }
            Lines::Json => {
                let encoder = JsonEncoder::new(batch)?;
                each(&mut |row, out| {
                    encoder.write(row, out)?;
                    out.push(b'\n');
                    Ok(())
                });
            }
            Lines::Csv { delimiter, .. } => {
                let encoder = CsvEncoder::new(batch, *delimiter)?;
                each(&mut |row, out| encoder.write(row, out));
            }
        }
        Ok(errors)
    }

    fn end(&mut self, _out: &mut Vec<u8>) -> Result<(), String> {
        Ok(())
    }

    fn appends(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_fault_is_found() {
        let config = json!({"path": "out/", "num_shards": 0, "write_disposition": "trunkate", "roll": {"size": "x"}, "delimiter": "::"});
        let mut paths: Vec<String> = (CSV.check)(&config).iter().map(|fault| fault.path.join(".")).collect();
        paths.sort();
        assert_eq!(paths, ["delimiter", "num_shards", "path", "roll.size", "write_disposition"]);
        assert_eq!((PARQUET.check)(&json!({"path": "x", "compression": "lz4"}))[0].path, ["compression"]);
    }
}
