//! `ReadFromParquet` and `ReadFromAvro`: files that say themselves what their columns are.

use crate::ConnectError;
use crate::file::avro_blocks::{Start, find_row};
use crate::file::batches::{BatchSource, Batches, OpenBatches};
use crate::file::find::find;
use crate::settings::Settings;
use crate::source::{Source, SourceContext};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_avro::reader::ReaderBuilder;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use pelton_core::batch::MAX_ROWS;
use pelton_core::catalog::{ConfigFault, ConnectorSpec, KeySpec, Role};
use serde_json::Value;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

const PATH: KeySpec = KeySpec {
    name: "path",
    required: true,
    doc: "Path or glob of the files; relative paths start at the working directory. The columns are those of the first file.",
};

/// `ReadFromParquet`.
pub static PARQUET: ConnectorSpec = ConnectorSpec {
    name: "ReadFromParquet",
    role: Role::Source,
    doc: "Reads Parquet files, only the columns that are used; a file is read by one task.",
    keys: &[PATH],
    has_errors: false,
    endless: |_| false,
    timed: false,
    check,
};

/// `ReadFromAvro`.
pub static AVRO: ConnectorSpec = ConnectorSpec {
    name: "ReadFromAvro",
    role: Role::Source,
    doc: "Reads Avro object container files (uncompressed, deflate, snappy, zstandard); a file is read by one task. Enums are strings.",
    keys: &[PATH],
    has_errors: false,
    endless: |_| false,
    timed: false,
    check,
};

fn check(config: &Value) -> Vec<ConfigFault> {
    let mut settings = Settings::new(config);
    settings.string("path");
    settings.into_faults()
}

/// Finds Parquet files.
pub async fn open_parquet(config: Value, ctx: SourceContext) -> Result<Box<dyn Source>, ConnectError> {
    open(config, ctx, parquet).await
}

/// Finds Avro files.
pub async fn open_avro(config: Value, ctx: SourceContext) -> Result<Box<dyn Source>, ConnectError> {
    open(config, ctx, avro).await
}

async fn open(config: Value, ctx: SourceContext, open: OpenBatches) -> Result<Box<dyn Source>, ConnectError> {
    let path = Settings::new(&config).string("path").unwrap_or_default();
    let io = ctx.io.clone();
    let opened = io.spawn_blocking(move || BatchSource::open(ctx.clone(), find(&ctx.base_dir, &path)?, open)).await;
    Ok(Box::new(opened.map_err(ConnectError::internal)??))
}

fn parquet(path: &Path, columns: Option<&[String]>, skip: u64) -> Result<(SchemaRef, Batches), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
    let schema = builder.schema().clone();
    let rows = builder.metadata().file_metadata().num_rows().unsigned_abs();
    if skip > rows {
        return Err(format!("it was read up to row {skip}, and has only {rows}"));
    }
    let wanted = |name: &str| columns.is_none_or(|columns| columns.iter().any(|column| column == name));
    let roots: Vec<usize> = (0..schema.fields().len()).filter(|root| wanted(schema.field(*root).name())).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let reader =
        builder.with_projection(mask).with_batch_size(MAX_ROWS).with_offset(skip as usize).build().map_err(|error| error.to_string())?;
    Ok((schema, Box::new(reader.map(|batch| batch.map_err(|error| error.to_string())))))
}

fn avro(path: &Path, _columns: Option<&[String]>, skip: u64) -> Result<(SchemaRef, Batches), String> {
    let Start { header, block, rows } = find_row(path, skip)?;
    let open = || File::open(path).map_err(|error| error.to_string());
    let mut blocks = open()?;
    blocks.seek(SeekFrom::Start(block)).map_err(|error| error.to_string())?;
    let input = BufReader::new(open()?.take(header).chain(blocks));
    let reader = ReaderBuilder::new().with_batch_size(MAX_ROWS).build(input).map_err(|error| error.to_string())?;
    let schema = reader.schema();
    let mut left = rows as usize;
    let rest = move |batch: Result<RecordBatch, ArrowError>| {
        batch.map_err(|error| error.to_string()).map(|batch| {
            let passed = left.min(batch.num_rows());
            left -= passed;
            batch.slice(passed, batch.num_rows() - passed)
        })
    };
    Ok((schema, Box::new(reader.map(rest))))
}
