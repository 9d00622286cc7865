//! Group and concat: all values of a cell as one list. The order of a list's elements is not promised, as in Beam.

use super::state::States;
use super::values::{Lists, Values, list_of};
use super::{Accumulate, Rows};
use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;
use pelton_state::{Cells, ColumnId, Slot, Touched};
use std::sync::Arc;

/// Collects values, or the elements of lists.
pub(super) struct Collect {
    list: ColumnId,
    values: Values,
    lists: Lists,
    what: What,
}

/// What a row adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// One element. Nulls are elements, as in Beam and SQL.
    Value,
    /// The elements of its list.
    Elements,
    /// The characters of its text: to Beam a text is a list of them.
    Characters,
}

impl Collect {
    pub fn new(states: &mut States<'_>, output: &DataType, what: What) -> Result<Collect, String> {
        let DataType::List(item) = output else { return Err("a collection is a list".into()) };
        let values = Values::new(if what == What::Value { item.data_type() } else { output })?;
        Ok(Collect { list: states.bytes(), values, lists: Lists::new(output)?, what })
    }
}

impl Accumulate for Collect {
    fn add(&mut self, cells: &mut Touched<'_>, rows: &Rows<'_>) -> Result<(), String> {
        let lists = cells.column::<Vec<u8>>(self.list);
        if self.what == What::Value {
            let keys = self.values.encode(rows.value());
            rows.slots.iter().enumerate().for_each(|(row, slot)| Lists::push(&mut lists[*slot as usize], keys.get(row)));
            return Ok(());
        }
        let value = if self.what == What::Characters { &characters(rows.value().as_string()) } else { rows.value() };
        let keys = self.values.encode(value);
        rows.each(|row, slot| Lists::append(&mut lists[slot], Lists::of_canonical(keys.get(row))));
        Ok(())
    }

    fn merge(&mut self, cells: &mut Touched<'_>, slots: &[Slot], partial: &[ArrayRef]) -> Result<(), String> {
        let lists = cells.column::<Vec<u8>>(self.list);
        let partial = partial[0].as_binary::<i32>();
        slots.iter().zip(partial.iter().flatten()).for_each(|(slot, list)| Lists::append(&mut lists[*slot as usize], list));
        Ok(())
    }

    fn extract(&self, cells: &Cells, slots: &[Slot]) -> Result<ArrayRef, String> {
        let lists = cells.column::<Vec<u8>>(self.list);
        self.lists.decode(slots.iter().map(|slot| lists[*slot as usize].as_slice()))
    }
}

fn characters(texts: &StringArray) -> ArrayRef {
    let mut lengths = Vec::with_capacity(texts.len());
    let mut all: Vec<String> = Vec::new();
    for text in texts.iter().map(Option::unwrap_or_default) {
        let before = all.len();
        all.extend(text.chars().map(String::from));
        lengths.push(all.len() - before);
    }
    let DataType::List(field) = list_of(&DataType::Utf8) else { unreachable!("made as a list") };
    Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), Arc::new(StringArray::from(all)), None))
}
