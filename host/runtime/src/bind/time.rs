//! Transforms about event time and windows: AssignTimestamps, ExtractWindowingInfo.

use super::{Binder, Made, OperatorPlan, Site};
use crate::failure::Failure;
use crate::operators::{timestamps, windowing_info};
use arrow::array::timezone::Tz;
use arrow::datatypes::{DataType, Field, Schema};
use pelton_core::Duration;
use pelton_core::watermark::{Policy, Rule};
use pelton_pipeline::graph::{Alignment, Expression, TimeUnit, WindowingInfo};
use std::sync::Arc;

impl Binder<'_> {
    pub(super) fn assign_timestamps(
        &self,
        site: &Site<'_>,
        timestamp: &Expression,
        unit: TimeUnit,
        time_zone: Option<&String>,
    ) -> Result<Made, Failure> {
        let compiled = self.compile(site.node, timestamp, &site.input)?;
        if !timestamps::is_time(compiled.data_type()) {
            let message = format!("`{}` is {}, not a time", timestamp.text, compiled.data_type());
            let help = "give a timestamp, a number of seconds or an RFC 3339 string".to_string();
            return Err(self.wrong(site.node, timestamp.place, message, Some(help)));
        }
        let zone = time_zone.map(|zone| {
            zone.parse::<Tz>().map_err(|_| {
                let message = format!("`{zone}` is no time zone; write an IANA name such as Europe/Berlin, or an offset such as +02:00");
                self.wrong(site.node, site.node.place, message, None)
            })
        });
        let plan = OperatorPlan::AssignTimestamps { timestamp: compiled, unit, zone: zone.transpose()? };
        Ok(site.made(plan, site.input.clone()))
    }

    pub(super) fn set_watermark(
        &self,
        site: &Site<'_>,
        rule: Rule,
        marker: Option<&Expression>,
        ingestion: bool,
        idle_timeout: Option<Duration>,
        align: Option<Alignment>,
    ) -> Result<Made, Failure> {
        let compiled = match marker {
            None => None,
            Some(marker) => {
                let compiled = self.compile(site.node, marker, &site.input)?;
                if *compiled.data_type() != DataType::Boolean {
                    let message = format!("`{}` is {}, not a boolean", marker.text, compiled.data_type());
                    return Err(self.wrong(site.node, marker.place, message, None));
                }
                Some(compiled)
            }
        };
        let idle_timeout = idle_timeout.or(self.graph.options.watermark.idle_timeout);
        let plan = OperatorPlan::SetWatermark { policy: Policy { rule, idle_timeout }, marker: compiled, ingestion, align };
        Ok(site.made(plan, site.input.clone()))
    }

    pub(super) fn extract_windowing_info(&self, site: &Site<'_>, fields: &[(String, WindowingInfo)]) -> Result<Made, Failure> {
        let input = &site.input;
        if let Some((name, _)) = fields.iter().find(|(name, _)| input.field_with_name(name).is_ok()) {
            let message = format!("the input has a column `{name}` already");
            return Err(self.wrong(site.node, site.node.place, message, Some("give the new one another name".into())));
        }
        let passed: Vec<String> = input.fields().iter().map(|field| field.name().clone()).collect();
        let kept = input.fields().iter().map(|field| field.as_ref().clone());
        let added = fields.iter().map(|(name, info)| Field::new(name, windowing_info::data_type(*info), false));
        let schema = Arc::new(Schema::new(kept.chain(added).collect::<Vec<_>>()));
        let plan = OperatorPlan::ExtractWindowingInfo { passed, fields: fields.iter().map(|(_, info)| *info).collect() };
        Ok(site.made(plan, schema))
    }
}
