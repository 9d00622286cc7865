//! A schema in JSON to one that is ready to check values.

use super::{JsonSchema, KINDS, Kind, SchemaFault};
use regex::Regex;
use serde_json::Value;

/// Keywords that say nothing about values.
const ANNOTATIONS: [&str; 14] = [
    "$schema",
    "$id",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "format",
    "contentEncoding",
    "contentMediaType",
    "$anchor",
];

/// Reads a schema, keyword by keyword.
pub(super) struct Reader {
    /// From the schema down to where it is.
    pub(super) path: Vec<String>,
}

impl Reader {
    fn fault<T>(&self, message: impl Into<String>) -> Result<T, SchemaFault> {
        Err(SchemaFault { path: self.path.clone(), message: message.into() })
    }

    pub(super) fn schema(&mut self, schema: &Value) -> Result<JsonSchema, SchemaFault> {
        let mut read = JsonSchema::default();
        match schema {
            Value::Bool(passes) => read.never = !passes,
            Value::Object(keywords) => {
                for (keyword, value) in keywords {
                    self.path.push(keyword.clone());
                    self.keyword(&mut read, keyword, value)?;
                    self.path.pop();
                }
            }
            other => return self.fault(format!("a schema is a mapping or a boolean, not {}", pelton_core::catalog::kind(other))),
        }
        Ok(read)
    }

    fn keyword(&mut self, read: &mut JsonSchema, keyword: &str, value: &Value) -> Result<(), SchemaFault> {
        match keyword {
            "type" => read.types = Some(self.types(value)?),
            "enum" => read.one_of_values = Some(self.list(value)?.clone()),
            "const" => read.one_of_values = Some(vec![value.clone()]),
            "minimum" => read.numbers.minimum = Some(self.number(value)?),
            "maximum" => read.numbers.maximum = Some(self.number(value)?),
            "exclusiveMinimum" => read.numbers.exclusive_minimum = Some(self.number(value)?),
            "exclusiveMaximum" => read.numbers.exclusive_maximum = Some(self.number(value)?),
            "multipleOf" => match self.number(value)? {
                of if of > 0.0 => read.numbers.multiple_of = Some(of),
                _ => return self.fault("`multipleOf` must be more than 0"),
            },
            "minLength" => read.strings.min_length = Some(self.count(value)?),
            "maxLength" => read.strings.max_length = Some(self.count(value)?),
            "pattern" => read.strings.pattern = Some(self.pattern(value)?),
            "items" => read.lists.items = Some(Box::new(self.schema(value)?)),
            "minItems" => read.lists.min_items = Some(self.count(value)?),
            "maxItems" => read.lists.max_items = Some(self.count(value)?),
            "uniqueItems" => read.lists.unique = value == &Value::Bool(true),
            "properties" => read.objects.properties = self.properties(value)?,
            "required" => read.objects.required = self.names(value)?,
            "additionalProperties" => read.objects.additional = Some(Box::new(self.schema(value)?)),
            "minProperties" => read.objects.min_properties = Some(self.count(value)?),
            "maxProperties" => read.objects.max_properties = Some(self.count(value)?),
            "allOf" => read.all_of = self.schemas(value)?,
            "anyOf" => read.any_of = self.schemas(value)?,
            "oneOf" => read.one_of = self.schemas(value)?,
            "not" => read.not = Some(Box::new(self.schema(value)?)),
            keyword if ANNOTATIONS.contains(&keyword) => {}
            other => return self.fault(format!("`{other}` of JSON Schema is not available")),
        }
        Ok(())
    }

    fn types(&self, value: &Value) -> Result<Vec<Kind>, SchemaFault> {
        let names = match value {
            Value::String(name) => vec![name.clone()],
            _ => self.names(value)?,
        };
        let kind = |name: String| match KINDS.iter().find(|(known, _)| *known == name) {
            Some((_, kind)) => Ok(*kind),
            None => self.fault(format!("`{name}` is no type: there are {}", KINDS.map(|(name, _)| name).join(", "))),
        };
        names.into_iter().map(kind).collect()
    }

    fn list<'v>(&self, value: &'v Value) -> Result<&'v Vec<Value>, SchemaFault> {
        match value {
            Value::Array(items) => Ok(items),
            other => self.fault(format!("must be a list, not {}", pelton_core::catalog::kind(other))),
        }
    }

    fn names(&self, value: &Value) -> Result<Vec<String>, SchemaFault> {
        let name = |item: &Value| match item {
            Value::String(name) => Ok(name.clone()),
            other => self.fault(format!("must be a list of strings, and {other} is none")),
        };
        self.list(value)?.iter().map(name).collect()
    }

    fn number(&self, value: &Value) -> Result<f64, SchemaFault> {
        match value.as_f64() {
            Some(number) => Ok(number),
            None => self.fault(format!("must be a number, not {}", pelton_core::catalog::kind(value))),
        }
    }

    fn count(&self, value: &Value) -> Result<u64, SchemaFault> {
        match value.as_u64() {
            Some(count) => Ok(count),
            None => self.fault("must be a whole number of at least 0"),
        }
    }

    fn pattern(&self, value: &Value) -> Result<Regex, SchemaFault> {
        let Value::String(pattern) = value else { return self.fault("must be a string") };
        Regex::new(pattern).or_else(|error| self.fault(format!("`{pattern}` is no regular expression: {error}")))
    }

    fn properties(&mut self, value: &Value) -> Result<Vec<(String, JsonSchema)>, SchemaFault> {
        let Value::Object(properties) = value else { return self.fault("must be a mapping of names to schemas") };
        let mut read = Vec::with_capacity(properties.len());
        for (name, schema) in properties {
            self.path.push(name.clone());
            read.push((name.clone(), self.schema(schema)?));
            self.path.pop();
        }
        Ok(read)
    }

    fn schemas(&mut self, value: &Value) -> Result<Vec<JsonSchema>, SchemaFault> {
        let mut read = Vec::new();
        for (number, schema) in self.list(value)?.iter().enumerate() {
            self.path.push(number.to_string());
            read.push(self.schema(schema)?);
            self.path.pop();
        }
        if read.is_empty() {
            return self.fault("needs at least one schema");
        }
        Ok(read)
    }
}
