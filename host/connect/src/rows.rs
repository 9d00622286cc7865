//! A source of rows that a transform makes itself: no files, no network.

use crate::ConnectError;
use crate::source::{Reader, Source, SourceBatch, SourceContext};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use pelton_core::Split;
use pelton_core::batch::MAX_ROWS;
use std::sync::Arc;

/// Rows that are known in full, read by one reader.
pub struct RowsSource {
    ctx: SourceContext,
    rows: RecordBatch,
    split: Arc<Split>,
}

impl RowsSource {
    /// Gives these rows.
    pub fn new(ctx: SourceContext, rows: RecordBatch) -> RowsSource {
        let split = Arc::new(Split::Generated { name: ctx.transform.clone(), part: 0 });
        RowsSource { ctx, rows, split }
    }
}

impl Source for RowsSource {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn bounded(&self) -> bool {
        true
    }

    fn splits(&self) -> Vec<Arc<Split>> {
        vec![self.split.clone()]
    }

    fn project(&mut self, columns: &[String]) {
        let schema = self.rows.schema();
        let wanted: Vec<usize> = (0..schema.fields().len()).filter(|column| columns.contains(schema.field(*column).name())).collect();
        if let Ok(rows) = self.rows.project(&wanted) {
            self.rows = rows;
        }
    }

    fn readers(self: Box<Self>, count: usize) -> Result<Vec<Box<dyn Reader>>, ConnectError> {
        let first = (0..count).map(|number| RowsReader {
            rows: (number == 0).then(|| self.rows.clone()),
            at: 0,
            split: self.split.clone(),
            stop: self.ctx.stop.clone(),
        });
        Ok(first.map(|reader| Box::new(reader) as Box<dyn Reader>).collect())
    }
}

struct RowsReader {
    rows: Option<RecordBatch>,
    at: usize,
    split: Arc<Split>,
    stop: tokio::sync::watch::Receiver<bool>,
}

#[async_trait]
impl Reader for RowsReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>, ConnectError> {
        let Some(rows) = self.rows.as_ref().filter(|_| !*self.stop.borrow()) else { return Ok(None) };
        let (from, total) = (self.at, rows.num_rows());
        let length = (total - from).min(MAX_ROWS);
        self.at += length;
        let offsets = (from as i64..self.at as i64).collect();
        let batch =
            SourceBatch { split_ended: self.at == total, ..SourceBatch::new(rows.slice(from, length), self.split.clone(), offsets) };
        if self.at == total {
            self.rows = None;
        }
        Ok(Some(batch))
    }

    fn unclaimed(&self) -> bool {
        false
    }
}
