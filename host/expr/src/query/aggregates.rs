//! Which aggregates a query can have. To the planner they are names with types; what computes them is the runtime's.

use arrow::datatypes::DataType;
use datafusion_common::{Result, not_impl_err, plan_err};
use datafusion_expr::function::AccumulatorArgs;
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use std::sync::Arc;

/// What an aggregate of a plan computes. All but `Rows` skip nulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    /// Rows, whatever is in them.
    Rows,
    /// Different values.
    CountDistinct,
    Sum,
    Min,
    Max,
    Mean,
    /// Whether all values are true.
    All,
    /// Whether any value is true.
    Any,
    /// Of a sample, or of the population.
    Variance {
        population: bool,
    },
    /// The root of the variance.
    StdDev {
        population: bool,
    },
}

/// Their names in SQL, in lower case.
pub const NAMES: &[&str] = &[
    "count",
    "sum",
    "min",
    "max",
    "avg",
    "mean",
    "bool_and",
    "bool_or",
    "every",
    "var_samp",
    "var_pop",
    "variance",
    "stddev",
    "stddev_samp",
    "stddev_pop",
];

/// What a name stands for; a count is told apart by its argument.
pub(super) fn function(name: &str) -> Option<Function> {
    Some(match name {
        "count" => Function::Rows,
        "sum" => Function::Sum,
        "min" => Function::Min,
        "max" => Function::Max,
        "avg" | "mean" => Function::Mean,
        "bool_and" | "every" => Function::All,
        "bool_or" => Function::Any,
        "variance" | "var_samp" => Function::Variance { population: false },
        "var_pop" => Function::Variance { population: true },
        "stddev" | "stddev_samp" => Function::StdDev { population: false },
        "stddev_pop" => Function::StdDev { population: true },
        _ => return None,
    })
}

pub(crate) fn find(name: &str) -> Option<Arc<AggregateUDF>> {
    let lower = name.to_lowercase();
    let name = NAMES.iter().find(|known| **known == lower)?;
    Some(Arc::new(AggregateUDF::new_from_impl(Declared { name, signature: Signature::any(1, Volatility::Immutable) })))
}

/// A name and its types.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Declared {
    name: &'static str,
    signature: Signature,
}

impl AggregateUDFImpl for Declared {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let value = arguments.first().cloned().unwrap_or(DataType::Null);
        let function = function(self.name);
        let numbers = matches!(function, Some(Function::Sum | Function::Mean | Function::Variance { .. } | Function::StdDev { .. }));
        if numbers && !value.is_numeric() && value != DataType::Null {
            return plan_err!("{} is of numbers, not of {value}", self.name.to_uppercase());
        }
        Ok(match function {
            Some(Function::Rows | Function::CountDistinct) => DataType::Int64,
            Some(Function::Sum) if value.is_integer() => DataType::Int64,
            Some(Function::Sum) => match value {
                DataType::Decimal128(_, scale) => DataType::Decimal128(38, scale),
                _ => DataType::Float64,
            },
            Some(Function::Min | Function::Max) => value,
            Some(Function::All | Function::Any) => DataType::Boolean,
            _ => DataType::Float64,
        })
    }

    fn accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        not_impl_err!("aggregates are computed by the runtime")
    }
}
