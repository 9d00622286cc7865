//! AssignTimestamps: sets the event time of each row. Where rows still know the split they were read from, the watermark
//! starts anew here, per split, since it is about these event times and no others.

use crate::failure::Failure;
use crate::message::SplitEvent;
use crate::metrics::Scatter;
use crate::operator::{MAIN, Operator, Out, Refusals};
use crate::splits::Splits;
use arrow::array::timezone::Tz;
use arrow::array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::datatypes::{DataType, TimeUnit as ArrowUnit};
use async_trait::async_trait;
use chrono::{DateTime, TimeZone};
use pelton_core::time::TimeError;
use pelton_core::watermark::Watermark;
use pelton_core::{Batch, Instant, RowError};
use pelton_expr::Expression;
use pelton_pipeline::graph::TimeUnit;
use std::sync::Arc;

/// The operator.
pub struct AssignTimestamps {
    /// The event time: a timestamp, a number of `unit`s or an RFC 3339 string.
    pub timestamp: Expression,
    /// Unit of a bare number.
    pub unit: TimeUnit,
    /// Zone of local times.
    pub zone: Option<Tz>,
    /// Watermarks by split.
    pub splits: Splits,
    /// For the report.
    pub scatter: Arc<Scatter>,
    /// What becomes of rows without an event time.
    pub refusals: Refusals,
}

/// Types that can be an event time.
pub fn is_time(data_type: &DataType) -> bool {
    data_type.is_numeric() && !matches!(data_type, DataType::Decimal128(..) | DataType::Decimal256(..))
        || matches!(data_type, DataType::Utf8 | DataType::Null | DataType::Timestamp(ArrowUnit::Microsecond, _))
}

#[async_trait(?Send)]
impl Operator for AssignTimestamps {
    async fn data(&mut self, _input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        let evaluated = self.timestamp.evaluate(&batch.rows);
        let mut errors = evaluated.errors;
        let mut times = Vec::with_capacity(batch.num_rows());
        let mut good = Vec::with_capacity(batch.num_rows());
        let mut failed = errors.iter().map(|error| error.row).collect::<Vec<_>>().into_iter().peekable();
        let value = Times::of(&evaluated.array, self.unit, self.zone);
        for row in 0..batch.num_rows() as u32 {
            if failed.next_if_eq(&row).is_some() {
                continue;
            }
            match value.at(row as usize) {
                Ok(time) => {
                    times.push(time.micros());
                    good.push(row);
                }
                Err(message) => errors.push(RowError { row, message, stack: String::new() }),
            }
        }
        errors.sort_by_key(|error| error.row);
        self.refusals.refuse(&batch, &errors, out)?;
        out.account.led += good.len() as u64;
        let mut batch = if good.len() == batch.num_rows() { batch } else { batch.take(&UInt32Array::from(good)) };
        self.scatter.offer(&times, out.now);
        batch.times = times.into();
        // Another event time, another window.
        batch.windows = None;
        self.splits.observe(&batch, None, out.now);
        out.rows(MAIN, batch);
        self.splits.advance(out);
        Ok(())
    }

    async fn watermark(&mut self, watermark: Watermark, out: &mut Out) -> Result<(), Failure> {
        self.splits.pass(watermark, out);
        Ok(())
    }

    async fn split(&mut self, event: SplitEvent, out: &mut Out) -> Result<(), Failure> {
        self.splits.tell(event, out);
        Ok(())
    }

    async fn tick(&mut self, out: &mut Out) -> Result<(), Failure> {
        self.splits.advance(out);
        Ok(())
    }

    fn unkeyed(&self) -> Vec<(String, Vec<u8>)> {
        self.splits.unkeyed()
    }

    fn restore(&mut self, unkeyed: &[(String, Vec<u8>)]) -> Result<(), Failure> {
        self.splits.restore(unkeyed)
    }
}

/// A column of event times in one of its spellings.
enum Times<'a> {
    Instants(&'a arrow::array::TimestampMicrosecondArray, Option<Tz>, bool),
    Whole(arrow::array::Int64Array, TimeUnit),
    Fractions(arrow::array::Float64Array, TimeUnit),
    Texts(&'a arrow::array::StringArray, Option<Tz>),
    Nothing,
}

impl Times<'_> {
    fn of(array: &ArrayRef, unit: TimeUnit, zone: Option<Tz>) -> Times<'_> {
        match array.data_type() {
            DataType::Timestamp(_, known) => Times::Instants(array.as_primitive::<TimestampMicrosecondType>(), zone, known.is_some()),
            DataType::Utf8 => Times::Texts(array.as_string(), zone),
            DataType::Null => Times::Nothing,
            DataType::Float16 | DataType::Float32 | DataType::Float64 => {
                let wide = arrow::compute::cast(array, &DataType::Float64).expect("floats widen");
                Times::Fractions(wide.as_primitive::<Float64Type>().clone(), unit)
            }
            // An unsigned number beyond i64 becomes null here, and an error below, as it would be out of range anyway.
            _ => {
                let wide = arrow::compute::cast(array, &DataType::Int64).expect("integers widen or become null");
                Times::Whole(wide.as_primitive::<Int64Type>().clone(), unit)
            }
        }
    }

    fn at(&self, row: usize) -> Result<Instant, String> {
        const NULL: &str = "the event time is null";
        let said = |error: TimeError| format!("the event time {error}");
        match self {
            Times::Nothing => Err(NULL.into()),
            Times::Instants(values, ..) if values.is_null(row) => Err(NULL.into()),
            Times::Instants(values, _, true) => Instant::from_micros(values.value(row)).map_err(said),
            Times::Instants(values, zone, false) => {
                let zone = zone.ok_or("the event time has no time zone: set `time_zone`")?;
                local(values.value(row), zone)
            }
            Times::Whole(values, _) if values.is_null(row) => Err(NULL.into()),
            Times::Whole(values, unit) => {
                let value = values.value(row);
                match unit {
                    TimeUnit::Seconds => Instant::from_units(value, 1_000_000).map_err(said),
                    TimeUnit::Milliseconds => Instant::from_units(value, 1_000).map_err(said),
                    TimeUnit::Microseconds => Instant::from_micros(value).map_err(said),
                    TimeUnit::Nanoseconds => Ok(Instant::from_nanos(value)),
                }
            }
            Times::Fractions(values, _) if values.is_null(row) => Err(NULL.into()),
            Times::Fractions(values, unit) => {
                let seconds = match unit {
                    TimeUnit::Seconds => 1.0,
                    TimeUnit::Milliseconds => 1e-3,
                    TimeUnit::Microseconds => 1e-6,
                    TimeUnit::Nanoseconds => 1e-9,
                };
                Instant::from_seconds(values.value(row) * seconds).map_err(said)
            }
            Times::Texts(values, _) if values.is_null(row) => Err(NULL.into()),
            Times::Texts(values, zone) => match (Instant::parse_rfc3339(values.value(row)), zone) {
                (Err(TimeError::NoZone(text)), Some(zone)) => {
                    let written = Instant::parse_with_offset(&text, 0).map_err(said)?;
                    local(written.micros(), *zone)
                }
                (result, _) => result.map_err(|error| error.to_string()),
            },
        }
    }
}

/// The instant of a local time; of two (when clocks go back) the earlier, of none (when they go forward) an error.
fn local(micros: i64, zone: Tz) -> Result<Instant, String> {
    let naive = DateTime::from_timestamp_micros(micros).ok_or("the event time is out of range")?.naive_utc();
    let instant =
        zone.from_local_datetime(&naive).earliest().ok_or_else(|| format!("the local time {naive} does not exist in its zone"))?;
    Instant::from_micros(instant.timestamp_micros()).map_err(|error| error.to_string())
}
