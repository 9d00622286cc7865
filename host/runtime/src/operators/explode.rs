//! Explode: one row for each value of list columns. Several columns give every combination of their values, or go side by side
//! with nulls where one is shorter (Beam's `cross_product`).

use crate::failure::Failure;
use crate::operator::{MAIN, Operator, Out, Refusals};
use arrow::array::{Array, AsArray, ListArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, SchemaRef};
use async_trait::async_trait;
use pelton_core::batch::MAX_ROWS;
use pelton_core::{Batch, RowError};
use std::sync::Arc;

/// A row that would become more rows than this is refused: a product of lists grows beyond any memory.
const MAX_EXPLODED: usize = 1 << 20;

/// The operator.
pub struct Explode {
    /// Columns of the output: those of the input, with the items in place of the lists.
    pub schema: SchemaRef,
    /// The columns with lists.
    pub fields: Vec<String>,
    /// Every combination, rather than side by side.
    pub cross_product: bool,
    /// What becomes of rows that have no list.
    pub refusals: Refusals,
}

/// Rows of the output that are not yet given out.
struct Rows {
    /// The row of the input that each comes from.
    origin: Vec<u32>,
    /// For each list column the number of the item, `None` where the list was shorter.
    items: Vec<Vec<Option<u32>>>,
}

#[async_trait(?Send)]
impl Operator for Explode {
    async fn data(&mut self, _input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        let lists = self.lists(&batch)?;
        let mut errors = Vec::new();
        let mut rows = Rows { origin: Vec::new(), items: vec![Vec::new(); lists.len()] };
        let mut made = Vec::new();
        for row in 0..batch.num_rows() as u32 {
            match self.count(&lists, row as usize) {
                Ok(0) => out.account.filtered += 1,
                Ok(count) => {
                    out.account.led += 1;
                    for number in 0..count {
                        self.push(&mut rows, &lists, row, number);
                        if rows.origin.len() == MAX_ROWS {
                            made.push(self.batch(&mut rows, &lists, &batch)?);
                        }
                    }
                }
                Err(message) => errors.push(RowError { row, message, stack: String::new() }),
            }
        }
        made.push(self.batch(&mut rows, &lists, &batch)?);
        self.refusals.refuse(&batch, &errors, out)?;
        made.into_iter().for_each(|batch| out.rows(MAIN, batch));
        Ok(())
    }
}

impl Explode {
    fn internal(&self, error: impl ToString) -> Failure {
        Failure::Internal { transform: self.refusals.transform.clone(), message: error.to_string() }
    }

    fn lists(&self, batch: &Batch) -> Result<Vec<ListArray>, Failure> {
        let list = |name: &String| {
            let column = batch.rows.column_by_name(name).expect("the column was there when the plan was bound");
            let item = match column.data_type() {
                DataType::List(_) => return Ok(column.as_list().clone()),
                DataType::LargeList(item) | DataType::FixedSizeList(item, _) => item.clone(),
                _ => Arc::new(Field::new_list_field(DataType::Null, true)),
            };
            let list = cast(column, &DataType::List(item)).map_err(|error| self.internal(error))?;
            Ok(list.as_list().clone())
        };
        self.fields.iter().map(list).collect()
    }

    /// How many rows a row becomes, or why it becomes none.
    fn count(&self, lists: &[ListArray], row: usize) -> Result<usize, String> {
        if let Some(null) = lists.iter().position(|list| list.is_null(row)) {
            return Err(format!("`{}` is null, not a list", self.fields[null]));
        }
        let mut lengths = lists.iter().map(|list| list.value_length(row) as usize);
        let count = match self.cross_product {
            true => lengths.try_fold(1usize, |product, length| product.checked_mul(length)),
            false => lengths.max(),
        };
        match count {
            Some(count) if count <= MAX_EXPLODED => Ok(count),
            _ => Err(format!("the row would become more than {MAX_EXPLODED} rows")),
        }
    }

    /// The `number`th of the rows that a row becomes; the last list turns fastest.
    fn push(&self, rows: &mut Rows, lists: &[ListArray], row: u32, number: usize) {
        rows.origin.push(row);
        let mut rest = number;
        for (list, items) in lists.iter().zip(&mut rows.items).rev() {
            let (start, length) = (list.value_offsets()[row as usize] as usize, list.value_length(row as usize) as usize);
            let at = match self.cross_product {
                true => {
                    let at = rest % length;
                    rest /= length;
                    Some(at)
                }
                false => Some(number).filter(|number| *number < length),
            };
            items.push(at.map(|at| (start + at) as u32));
        }
    }

    fn batch(&self, rows: &mut Rows, lists: &[ListArray], from: &Batch) -> Result<Batch, Failure> {
        let origin = UInt32Array::from(std::mem::take(&mut rows.origin));
        let items: Vec<UInt32Array> = rows.items.iter_mut().map(|items| UInt32Array::from(std::mem::take(items))).collect();
        let column = |field: &Arc<Field>| match self.fields.iter().position(|name| name == field.name()) {
            Some(exploded) => take(lists[exploded].values(), &items[exploded], None),
            None => take(from.rows.column_by_name(field.name()).expect("the plan was bound to these columns"), &origin, None),
        };
        let columns = self.schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>().map_err(|error| self.internal(error))?;
        let options = RecordBatchOptions::new().with_row_count(Some(origin.len()));
        let made = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(|error| self.internal(error))?;
        Ok(from.pick(made, origin.values()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::{Int64Type, Schema};
    use pelton_core::{Instant, Positions};

    fn check(cross_product: bool, a: Vec<Option<Vec<Option<i64>>>>, b: Vec<Option<Vec<Option<i64>>>>, expected: &[(i64, &str, &str)]) {
        let id: ArrayRef = Arc::new(Int64Array::from_iter_values(0..a.len() as i64));
        let list = |values: Vec<Option<Vec<Option<i64>>>>| Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(values)) as ArrayRef;
        let rows = RecordBatch::try_from_iter([("id", id), ("a", list(a)), ("b", list(b))]).unwrap();
        let times: Vec<i64> = (0..rows.num_rows() as i64).collect();
        let fields = ["id", "a", "b"].map(|name| Field::new(name, DataType::Int64, true));
        let mut explode = Explode {
            schema: Arc::new(Schema::new(fields.to_vec())),
            fields: vec!["a".into(), "b".into()],
            cross_product,
            refusals: Refusals { transform: "E".into(), plugin: None, port: Some(1) },
        };
        let mut out = Out::new(Instant::MIN);
        let batch = Batch::new(rows, times.into(), Positions::None);
        futures(explode.data(0, batch, &mut out)).unwrap();
        let mut found = Vec::new();
        for (port, message) in out.messages {
            let crate::message::Message::Data(batch) = message else { unreachable!() };
            if port == Some(MAIN) {
                for row in 0..batch.num_rows() {
                    let text = |column: usize| {
                        let column = batch.rows.column(column).as_primitive::<Int64Type>();
                        if column.is_null(row) { "-".to_string() } else { column.value(row).to_string() }
                    };
                    assert_eq!(text(0), batch.times[row].to_string(), "the event time is that of the row it comes from");
                    found.push((batch.times[row], text(1), text(2)));
                }
            }
        }
        let expected: Vec<(i64, String, String)> = expected.iter().map(|(id, a, b)| (*id, a.to_string(), b.to_string())).collect();
        assert_eq!(found, expected);
    }

    fn futures<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn every_combination_or_side_by_side() {
        let a = vec![Some(vec![Some(1), Some(2)]), Some(vec![]), None, Some(vec![Some(3)])];
        let b = vec![Some(vec![Some(7), None]), Some(vec![Some(8)]), Some(vec![Some(9)]), Some(vec![Some(4), Some(5)])];
        let product = [(0, "1", "7"), (0, "1", "-"), (0, "2", "7"), (0, "2", "-"), (3, "3", "4"), (3, "3", "5")];
        check(true, a.clone(), b.clone(), &product);
        check(false, a, b, &[(0, "1", "7"), (0, "2", "-"), (1, "-", "8"), (3, "3", "4"), (3, "-", "5")]);
    }
}
