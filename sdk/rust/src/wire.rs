//! The records of the contract (`wit/`), as plain Rust. The rest of the SDK knows only these, so that transforms run natively in unit
//! tests; `component` turns them into the generated ones and back, moving every buffer and copying none.

/// One node of a flattened schema: a field in depth-first order, followed by its `children` subtrees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    /// Arrow C data interface format string.
    pub format: String,
    pub nullable: bool,
    pub children: u32,
}

/// The arrays of a schema, flattened in the schema's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    pub rows: u32,
    /// Two u32 a field: length and null count.
    pub nodes: Vec<u8>,
    pub buffers: Vec<Vec<u8>>,
}

#[derive(Debug, Clone, Default)]
pub struct Input {
    pub columns: Columns,
    /// i64 a row, microseconds; empty when not asked for.
    pub event_times: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct OpenRequest {
    pub transform: String,
    pub config: String,
    pub schema: Vec<Field>,
}

#[derive(Debug, Clone)]
pub struct OutputSchema {
    pub tag: String,
    pub passes: Vec<u32>,
    pub adds: Vec<Field>,
}

#[derive(Debug, Clone)]
pub struct Opened {
    pub reads: Vec<u32>,
    pub needs_event_times: bool,
    pub outputs: Vec<OutputSchema>,
    pub metrics: Vec<&'static crate::metrics::Metric>,
}

#[derive(Debug, Clone, Default)]
pub struct Output {
    pub port: u32,
    pub columns: Columns,
    pub origin: Option<Vec<u8>>,
    pub event_times: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Default)]
pub struct RowErrors {
    pub rows: Vec<u8>,
    pub offsets: Vec<u8>,
    pub messages: Vec<u8>,
}

impl RowErrors {
    pub(crate) fn push(&mut self, row: u32, message: &str) {
        if self.offsets.is_empty() {
            self.offsets.extend_from_slice(&0_u32.to_le_bytes());
        }
        self.rows.extend_from_slice(&row.to_le_bytes());
        self.messages.extend_from_slice(message.as_bytes());
        self.offsets.extend_from_slice(&(self.messages.len() as u32).to_le_bytes());
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct MetricUpdate {
    pub metric: u32,
    pub count: u64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
}

#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub outputs: Vec<Output>,
    pub errors: RowErrors,
    pub metrics: Vec<MetricUpdate>,
}

/// A call that failed as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub message: String,
    pub detail: String,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), detail: String::new() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnNeed {
    pub name: String,
    pub formats: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransformSpec {
    pub name: String,
    pub summary: String,
    pub config_schema: String,
    pub reads: Vec<ColumnNeed>,
    pub outputs: Vec<String>,
}

/// The u32 values of a list that crosses as bytes.
pub(crate) fn numbers(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.chunks_exact(4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}
