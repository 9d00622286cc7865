//! Formats over Arrow columns. Nothing here knows where bytes come from or go to.
//!
//! - [`schema`]: the types of a row, written as a JSON schema or as `{name: type}`.
//! - [`mod@column`]: columns that grow by a value and can take a refused row back.
//! - [`json_read`], [`json_infer`], [`json_write`]: one object a record.
//! - [`csv_read`], [`csv_write`]: RFC 4180 with a delimiter of choice.
//! - [`text`]: bytes to and from single values, as CSV and plain text have them.

pub mod column;
pub mod csv_read;
pub mod csv_write;
pub mod json_infer;
pub mod json_read;
pub mod json_write;
pub mod schema;
pub mod text;
