//! Rows as an Avro object container file, by the `arrow-avro` crate. Each batch is a block of the file.

use crate::file::part::Encode;
use crate::parquet_write::Written;
use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow_avro::compression::CompressionCodec;
use arrow_avro::writer::format::AvroOcfFormat;
use arrow_avro::writer::{Writer, WriterBuilder};
use pelton_core::RowError;

/// The names of compressions.
pub fn choices() -> [(&'static str, Option<CompressionCodec>); 4] {
    [
        ("deflate", Some(CompressionCodec::Deflate)),
        ("snappy", Some(CompressionCodec::Snappy)),
        ("zstd", Some(CompressionCodec::ZStandard)),
        ("none", None),
    ]
}

/// One Avro file.
pub struct AvroEncode {
    writer: Option<Writer<Written, AvroOcfFormat>>,
    written: Written,
}

impl AvroEncode {
    /// A file of these columns.
    pub fn new(schema: &SchemaRef, compression: Option<CompressionCodec>) -> Result<AvroEncode, String> {
        let written = Written::default();
        let builder = WriterBuilder::new(schema.as_ref().clone()).with_compression(compression);
        let writer = builder.build::<_, AvroOcfFormat>(written.clone()).map_err(|error| error.to_string())?;
        Ok(AvroEncode { writer: Some(writer), written })
    }
}

impl Encode for AvroEncode {
    fn begin(&mut self, _out: &mut Vec<u8>) -> Result<(), String> {
        Ok(())
    }

    fn rows(&mut self, batch: &RecordBatch, picked: &[u32], out: &mut Vec<u8>) -> Result<Vec<RowError>, String> {
        let writer = self.writer.as_mut().ok_or("the file has ended")?;
        let rows = match picked.len() == batch.num_rows() {
            true => batch.clone(),
            false => take_record_batch(batch, &UInt32Array::from(picked.to_vec())).map_err(|error| error.to_string())?,
        };
        writer.write(&rows).map_err(|error| error.to_string())?;
        self.written.take(out);
        Ok(Vec::new())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        if let Some(mut writer) = self.writer.take() {
            writer.finish().map_err(|error| error.to_string())?;
        }
        self.written.take(out);
        Ok(())
    }

    fn appends(&self) -> bool {
        false
    }
}
