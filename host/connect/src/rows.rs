//! A source of rows that a transform makes itself: no files, no network.

use crate::ConnectError;
use crate::batch_rows::BatchRows;
use crate::source::{Reader, Source, SourceBatch, SourceContext};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use pelton_core::{Split, SplitPosition};
use std::sync::Arc;

/// Rows that are known in full, read by one reader.
pub struct RowsSource {
    ctx: SourceContext,
    rows: RecordBatch,
    split: Arc<Split>,
    /// What the rows follow from.
    plan: Vec<u8>,
    /// Rows that an earlier life has given.
    given: usize,
}

impl RowsSource {
    /// Gives these rows; `plan` is what they follow from.
    pub fn new(ctx: SourceContext, rows: RecordBatch, plan: Vec<u8>) -> RowsSource {
        let split = Arc::new(Split::Generated { name: ctx.transform.clone(), part: 0 });
        RowsSource { ctx, rows, split, plan, given: 0 }
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

    fn plan(&self) -> Vec<u8> {
        self.plan.clone()
    }

    fn restore(&mut self, plan: &[u8], positions: Vec<SplitPosition>) -> Result<(), ConnectError> {
        let Some(position) = positions.first() else { return Ok(()) };
        if plan != self.plan {
            return Err(ConnectError::user(
                format!("{}: its rows are no longer those that it has begun with", self.ctx.transform),
                "put them back as they were, or begin anew with an empty state",
            ));
        }
        let given: u64 = serde_json::from_slice(&position.position).map_err(ConnectError::internal)?;
        self.given = (given as usize).min(self.rows.num_rows());
        Ok(())
    }

    fn readers(self: Box<Self>, count: usize) -> Result<Vec<Box<dyn Reader>>, ConnectError> {
        let first = (0..count).map(|number| RowsReader {
            rows: (number == 0).then(|| self.rows.clone()),
            at: self.given,
            begun: number == 0 && self.given > 0,
            split: self.split.clone(),
            stop: self.ctx.stop.clone(),
            batch: BatchRows::default(),
        });
        Ok(first.map(|reader| Box::new(reader) as Box<dyn Reader>).collect())
    }
}

struct RowsReader {
    rows: Option<RecordBatch>,
    at: usize,
    begun: bool,
    split: Arc<Split>,
    stop: tokio::sync::watch::Receiver<bool>,
    batch: BatchRows,
}

#[async_trait]
impl Reader for RowsReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>, ConnectError> {
        let Some(rows) = self.rows.as_ref().filter(|_| !*self.stop.borrow()) else { return Ok(None) };
        let (from, total) = (self.at, rows.num_rows());
        let length = (total - from).min(self.batch.most);
        self.batch = self.batch.next();
        (self.at, self.begun) = (from + length, true);
        let offsets = (from as i64..self.at as i64).collect();
        let batch =
            SourceBatch { split_ended: self.at == total, ..SourceBatch::new(rows.slice(from, length), self.split.clone(), offsets) };
        if self.at == total {
            self.rows = None;
        }
        Ok(Some(batch))
    }

    fn positions(&self) -> Vec<SplitPosition> {
        let position = || SplitPosition { split: self.split.id(), position: self.at.to_string().into_bytes() };
        self.begun.then(position).into_iter().collect()
    }

    fn unclaimed(&self) -> bool {
        false
    }
}
