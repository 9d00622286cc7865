//! Rows as a Parquet file, by the `parquet` crate.
//!
//! A row group is kept in memory until it is complete; it is closed at [`ROW_GROUP_BYTES`].

use crate::file::part::Encode;
use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use pelton_core::RowError;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

/// Readers want large groups; the memory of a sink wants small ones.
const ROW_GROUP_BYTES: usize = 32 << 20;

/// What a config may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParquetCompression {
    /// Zstandard at its default level.
    Zstd,
    /// Snappy.
    Snappy,
    /// None.
    None,
}

/// The names of compressions.
pub fn choices() -> [(&'static str, ParquetCompression); 3] {
    [("zstd", ParquetCompression::Zstd), ("snappy", ParquetCompression::Snappy), ("none", ParquetCompression::None)]
}

/// What the writer has written and nobody has taken yet.
#[derive(Clone, Default)]
pub(crate) struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    pub(crate) fn take(&self, out: &mut Vec<u8>) {
        out.append(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// One Parquet file.
pub struct ParquetEncode {
    writer: Option<ArrowWriter<Written>>,
    written: Written,
}

impl ParquetEncode {
    /// A file of these columns.
    pub fn new(schema: SchemaRef, compression: ParquetCompression) -> Result<ParquetEncode, String> {
        let compression = match compression {
            ParquetCompression::Zstd => Compression::ZSTD(ZstdLevel::default()),
            ParquetCompression::Snappy => Compression::SNAPPY,
            ParquetCompression::None => Compression::UNCOMPRESSED,
        };
        let properties = WriterProperties::builder().set_compression(compression).set_created_by("pelton".into()).build();
        let written = Written::default();
        let writer = ArrowWriter::try_new(written.clone(), schema, Some(properties)).map_err(|error| error.to_string())?;
        Ok(ParquetEncode { writer: Some(writer), written })
    }
}

/// A file that a tool writes, batch by batch. All calls block.
pub struct ParquetFile(ArrowWriter<std::fs::File>);

impl ParquetFile {
    /// Creates it.
    pub fn create(file: &std::path::Path, schema: SchemaRef) -> Result<ParquetFile, String> {
        let out = std::fs::File::create(file).map_err(|error| error.to_string())?;
        ArrowWriter::try_new(out, schema, None).map(ParquetFile).map_err(|error| error.to_string())
    }

    /// Appends rows.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), String> {
        self.0.write(rows).map_err(|error| error.to_string())?;
        if self.0.in_progress_size() < ROW_GROUP_BYTES { Ok(()) } else { self.0.flush().map_err(|error| error.to_string()) }
    }

    /// The file is whole after this.
    pub fn close(self) -> Result<(), String> {
        self.0.close().map(drop).map_err(|error| error.to_string())
    }
}

impl Encode for ParquetEncode {
    fn begin(&mut self, _out: &mut Vec<u8>) -> Result<(), String> {
        Ok(())
    }

    fn rows(&mut self, batch: &RecordBatch, picked: &[u32], out: &mut Vec<u8>) -> Result<Vec<RowError>, String> {
        let writer = self.writer.as_mut().ok_or("the file has ended")?;
        let all = picked.len() == batch.num_rows();
        let rows = match all {
            true => batch.clone(),
            false => take_record_batch(batch, &UInt32Array::from(picked.to_vec())).map_err(|error| error.to_string())?,
        };
        writer.write(&rows).map_err(|error| error.to_string())?;
        if writer.in_progress_size() >= ROW_GROUP_BYTES {
            writer.flush().map_err(|error| error.to_string())?;
        }
        self.written.take(out);
        Ok(Vec::new())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        if let Some(writer) = self.writer.take() {
            writer.close().map_err(|error| error.to_string())?;
        }
        self.written.take(out);
        Ok(())
    }

    fn appends(&self) -> bool {
        false
    }
}
