//! Combine.

use super::{Binder, Made, OperatorPlan, Site};
use crate::failure::Failure;
use crate::operator::MAIN;
use crate::operators::aggregate;
use crate::operators::combine::CombinePlan;
use crate::operators::late::late_schema;
use arrow::datatypes::{Field, Schema, SchemaRef};
use pelton_core::Duration;
use pelton_expr::Expression;
use pelton_pipeline::graph;
use std::sync::Arc;

impl Binder<'_> {
    pub(super) fn combine(
        &self,
        site: &Site<'_>,
        group_by: &[(String, graph::Expression)],
        combine: &[graph::Aggregate],
        levels: &[(String, Duration)],
    ) -> Result<Made, Failure> {
        let (node, input) = (site.node, &site.input);
        let (mut keys, mut types, mut fields) = (Vec::new(), Vec::new(), Vec::new());
        for (name, expression) in group_by {
            let compiled = self.compile(node, expression, input)?;
            types.push(compiled.data_type().clone());
            fields.push(Field::new(name, compiled.data_type().clone(), compiled.nullable()));
            keys.push(compiled);
        }
        pelton_core::key::KeyEncoder::new(&types).map_err(|message| self.wrong(node, node.place, format!("group_by: {message}"), None))?;
        let (mut aggregates, mut plugins) = (Vec::new(), Vec::new());
        for wanted in combine {
            let value = wanted.value.as_ref().map(|value| self.compile(node, value, input)).transpose()?;
            let place = wanted.value.as_ref().map_or(node.place, |value| value.place);
            let wrong = |message: String| self.wrong(node, place, message, None);
            let (made, binding) = match (&wanted.function, &value) {
                (graph::AggregateFunction::Plugin { provider, transform, config }, Some(value)) => {
                    let limits = self.limits(node, *provider)?;
                    let granted = self.plugins[*provider].granted(&self.graph.providers[*provider].grants);
                    let binding = granted.and_then(|plugin| plugin.bind_combine(transform, config, value.data_type(), &limits));
                    let binding = binding.map_err(|error| wrong(format!("`{}`: {error}", wanted.name)))?;
                    (binding.output_type(), Some(binding))
                }
                (function, value) => {
                    let made = aggregate::output_type(function, value.as_ref().map(Expression::data_type));
                    (made.map_err(|message| wrong(format!("{} for `{}` {message}", function.name(), wanted.name)))?, None)
                }
            };
            plugins.push(binding);
            fields.push(Field::new(&wanted.name, made, !wanted.function.never_null()));
            aggregates.push((wanted.function.clone(), value));
        }
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        // `state_limit` is for all tasks together; keys spread evenly enough.
        let plan = CombinePlan {
            group_by: keys,
            group_types: types,
            aggregates,
            plugins,
            schema: schema.clone(),
            late_schema: late_schema(input),
            late_port: MAIN,
            strategy: site.strategy.clone(),
            levels: levels.iter().filter_map(|(name, size)| Some((*size, site.port(name)?))).collect(),
            spread: matches!(node.transform, graph::Transform::Combine { fanout: Some(_), .. }),
            state_limit: self.state_limit / self.parallelism.max(1),
        };
        Ok(site.made(OperatorPlan::Combine(Box::new(plan)), schema))
    }
}
