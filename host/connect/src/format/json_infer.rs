//! The types of JSON records, from a sample.
//!
//! A field has the type that most of its values have: one malformed record among many must not change what the others are.
//! Records that do not fit become format errors when they are read. Integers and fractions together are doubles; a field that is
//! null everywhere is `null`; lists and objects are looked into the same way.

use super::schema::list_of;
use arrow::datatypes::{DataType, Field, Schema};
use serde_json::Value;
use std::collections::HashMap;

/// Counts what values look like.
#[derive(Default)]
pub struct Shape {
    booleans: usize,
    integers: usize,
    doubles: usize,
    strings: usize,
    lists: usize,
    objects: usize,
    items: Option<Box<Shape>>,
    fields: Vec<(String, Shape)>,
    positions: HashMap<String, usize>,
}

impl Shape {
    /// Looks at a value.
    pub fn see(&mut self, value: &Value) {
        match value {
            Value::Null => {}
            Value::Bool(_) => self.booleans += 1,
            Value::Number(number) if number.is_i64() => self.integers += 1,
            Value::Number(_) => self.doubles += 1,
            Value::String(_) => self.strings += 1,
            Value::Array(items) => {
                self.lists += 1;
                let shape = self.items.get_or_insert_default();
                items.iter().for_each(|item| shape.see(item));
            }
            Value::Object(entries) => {
                self.objects += 1;
                for (name, value) in entries {
                    let position = *self.positions.entry(name.clone()).or_insert_with(|| {
                        self.fields.push((name.clone(), Shape::default()));
                        self.fields.len() - 1
                    });
                    self.fields[position].1.see(value);
                }
            }
        }
    }

    /// The type that most values have; a tie goes to the earlier of string, number, boolean, list, object.
    pub fn data_type(&self) -> DataType {
        let numbers = self.integers + self.doubles;
        let most = [self.strings, numbers, self.booleans, self.lists, self.objects].into_iter().max().unwrap_or(0);
        if most == 0 {
            DataType::Null
        } else if self.strings == most {
            DataType::Utf8
        } else if numbers == most {
            if self.doubles == 0 { DataType::Int64 } else { DataType::Float64 }
        } else if self.booleans == most {
            DataType::Boolean
        } else if self.lists == most {
            list_of(self.items.as_ref().map_or(DataType::Null, |items| items.data_type()))
        } else {
            DataType::Struct(self.fields().into())
        }
    }

    fn fields(&self) -> Vec<Field> {
        self.fields.iter().map(|(name, shape)| Field::new(name, shape.data_type(), true)).collect()
    }

    /// The columns, if rows were seen; `None` if no object was.
    pub fn schema(&self) -> Option<Schema> {
        (self.objects > 0).then(|| Schema::new(self.fields()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(values: Value, expected: DataType) {
        let mut shape = Shape::default();
        values.as_array().unwrap().iter().for_each(|value| shape.see(value));
        assert_eq!(shape.data_type(), expected, "{values}");
    }

    #[test]
    fn most_values_decide() {
        check(json!([]), DataType::Null);
        check(json!([null, 1, null]), DataType::Int64);
        check(json!([1, 2.5]), DataType::Float64);
        check(json!([u64::MAX]), DataType::Float64);
        check(json!([1, 2, "x"]), DataType::Int64);
        check(json!([1, "x"]), DataType::Utf8);
        check(json!([[1], [2.5, null]]), list_of(DataType::Float64));
        check(
            json!([{"a": 1}, {"b": true}]),
            DataType::Struct(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Boolean, true)].into()),
        );
    }
}
