//! Transforms of plugins.

use super::{Binder, Made, OperatorPlan, Site};
use crate::failure::Failure;
use arrow::datatypes::{Schema, SchemaRef};
use pelton_pipeline::graph::Node;
use pelton_plugin::Limits;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

impl Binder<'_> {
    pub(super) fn plugin(&self, site: &Site<'_>, provider: usize, transform: &str, config: &Value) -> Result<Made, Failure> {
        let loaded = &self.plugins[provider];
        let limits = self.limits(site.node, provider)?;
        let binding = loaded
            .bind(transform, config, &site.input, &limits)
            .map_err(|error| Failure::Plugin { transform: site.node.name.clone(), error })?;
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
        let plan = OperatorPlan::Plugin { ports: own, binding };
        Ok(Made { ports, schemas, plugin: Some(loaded.digest().to_string()), ..site.made(plan, main) })
    }

    fn limits(&self, node: &Node, provider: usize) -> Result<Limits, Failure> {
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
        serde_json::from_value(merged).map_err(|error| self.wrong(node, provider.place, format!("limits: {error}"), None))
    }
}
