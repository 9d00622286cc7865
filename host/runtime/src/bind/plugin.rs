//! Transforms of plugins.

use super::{Binder, Made, OperatorPlan, Site};
use crate::failure::Failure;
use crate::operator::{MAIN, Port};
use crate::operators::late::late_schema;
use crate::operators::stateful::StatefulPlan;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use pelton_core::fault::element_type;
use pelton_core::key::KeyEncoder;
use pelton_expr::Expression;
use pelton_pipeline::graph::{self, Node};
use pelton_plugin::{Binding, Limits};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

impl Binder<'_> {
    pub(super) fn plugin(
        &self,
        site: &Site<'_>,
        provider: usize,
        transform: &str,
        config: &Value,
        key: &[graph::Expression],
    ) -> Result<Made, Failure> {
        let failed = |error| Failure::Plugin { transform: site.node.name.clone(), error };
        let loaded = self.plugins[provider].granted(&self.graph.providers[provider].grants).map_err(failed)?;
        let limits = self.limits(site.node, provider)?;
        if key.is_empty() {
            let binding = loaded.bind(transform, config, &site.beside, &limits).map_err(failed)?;
            let (ports, schemas, own) = outputs(site, &binding);
            let plan = OperatorPlan::Plugin { ports: own, binding: Box::new(binding) };
            return Ok(Made { ports, plugin: Some(loaded.digest().to_string()), ..site.made_with(plan, schemas) });
        }
        let (keys, columns) = self.key(site, key)?;
        let binding = loaded.bind_stateful(transform, config, &site.beside, &columns, &limits).map_err(failed)?;
        let (ports, schemas, own) = outputs(site, &binding.base);
        let nullable = |field: &FieldRef| field.as_ref().clone().with_nullable(true);
        let element = Arc::new(Schema::new(site.input.fields().iter().map(nullable).collect::<Vec<_>>()));
        let plan = StatefulPlan {
            key_types: keys.iter().map(|key| key.data_type().clone()).collect(),
            key: keys,
            binding,
            ports: own,
            late_schema: late_schema(&site.input),
            late_port: MAIN,
            window_fn: site.strategy.window_fn,
            allowed_lateness: site.strategy.allowed_lateness,
            state_limit: self.state_limit / self.parallelism.max(1),
            element: element.clone(),
        };
        let plan = OperatorPlan::Stateful(Box::new(plan));
        let element = element_type(&element);
        Ok(Made { ports, element, plugin: Some(loaded.digest().to_string()), ..site.made_with(plan, schemas) })
    }

    /// The key's expressions, its columns' numbers among the input's columns.
    fn key(&self, site: &Site<'_>, key: &[graph::Expression]) -> Result<(Vec<Expression>, Vec<usize>), Failure> {
        let (mut keys, mut columns) = (vec![], vec![]);
        for column in key {
            let Ok(number) = site.input.index_of(&column.text) else {
                let near = pelton_core::catalog::nearest(&column.text, site.input.fields().iter().map(|field| field.name().as_str()));
                let message = format!("`key` names `{}`, which is no column of the input", column.text);
                return Err(self.wrong(site.node, column.place, message, near.map(|near| format!("did you mean `{near}`?"))));
            };
            let compiled = self.compile(site.node, column, &site.input)?;
            KeyEncoder::new(&[compiled.data_type().clone()])
                .map_err(|message| self.wrong(site.node, column.place, format!("key: {message}"), None))?;
            keys.push(compiled);
            columns.push(number);
        }
        Ok((keys, columns))
    }

    pub(super) fn limits(&self, node: &Node, provider: usize) -> Result<Limits, Failure> {
        let mut merged = self.graph.options.limits.clone();
        let provider = &self.graph.providers[provider];
        match (&mut merged, &provider.limits) {
            (_, serde_json::Value::Null) => {}
            (serde_json::Value::Object(all), serde_json::Value::Object(own)) => all.extend(own.clone()),
            (merged, own) => *merged = own.clone(),
        }
        if merged.is_null() {
            return Ok(Limits::default());
        }
        let mut limits: Limits =
            serde_json::from_value(merged).map_err(|error| self.wrong(node, provider.place, format!("limits: {error}"), None))?;
        // Each task has its share, as of the memory.
        limits.state_bytes = limits.state_bytes.map(|bytes| bytes / self.parallelism.max(1));
        Ok(limits)
    }
}

/// Our ports and schemas, and the port of each of the plugin's outputs.
fn outputs(site: &Site<'_>, binding: &Binding) -> (Vec<String>, Vec<SchemaRef>, Vec<Port>) {
    let mut ports = site.ports.clone();
    let mut schemas: HashMap<String, SchemaRef> = HashMap::new();
    let mut own = Vec::new();
    for output in &binding.outputs {
        let port = ports.iter().position(|port| *port == output.tag).unwrap_or_else(|| {
            ports.push(output.tag.clone());
            ports.len() - 1
        });
        own.push(port);
        schemas.insert(output.tag.clone(), output.schema.clone());
    }
    let main = schemas.get("").cloned().unwrap_or_else(|| Arc::new(Schema::empty()));
    let schemas = ports.iter().map(|port| schemas.get(port).cloned().unwrap_or_else(|| main.clone())).collect();
    (ports, schemas, own)
}
