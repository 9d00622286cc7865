//! DuckDB, for the differential suite of SQL, and the suite itself.

use crate::python;
use crate::step::{cargo, must};
use anyhow::Result;

/// What is installed; `tests/sql/oracle.rs` looks for the folder of this name.
const NAME: &str = "duckdb-2.0.0";
/// From PyPI.
const PACKAGE: &str = "duckdb==2.0.0";

/// Installs DuckDB if it is not there: seconds, once.
pub fn prepare() -> Result<()> {
    python::prepare(NAME, PACKAGE)
}

/// The suite, with its own arguments.
pub fn run(arguments: &[String]) -> Result<()> {
    prepare()?;
    must(cargo().args(["test", "--workspace", "--test", "sql", "--"]).args(arguments))
}
