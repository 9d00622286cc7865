//! Rewrites of expressions where DataFusion's kernels do not follow our rules of values.
//!
//! - Floats are compared by their bits (Arrow's total order), so that -0.0 is less than 0.0, and a NaN whose sign is set, such as x86
//!   makes of 0.0 / 0.0, is less than every number. Operands of comparisons are brought to one zero and one NaN.
//! - An IN list is taken for constant if its items are single values on an empty batch, which a CASE is: it then has one value
//!   for all rows. A list that reads columns becomes equalities.

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, Result, ScalarValue};
use datafusion_expr::expr::{InList, ScalarFunction};
use datafusion_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, binary_expr, lit,
    not, when,
};
use std::sync::{Arc, LazyLock};

/// Comparisons, when types have been coerced.
pub(crate) fn mend_comparisons(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let is_float = |expr: &Expr| matches!(expr.get_type(schema), Ok(DataType::Float32 | DataType::Float64));
    let compared = |expr: Expr| if is_float(&expr) { canonical(expr) } else { expr };
    let equal = |left: Expr, right: Expr| binary_expr(compared(left), Operator::Eq, compared(right));
    let mended = expr.transform_up(|node| {
        Ok(match node {
            Expr::InList(list) if list.list.iter().any(|item| !item.column_refs().is_empty()) => {
                let InList { expr, list, negated } = list;
                let any = list.into_iter().map(|item| equal(*expr.clone(), item)).reduce(Expr::or).unwrap_or(lit(false));
                Transformed::yes(if negated { not(any) } else { any })
            }
            Expr::InList(mut list) if is_float(&list.expr) => {
                list.expr = Box::new(canonical(*list.expr));
                list.list = list.list.into_iter().map(canonical).collect();
                Transformed::yes(Expr::InList(list))
            }
            Expr::BinaryExpr(mut binary) if compares(binary.op) && is_float(&binary.left) && is_float(&binary.right) => {
                binary.left = Box::new(canonical(*binary.left));
                binary.right = Box::new(canonical(*binary.right));
                Transformed::yes(Expr::BinaryExpr(binary))
            }
            Expr::Between(mut between) if is_float(&between.expr) => {
                between.expr = Box::new(canonical(*between.expr));
                between.low = Box::new(canonical(*between.low));
                between.high = Box::new(canonical(*between.high));
                Transformed::yes(Expr::Between(between))
            }
            Expr::Case(mut case) if case.expr.as_ref().is_some_and(|base| is_float(base)) => {
                case.expr = case.expr.map(|base| Box::new(canonical(*base)));
                case.when_then_expr = case.when_then_expr.into_iter().map(|(when, then)| (Box::new(canonical(*when)), then)).collect();
                Transformed::yes(Expr::Case(case))
            }
            Expr::ScalarFunction(ScalarFunction { func, args }) if args.first().is_some_and(&is_float) => {
                match (func.name(), args.as_slice()) {
                    ("nullif", [value, null]) => {
                        let nothing = lit(ScalarValue::try_from(&value.get_type(schema)?)?);
                        Transformed::yes(when(equal(value.clone(), null.clone()), nothing).otherwise(value.clone())?)
                    }
                    ("greatest" | "least", _) => {
                        let args = args.into_iter().map(compared).collect();
                        Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args }))
                    }
                    _ => Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args })),
                }
            }
            node => Transformed::no(node),
        })
    });
    Ok(mended?.data)
}

fn compares(operator: Operator) -> bool {
    use Operator::*;
    matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn canonical(expr: Expr) -> Expr {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(Canonical::new())));
    match &expr {
        // Most literals are what they are.
        Expr::Literal(ScalarValue::Float64(Some(value)), _) if *value != 0.0 && !value.is_nan() => expr,
        Expr::Literal(ScalarValue::Float64(None), _) => expr,
        _ => Expr::ScalarFunction(ScalarFunction::new_udf(FUNCTION.clone(), vec![expr])),
    }
}

/// A float with one zero and one NaN.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Canonical {
    signature: Signature,
}

impl Canonical {
    fn new() -> Canonical {
        Canonical { signature: Signature::uniform(1, vec![DataType::Float32, DataType::Float64], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Canonical {
    fn name(&self) -> &str {
        "canonical"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let array = match &arguments.args[0] {
            ColumnarValue::Array(array) => array.clone(),
            ColumnarValue::Scalar(value) => value.to_array_of_size(rows)?,
        };
        let made: ArrayRef = match array.data_type() {
            DataType::Float32 => {
                let one = |value: f32| if value.is_nan() { f32::NAN } else { value + 0.0 };
                Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(one))
            }
            _ => {
                let one = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
                Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(one))
            }
        };
        Ok(ColumnarValue::Array(made))
    }
}
