//! The real operator: a stream through `Combine` with `group`, whose lists are the panes' values.
//!
//! An operator gets time only with its calls, so it is driven here as a task would: rows, watermarks, ticks.

use crate::cells::Pane;
use crate::streams::{Event, Stream};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use pelton_core::watermark::Watermark;
use pelton_core::{Batch, Instant, Positions};
use pelton_expr::{Expression, Language};
use pelton_pipeline::graph::AggregateFunction;
use pelton_runtime::message::Message;
use pelton_runtime::operator::{MAIN, Operator, Out, Refusals};
use pelton_runtime::operators::combine::{Combine, CombinePlan};
use pelton_runtime::operators::late::late_schema;
use std::sync::Arc;

/// The panes of a stream, in their order for each event. With `together`, rows that follow each other come in one batch;
/// their panes have the number of its last row.
pub fn run(stream: &Stream, together: bool) -> Vec<Pane> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(drive(stream, together))
}

async fn drive(stream: &Stream, together: bool) -> Vec<Pane> {
    let mut operator = operator(stream);
    let mut now = Instant::from_micros_saturating(0);
    let mut panes = Vec::new();
    let mut rows: Vec<(&str, i64, Instant)> = Vec::new();
    for (number, event) in stream.events.iter().enumerate() {
        if let Event::ProcessingTime(by) = event {
            now = now.saturating_add(*by);
        }
        let mut out = Out::new(now);
        match event {
            Event::Row { key, value, time } => {
                rows.push((key, *value, *time));
                let more = matches!(stream.events.get(number + 1), Some(Event::Row { .. }));
                if !(together && more) {
                    operator.data(0, batch(&std::mem::take(&mut rows)), &mut out).await.expect("rows are sound");
                }
            }
            Event::Watermark(at) => operator.watermark(Watermark::Active(*at), &mut out).await.expect("panes are sound"),
            Event::ProcessingTime(_) => operator.tick(&mut out).await.expect("panes are sound"),
        }
        panes.extend(given(number, out));
    }
    let mut out = Out::new(now);
    operator.watermark(Watermark::Active(Instant::MAX), &mut out).await.expect("panes are sound");
    panes.extend(given(stream.events.len(), out));
    panes
}

fn input() -> Schema {
    Schema::new(vec![Field::new("k", DataType::Utf8, false), Field::new("v", DataType::Int64, false)])
}

fn operator(stream: &Stream) -> Combine {
    let input = Arc::new(input());
    let column = |name: &str| Expression::compile(Language::Generic, name, &input).expect("a column");
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
    let plan = CombinePlan {
        group_by: vec![column("k")],
        group_types: vec![DataType::Utf8],
        aggregates: vec![(AggregateFunction::Group, Some(column("v")))],
        plugins: vec![],
        schema: Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8, true), Field::new("values", list, true)])),
        late_schema: late_schema(&input),
        late_port: 1,
        spread: false,
        levels: Vec::new(),
        strategy: stream.strategy.clone(),
        state_limit: usize::MAX,
    };
    let refusals = Refusals { transform: "Combine".into(), plugin: None, port: None };
    Combine::new(plan, Arc::default(), refusals).expect("the plan is sound")
}

fn batch(rows: &[(&str, i64, Instant)]) -> Batch {
    let keys: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)));
    let made = RecordBatch::try_new(Arc::new(input()), vec![keys, values]).expect("two columns");
    Batch::new(made, rows.iter().map(|row| row.2.micros()).collect(), Positions::None)
}

fn given(event: usize, out: Out) -> Vec<Pane> {
    let mut panes = Vec::new();
    for (port, message) in out.messages {
        let (Some(MAIN), Message::Data(batch)) = (port, message) else { continue };
        let windows = batch.windows.as_ref().expect("a grouping fixes windows");
        for row in 0..batch.num_rows() {
            let list = batch.rows.column(1).as_list::<i32>();
            let mut values: Vec<i64> =
                if list.is_null(row) { Vec::new() } else { list.value(row).as_primitive::<Int64Type>().values().to_vec() };
            values.sort_unstable();
            panes.push(Pane {
                event,
                key: batch.rows.column(0).as_string::<i32>().value(row).to_string(),
                window: windows.table[windows.index[row] as usize],
                timestamp: Instant::from_micros_saturating(batch.times[row]),
                info: windows.pane,
                values,
            });
        }
    }
    panes
}

/// Whether the operator and the rule gave out the same, whatever the order of keys and windows.
pub fn difference(rule: &[Pane], operator: &[Pane], with_events: bool) -> Option<String> {
    let sorted = |panes: &[Pane]| {
        let mut shown: Vec<String> = panes
            .iter()
            .map(|pane| {
                let Pane { event, key, window, timestamp, info, values } = pane;
                let event = if with_events { *event } else { 0 };
                format!("{key} {window:?} {event} {info:?} {timestamp:?} {values:?}")
            })
            .collect();
        shown.sort();
        shown
    };
    let (rule, operator) = (sorted(rule), sorted(operator));
    let only = |of: &[String], other: &[String]| -> Vec<String> { of.iter().filter(|pane| !other.contains(pane)).cloned().collect() };
    (rule != operator).then(|| format!("only the rule: {:#?}\nonly the operator: {:#?}", only(&rule, &operator), only(&operator, &rule)))
}
