//! Functions of lists that count in unsigned numbers, made to count in BIGINT: beside an unsigned number, negative values fail,
//! and a minus sign is refused.

use arrow::datatypes::{DataType, Field};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};
use std::sync::Arc;

/// They count unsigned.
const COUNTS: &[&str] = &["array_length", "array_ndims", "array_position", "cardinality"];

/// The function as it is, or one that counts in BIGINT.
pub(crate) fn signed(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    match COUNTS.contains(&function.name()) {
        true => Arc::new(ScalarUDF::new_from_impl(Signed { inner: function })),
        false => function,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Signed {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Signed {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let return_field = Arc::new(Field::new(self.name(), DataType::UInt64, true));
        self.inner.invoke_with_args(ScalarFunctionArgs { return_field, ..arguments })?.cast_to(&DataType::Int64, None)
    }
}
