//! Transforms that look at one row at a time: MapToFields, Filter, Partition, Explode.

use super::{Binder, Made, OperatorPlan, Site};
use crate::failure::Failure;
use crate::operators::map::Column;
use arrow::datatypes::{DataType, Field, Schema};
use pelton_pipeline::graph::Expression;
use std::sync::Arc;

impl Binder<'_> {
    pub(super) fn map(&self, site: &Site<'_>, fields: &[(String, Expression)], append: bool, drop: &[String]) -> Result<Made, Failure> {
        let (mut columns, mut schema) = (Vec::new(), Vec::new());
        let input = &site.input;
        for name in drop {
            if input.field_with_name(name).is_err() {
                let near = pelton_core::catalog::nearest(name, input.fields().iter().map(|field| field.name().as_str()));
                let message = format!("`drop` names `{name}`, which is no column of the input");
                return Err(self.wrong(site.node, site.node.place, message, near.map(|near| format!("did you mean `{near}`?"))));
            }
        }
        if append {
            let kept = |name: &str| input.field_with_name(name).is_ok() && !drop.iter().any(|dropped| dropped == name);
            if let Some((name, expression)) = fields.iter().find(|(name, _)| kept(name)) {
                let message = format!("the input has a column `{name}` already, which `append` keeps");
                let help = "name it in `drop`, or give the new one another name".to_string();
                return Err(self.wrong(site.node, expression.place, message, Some(help)));
            }
            for field in input.fields().iter().filter(|field| !drop.contains(field.name())) {
                columns.push(Column::Passed(field.name().clone()));
                schema.push(field.as_ref().clone());
            }
        }
        for (name, expression) in fields {
            let compiled = self.compile(site.node, expression, &site.beside)?;
            schema.push(Field::new(name, compiled.data_type().clone(), compiled.nullable()));
            columns.push(Column::Made(compiled));
        }
        Ok(site.made(OperatorPlan::Map { columns }, Arc::new(Schema::new(schema))))
    }

    pub(super) fn filter(&self, site: &Site<'_>, keep: &Expression) -> Result<Made, Failure> {
        let compiled = self.compile(site.node, keep, &site.beside)?;
        if !matches!(compiled.data_type(), DataType::Boolean) {
            let message = format!("`{}` is {}, not a boolean", keep.text, compiled.data_type());
            return Err(self.wrong(site.node, keep.place, message, None));
        }
        Ok(site.made(OperatorPlan::Filter { keep: compiled }, site.input.clone()))
    }

    pub(super) fn partition(
        &self,
        site: &Site<'_>,
        by: &Expression,
        outputs: &[String],
        unknown_output: Option<&String>,
    ) -> Result<Made, Failure> {
        let compiled = self.compile(site.node, by, &site.input)?;
        if *compiled.data_type() != DataType::Utf8 {
            let message = format!("`{}` is {}, not a string: it must be the name of an output", by.text, compiled.data_type());
            return Err(self.wrong(site.node, by.place, message, None));
        }
        let port = |name: &String| site.port(name).expect("every output of a partition is declared");
        let outputs = outputs.iter().map(|name| (name.clone(), port(name))).collect();
        let unknown = unknown_output.map(port);
        Ok(site.made(OperatorPlan::Partition { by: compiled, outputs, unknown }, site.input.clone()))
    }

    pub(super) fn explode(&self, site: &Site<'_>, fields: &[String], cross_product: bool) -> Result<Made, Failure> {
        let failed = |message: String, help: Option<String>| self.wrong(site.node, site.node.place, message, help);
        let mut schema: Vec<Field> = site.input.fields().iter().map(|field| field.as_ref().clone()).collect();
        for name in fields {
            let names = site.input.fields().iter().map(|field| field.name().as_str());
            let Some(field) = schema.iter_mut().find(|field| field.name() == name) else {
                let near = pelton_core::catalog::nearest(name, names).map(|near| format!("did you mean `{near}`?"));
                return Err(failed(format!("`fields` names `{name}`, which is no column of the input"), near));
            };
            let item = match field.data_type() {
                DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => item.data_type().clone(),
                // Of a column without values nothing is known; each of its rows is refused.
                DataType::Null => DataType::Null,
                other => return Err(failed(format!("`{name}` is {other}, not a list: there is nothing to explode"), None)),
            };
            *field = Field::new(name, item, true);
        }
        let plan = OperatorPlan::Explode { fields: fields.to_vec(), cross_product };
        Ok(site.made(plan, Arc::new(Schema::new(schema))))
    }
}
