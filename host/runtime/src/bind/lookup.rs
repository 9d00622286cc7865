//! LookupJoin: which columns of the table are added, and what stands for a row without a partner.

use super::join::comparable;
use super::{Binder, Made, OpenSource, OperatorPlan, Site};
use crate::failure::Failure;
use crate::operators::lookup_join::LookupPlan;
use crate::operators::lookup_join::table::TablePlan;
use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pelton_connect::format::json_read::JsonDecoder;
use pelton_connect::{SourceContext, open_source};
use pelton_core::key::KeyEncoder;
use pelton_pipeline::graph::{self, JoinField, Node};
use serde_json::{Value, json};
use std::sync::Arc;

impl Binder<'_> {
    /// Looks at the columns of a table.
    pub(super) async fn open_table(&self, node: &Node, table: &graph::Table, context: SourceContext) -> Result<OpenSource, Failure> {
        let source = open_source(&table.kind, &table.config, context).await;
        let source = source.map_err(|error| Failure::Connect { transform: node.name.clone(), error })?;
        if !source.bounded() {
            let help = "read a file, or join two streams with `AsOfJoin`".to_string();
            return Err(self.wrong(node, table.place, format!("`{}` never ends here, so it is no table", table.kind), Some(help)));
        }
        Ok(OpenSource { schema: source.schema(), bounded: true, element: source.error_element() })
    }

    pub(super) fn lookup_join(&self, site: &Site<'_>, lookup: &graph::LookupJoin, table: &SchemaRef) -> Result<Made, Failure> {
        let (mut keys, mut key_types) = (Vec::new(), Vec::new());
        let (mut names, mut types): (Vec<String>, Vec<DataType>) = (Vec::new(), Vec::new());
        for key in &lookup.on {
            let compiled = self.compile(site.node, &key.input, &site.input)?;
            let own = compiled.data_type().clone();
            let other = self.of_table(site, table, &key.table, key.place)?.data_type().clone();
            for data_type in [&own, &other] {
                KeyEncoder::new(std::slice::from_ref(data_type)).map_err(|message| self.wrong(site.node, key.place, message, None))?;
            }
            if !comparable(&own, &other) {
                let message =
                    format!("`{}` is {own} and `{}` of the table is {other}, so no two would be equal", key.input.text, key.table);
                let help = "convert the input's before the join, with `MapToFields` in `language: sql` and `CAST(… AS …)`".to_string();
                return Err(self.wrong(site.node, key.place, message, Some(help)));
            }
            keys.push(compiled);
            key_types.push(own);
            names.push(key.table.clone());
            types.push(other);
        }
        let mut fields: Vec<Field> = site.input.fields().iter().map(|field| field.as_ref().clone()).collect();
        let mut missing: Vec<ArrayRef> = Vec::new();
        let added = self.added(site, lookup, table);
        for wanted in &added {
            let found = self.of_table(site, table, &wanted.column, wanted.place)?;
            if fields.iter().any(|field| *field.name() == wanted.name) {
                let message = format!("the output would have two columns `{}`", wanted.name);
                let help = format!("give the table's another name: `fields: {{new_name: {}}}`", wanted.column);
                return Err(self.wrong(site.node, wanted.place, message, Some(help)));
            }
            names.push(wanted.column.clone());
            types.push(found.data_type().clone());
            fields.push(Field::new(&wanted.name, found.data_type().clone(), true));
            missing.push(match lookup.default.iter().find(|(field, _)| field.name == wanted.name) {
                None => new_null_array(found.data_type(), 1),
                Some((field, value)) => self.one(site, field, value, found.data_type())?,
            });
        }
        if let Some((unknown, _)) = lookup.default.iter().find(|(field, _)| !added.iter().any(|wanted| wanted.name == field.name)) {
            let names: Vec<&str> = added.iter().map(|wanted| wanted.name.as_str()).collect();
            let message = format!("`default` names `{}`, which is no column that is added", unknown.name);
            return Err(self.wrong(site.node, unknown.place, message, Some(format!("added are {}", names.join(", ")))));
        }
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let table = TablePlan {
            kind: lookup.table.kind.clone(),
            config: lookup.table.config.clone(),
            keys: keys.len(),
            names,
            types,
            missing,
            refresh: lookup.refresh,
            // While it is read again both readings are there.
            limit: self.state_limit / if lookup.refresh.is_some() { 2 } else { 1 },
        };
        let plan = LookupPlan { keys, key_types, schema: schema.clone(), kept: !lookup.inner, table };
        Ok(site.made(OperatorPlan::Lookup(Box::new(plan)), schema))
    }

    /// The columns that are added: those that are named, or all that are no keys.
    fn added(&self, site: &Site<'_>, lookup: &graph::LookupJoin, table: &SchemaRef) -> Vec<JoinField> {
        let own = |name: &String| JoinField { name: name.clone(), column: name.clone(), place: site.node.place };
        let others = || table.fields().iter().filter(|field| !lookup.on.iter().any(|key| key.table == *field.name()));
        lookup.fields.clone().unwrap_or_else(|| others().map(|field| own(field.name())).collect())
    }

    fn of_table<'t>(&self, site: &Site<'_>, table: &'t SchemaRef, name: &str, place: graph::Place) -> Result<&'t Field, Failure> {
        table.field_with_name(name).map_err(|_| {
            let names = || table.fields().iter().map(|field| field.name().as_str());
            let help = match pelton_core::catalog::nearest(name, names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("its columns are {}", names().collect::<Vec<_>>().join(", ")),
            };
            self.wrong(site.node, place, format!("the table has no column `{name}`"), Some(help))
        })
    }

    /// A value as a column of one row.
    pub(super) fn one(&self, site: &Site<'_>, field: &JoinField, value: &Value, data_type: &DataType) -> Result<ArrayRef, Failure> {
        let wrong = |message: String| {
            let message = format!("`default` of `{}`, which is {data_type}: {message}", field.name);
            self.wrong(site.node, field.place, message, None)
        };
        let schema = Schema::new(vec![Field::new(&field.name, data_type.clone(), true)]);
        let mut decoder = JsonDecoder::new(&schema, None).map_err(wrong)?;
        decoder.push_text(&json!({ field.name.as_str(): value }).to_string()).map_err(wrong)?;
        Ok(decoder.finish().column(0).clone())
    }
}
