//! ExtractWindowingInfo: event time, window, pane and processing time as columns. It shows the window to the user, so from
//! here on each row has exactly one.

use crate::failure::Failure;
use crate::operator::{MAIN, Operator, Out};
use crate::windows;
use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Fields, SchemaRef, TimeUnit};
use async_trait::async_trait;
use pelton_core::batch::{PaneInfo, PaneTiming, RowWindows};
use pelton_core::{Batch, Window, WindowFn};
use pelton_pipeline::graph::WindowingInfo;
use std::sync::Arc;

/// The operator.
pub struct ExtractWindowingInfo {
    /// Columns of the output: the input's, then one for each of `fields`.
    pub schema: SchemaRef,
    /// Names of the input's columns that stay, in order.
    pub passed: Vec<String>,
    /// What the added columns hold.
    pub fields: Vec<WindowingInfo>,
    /// Window function of the input.
    pub window_fn: WindowFn,
}

/// The type of an added column.
pub fn data_type(info: WindowingInfo) -> DataType {
    match info {
        WindowingInfo::Timestamp | WindowingInfo::WindowStart | WindowingInfo::WindowEnd | WindowingInfo::ProcessingTimestamp => {
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        }
        WindowingInfo::WindowString | WindowingInfo::WindowType => DataType::Utf8,
        WindowingInfo::PaneInfo => DataType::Struct(pane_fields()),
    }
}

fn pane_fields() -> Fields {
    Fields::from(vec![
        Field::new("is_first", DataType::Boolean, false),
        Field::new("is_last", DataType::Boolean, false),
        Field::new("timing", DataType::Utf8, false),
        Field::new("index", DataType::Int64, false),
        Field::new("nonspeculative_index", DataType::Int64, false),
    ])
}

#[async_trait(?Send)]
impl Operator for ExtractWindowingInfo {
    async fn data(&mut self, _input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        let batch = windows::fixed(batch, self.window_fn, &mut out.account);
        out.account.led += batch.num_rows() as u64;
        let (rows, windows) = (batch.num_rows(), batch.windows.clone().expect("fixed just now"));
        let mut columns: Vec<ArrayRef> =
            self.passed.iter().map(|name| batch.rows.column_by_name(name).expect("checked when bound").clone()).collect();
        for info in &self.fields {
            columns.push(match info {
                WindowingInfo::Timestamp => instants(batch.times.iter().copied()),
                WindowingInfo::ProcessingTimestamp => instants(std::iter::repeat_n(out.now.micros(), rows)),
                WindowingInfo::WindowStart => instants(each(&windows).map(|window| window.start.micros())),
                WindowingInfo::WindowEnd => instants(each(&windows).map(|window| window.end.micros())),
                WindowingInfo::WindowString => Arc::new(StringArray::from_iter_values(each(&windows).map(as_beam))),
                WindowingInfo::WindowType => Arc::new(StringArray::from_iter_values(
                    each(&windows).map(|window| if window == Window::GLOBAL { "GlobalWindow" } else { "IntervalWindow" }),
                )),
                WindowingInfo::PaneInfo => pane(windows.pane, rows),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let made = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).expect("columns follow the schema");
        out.rows(MAIN, batch.with_columns(made));
        Ok(())
    }
}

fn each(windows: &RowWindows) -> impl Iterator<Item = Window> + '_ {
    windows.index.iter().map(|number| windows.table[*number as usize])
}

fn instants(micros: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone("UTC"))
}

/// As Beam's Python SDK writes a window.
fn as_beam(window: Window) -> String {
    if window == Window::GLOBAL {
        return "GlobalWindow".into();
    }
    let seconds = |micros: i64| {
        let seconds = micros as f64 / 1e6;
        if seconds.fract() == 0.0 { format!("{seconds:.1}") } else { seconds.to_string() }
    };
    format!("[{}, {})", seconds(window.start.micros()), seconds(window.end.micros()))
}

fn pane(pane: PaneInfo, rows: usize) -> ArrayRef {
    let timing = match pane.timing {
        PaneTiming::Early => "EARLY",
        PaneTiming::OnTime => "ON_TIME",
        PaneTiming::Late => "LATE",
        PaneTiming::Unknown => "UNKNOWN",
    };
    Arc::new(StructArray::new(
        pane_fields(),
        vec![
            Arc::new(BooleanArray::from(vec![pane.is_first; rows])),
            Arc::new(BooleanArray::from(vec![pane.is_last; rows])),
            Arc::new(StringArray::from(vec![timing; rows])),
            Arc::new(Int64Array::from(vec![pane.index; rows])),
            Arc::new(Int64Array::from(vec![pane.nonspeculative_index; rows])),
        ],
        None,
    ))
}
