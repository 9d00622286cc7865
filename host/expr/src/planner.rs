//! What DataFusion's planner is given: functions, types, and for queries tables and aggregates.

use crate::functions;
use crate::query::aggregates;
use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef, TimeUnit};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Result, TableReference, plan_err};
use datafusion_expr::logical_plan::LogicalTableSource;
use datafusion_expr::planner::{ContextProvider, ExprPlanner, TypePlanner};
use datafusion_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF};
use datafusion_functions::core::planner::CoreFunctionPlanner;
use datafusion_functions::datetime::planner::DatetimeFunctionPlanner;
use datafusion_functions::unicode::planner::UnicodeFunctionPlanner;
use datafusion_functions_nested::planner::{FieldAccessPlanner, NestedFunctionPlanner};
use datafusion_sql::planner::ParserOptions;
use datafusion_sql::sqlparser::ast;
use std::sync::Arc;

/// How texts are read: names as they are written, strings as they are.
pub(crate) fn options() -> ParserOptions {
    ParserOptions::new().with_enable_ident_normalization(false).with_map_string_types_to_utf8view(false).with_collect_spans(true)
}

/// What the planner may ask for.
pub(crate) struct Context {
    options: ConfigOptions,
    planners: Vec<Arc<dyn ExprPlanner>>,
    types: Arc<dyn TypePlanner>,
    /// `None`: an expression, which reads no table and aggregates nothing.
    tables: Option<Vec<(String, Arc<dyn TableSource>)>>,
}

impl Context {
    /// Functions and types, no tables.
    pub(crate) fn for_expressions() -> Context {
        Context::of(None)
    }

    /// The same, with tables of these names, and with aggregates.
    pub(crate) fn for_queries(tables: &[(String, SchemaRef)]) -> Context {
        let source = |schema: &SchemaRef| Arc::new(LogicalTableSource::new(schema.clone())) as Arc<dyn TableSource>;
        Context::of(Some(tables.iter().map(|(name, schema)| (name.clone(), source(schema))).collect()))
    }

    fn of(tables: Option<Vec<(String, Arc<dyn TableSource>)>>) -> Context {
        Context {
            tables,
            options: ConfigOptions::default(),
            planners: vec![
                Arc::new(CoreFunctionPlanner {}),
                Arc::new(DatetimeFunctionPlanner),
                Arc::new(UnicodeFunctionPlanner),
                Arc::new(NestedFunctionPlanner),
                Arc::new(FieldAccessPlanner),
            ],
            types: Arc::new(Instants),
        }
    }
}

impl ContextProvider for Context {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let Some(tables) = &self.tables else { return plan_err!("an expression cannot read the table {name}") };
        match tables.iter().find(|(known, _)| known == name.table()) {
            Some((_, source)) => Ok(source.clone()),
            None => {
                let known: Vec<&str> = tables.iter().map(|(name, _)| name.as_str()).collect();
                plan_err!("there is no input `{name}`; the inputs are {}", known.join(", "))
            }
        }
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(self.types.clone())
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        functions::find(name)
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.tables.as_ref().and_then(|_| aggregates::find(name))
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        functions::names().map(str::to_string).collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        aggregates::NAMES.iter().map(|name| name.to_string()).collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// `TIMESTAMP` is the one instant type. DataFusion's own is in nanoseconds, which end in the year 2262.
#[derive(Debug)]
struct Instants;

impl TypePlanner for Instants {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> Result<Option<FieldRef>> {
        Ok(match sql_type {
            ast::DataType::Timestamp(..) | ast::DataType::TimestampNtz(_) | ast::DataType::Datetime(_) => {
                Some(Arc::new(Field::new("", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true)))
            }
            _ => None,
        })
    }
}
