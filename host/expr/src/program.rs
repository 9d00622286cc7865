//! A logical expression to one that runs: coercion, checked arithmetic, types of results.
//!
//! Constants are not folded and DataFusion's simplifier is not run: it folds with wrapping arithmetic and drops operands that
//! might have failed. Only functions that exist as a rewrite (`coalesce`, `nvl`) are rewritten, and what [`crate::mend`] says.

use crate::expression::ExpressionError;
use crate::mend::mend_comparisons;
use arrow::array::{Array as _, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion_expr::{Expr, ExprSchemable, Operator, lit};
use datafusion_optimizer::analyzer::type_coercion::TypeCoercionRewriter;
use datafusion_physical_expr::expressions::BinaryExpr;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// An expression that runs on batches of the columns that it reads.
#[derive(Debug)]
pub(crate) struct Program {
    physical: Arc<dyn PhysicalExpr>,
    input: SchemaRef,
    data_type: DataType,
    nullable: bool,
    null_fails: Option<String>,
}

impl Program {
    /// `null_fails`: a null result is a row error with this message.
    pub(crate) fn of(expr: Expr, input: &SchemaRef, null_fails: Option<String>) -> std::result::Result<Program, ExpressionError> {
        let plan = || -> Result<_> {
            let schema = Arc::new(DFSchema::try_from(input.clone())?);
            let expr = coerce(read_instants(expr, &schema)?, &schema)?;
            let expr = mend_comparisons(coerce(rewrite_functions(expr, &schema)?, &schema)?, &schema)?;
            let read: Vec<_> = expr.column_refs().into_iter().map(|column| column.name.clone()).collect();
            let fields: Vec<_> = input.fields().iter().filter(|field| read.contains(field.name())).cloned().collect();
            let pruned = Arc::new(Schema::new(fields));
            let physical = create_physical_expr(
                &expr,
                &DFSchema::try_from(pruned.clone())?,
                &ExecutionProps::new(),
                &PhysicalPlanningContext::default(),
            )?;
            Ok((checked(physical)?, pruned, expr.get_type(&schema)?, expr.nullable(&schema)?))
        };
        let (physical, input, found, nullable) = plan().map_err(|error| ExpressionError::new(sentence(&error)))?;
        let data_type = result_type(&found)?;
        Ok(Program { physical, input, data_type, nullable, null_fails })
    }

    pub(crate) fn data_type(&self) -> &DataType {
        &self.data_type
    }

    pub(crate) fn nullable(&self) -> bool {
        self.nullable
    }

    pub(crate) fn null_fails(&self) -> Option<&str> {
        self.null_fails.as_deref()
    }

    pub(crate) fn columns(&self) -> Vec<String> {
        self.input.fields().iter().map(|field| field.name().clone()).collect()
    }

    /// The columns that are read, found by name.
    pub(crate) fn prune(&self, rows: &RecordBatch) -> std::result::Result<RecordBatch, String> {
        let find = |field: &Arc<Field>| {
            rows.column_by_name(field.name()).cloned().ok_or_else(|| format!("the batch has no column `{}`", field.name()))
        };
        let columns = self.input.fields().iter().map(find).collect::<std::result::Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(self.input.clone(), columns, &options).map_err(|error| error.to_string())
    }

    /// Values of all rows, or why one of them has none. DataFusion's functions have panicked on odd values before, and a value
    /// of a user must not stop the host.
    pub(crate) fn run(&self, rows: &RecordBatch) -> std::result::Result<ArrayRef, String> {
        let evaluate = || -> Result<ArrayRef> {
            let array = self.physical.evaluate(rows)?.into_array(rows.num_rows())?;
            if array.data_type() == &self.data_type {
                return Ok(array);
            }
            let options = CastOptions { safe: false, ..CastOptions::default() };
            Ok(cast_with_options(&array, &self.data_type, &options)?)
        };
        match catch_unwind(AssertUnwindSafe(evaluate)) {
            Ok(result) => result.map_err(|error| sentence(&error)),
            Err(_) => Err("the expression engine failed on this row".to_string()),
        }
    }
}

fn coerce(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(expr.rewrite(&mut TypeCoercionRewriter::new(schema))?.data)
}

/// A string beside an instant is read as an instant. Left to DataFusion, both would become nanoseconds, which end in the year 2262.
fn read_instants(expr: Expr, schema: &Arc<DFSchema>) -> Result<Expr> {
    let is_instant = |expr: &Expr| matches!(expr.get_type(schema.as_ref()), Ok(DataType::Timestamp(..)));
    let is_string = |expr: &Expr| matches!(expr.get_type(schema.as_ref()), Ok(DataType::Utf8));
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let read = |expr: &mut Expr| -> Result<()> {
        if is_string(expr) {
            *expr = std::mem::take(expr).cast_to(&instant, schema.as_ref())?;
        }
        Ok(())
    };
    let rewritten = expr.transform_up(|mut node| {
        match &mut node {
            Expr::BinaryExpr(binary) if compares(binary.op) => {
                if is_instant(&binary.left) {
                    read(&mut binary.right)?;
                } else if is_instant(&binary.right) {
                    read(&mut binary.left)?;
                }
            }
            Expr::Between(between) if is_instant(&between.expr) => {
                read(&mut between.low)?;
                read(&mut between.high)?;
            }
            Expr::InList(list) if is_instant(&list.expr) => list.list.iter_mut().try_for_each(read)?,
            _ => return Ok(Transformed::no(node)),
        }
        Ok(Transformed::yes(node))
    });
    Ok(rewritten?.data)
}

fn compares(operator: Operator) -> bool {
    use Operator::*;
    matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// Functions that exist only as a rewrite. Others offer rewrites to be quicker, and some of those are wrong.
const REWRITTEN: &[&str] = &["coalesce", "nvl", "nvl2", "arrow_cast", "arrow_try_cast", "cast_to_type", "try_cast_to_type", "get_field"];

/// Rewrites functions that exist only so, and the negation of integers, which always wraps, to a subtraction from zero.
fn rewrite_functions(expr: Expr, schema: &Arc<DFSchema>) -> Result<Expr> {
    let context = SimplifyContext::builder().with_schema(schema.clone()).build();
    let rewritten = expr.transform_up(|node| match node {
        Expr::ScalarFunction(ScalarFunction { func, args }) if REWRITTEN.contains(&func.name()) => {
            Ok(match func.simplify(args, &context)? {
                ExprSimplifyResult::Simplified(expr) => Transformed::yes(expr),
                ExprSimplifyResult::Original(args) => Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args })),
            })
        }
        Expr::Negative(operand) => {
            let data_type = operand.get_type(schema.as_ref())?;
            Ok(if data_type.is_signed_integer() {
                Transformed::yes(lit(ScalarValue::new_zero(&data_type)?) - *operand)
            } else {
                Transformed::no(Expr::Negative(operand))
            })
        }
        node => Ok(Transformed::no(node)),
    });
    Ok(rewritten?.data)
}

/// DataFusion's arithmetic wraps unless it is told to fail.
fn checked(expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    let rewritten = expr.transform_up(|node| {
        Ok(match node.downcast_ref::<BinaryExpr>() {
            Some(binary) => Transformed::yes(Arc::new(binary.clone().with_fail_on_overflow(true)) as Arc<dyn PhysicalExpr>),
            None => Transformed::no(node),
        })
    });
    Ok(rewritten?.data)
}

/// The type that values of a type have when they leave an expression: one form of strings, bytes, lists and instants.
pub(crate) fn result_type(found: &DataType) -> std::result::Result<DataType, ExpressionError> {
    use DataType::*;
    let renewed =
        |field: &Arc<Field>| result_type(field.data_type()).map(|data_type| Arc::new(field.as_ref().clone().with_data_type(data_type)));
    Ok(match found {
        Utf8 | LargeUtf8 | Utf8View => Utf8,
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => Binary,
        Timestamp(..) => Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Date32 | Date64 => Date32,
        Decimal32(precision, scale) | Decimal64(precision, scale) | Decimal128(precision, scale) => Decimal128(*precision, *scale),
        Float16 => Float32,
        List(item) | LargeList(item) | FixedSizeList(item, _) => List(renewed(item)?),
        Struct(fields) => Struct(fields.iter().map(renewed).collect::<std::result::Result<_, _>>()?),
        Dictionary(_, value) => result_type(value)?,
        Null | Boolean | Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 | Float32 | Float64 => found.clone(),
        other => {
            return Err(ExpressionError::new(format!("an expression cannot result in a value of type {other}"))
                .help("convert it, for example with CAST(… AS VARCHAR)"));
        }
    })
}

/// An error of DataFusion in one sentence, without the names of its layers.
pub(crate) fn sentence(error: &DataFusionError) -> String {
    const LAYERS: &[&str] = &[
        "Arrow error: ",
        "Execution error: ",
        "Error during planning: ",
        "Internal error: ",
        "External error: ",
        "Schema error: ",
        "Compute error: ",
        "Invalid argument error: ",
        "Cast error: ",
        "Parser error: ",
        "SQL error: ",
        "Arithmetic overflow: Overflow happened on: ",
        "This feature is not implemented: ",
        "Optimizer rule 'simplify_expressions' failed\ncaused by\n",
    ];
    let full = error.find_root().to_string();
    let overflow = full.contains("Arithmetic overflow: ");
    let mut text = full.as_str();
    while let Some(rest) = LAYERS.iter().find_map(|layer| text.strip_prefix(layer)) {
        text = rest;
    }
    let line = text.lines().next().unwrap_or_default().trim().trim_end_matches('.');
    match line {
        "Divide by zero error" => "division by zero".to_string(),
        line if overflow => format!("arithmetic overflow in {}", line.trim_start_matches("Arithmetic overflow: ")),
        line => line.to_string(),
    }
}
