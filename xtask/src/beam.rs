//! The real Apache Beam, for the differential suites: a Python environment in the cache folder, and the suites themselves.

use crate::python;
use crate::step::{cargo, must};
use anyhow::Result;

/// What is installed; `tests/beam/oracle.rs` and `tests/triggers/oracle.rs` look for the folder of this name.
const NAME: &str = "beam-2.77.0";
/// From PyPI.
const PACKAGE: &str = "apache-beam[yaml]==2.77.0";

/// Installs Beam if it is not there: a minute and 600 MB, once.
pub fn prepare() -> Result<()> {
    python::prepare(NAME, PACKAGE)
}

/// A suite against Beam, with its own arguments.
pub fn run(suite: &str, arguments: &[String]) -> Result<()> {
    prepare()?;
    must(cargo().args(["test", "--workspace", "--test", suite, "--"]).args(arguments))
}
