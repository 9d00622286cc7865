//! Batches of one schema as an Arrow IPC stream.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;

/// Writes batches, all of this schema.
pub fn write_ipc(schema: &Schema, batches: &[RecordBatch]) -> Result<Vec<u8>, String> {
    let written = || {
        let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
        batches.iter().try_for_each(|batch| writer.write(batch))?;
        writer.into_inner()
    };
    written().map_err(|error| error.to_string())
}

/// Reads them.
pub fn read_ipc(bytes: &[u8]) -> Result<Vec<RecordBatch>, String> {
    let reader = StreamReader::try_new(bytes, None).map_err(|error| error.to_string())?;
    reader.map(|batch| batch.map_err(|error| error.to_string())).collect()
}
