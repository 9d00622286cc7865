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
    /// Of state: the value of the field, encoded, where stored values have none.
    pub default: Option<Vec<u8>>,
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
    /// u32 a row, a number in `pane_table`; empty when not asked for.
    pub panes: Vec<u8>,
    /// 24 bytes a pane.
    pub pane_table: Vec<u8>,
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

/// Which parts of the context are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    pub event_times: bool,
    pub windows: bool,
    pub panes: bool,
    pub keys: bool,
}

#[derive(Debug, Clone)]
pub struct Opened {
    pub reads: Vec<u32>,
    pub needs: Needs,
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
    pub role: Role,
    pub config_schema: String,
    pub reads: Vec<ColumnNeed>,
    pub outputs: Vec<String>,
    pub states: Vec<StateSpec>,
    pub timers: Vec<TimerSpec>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Transform,
    StatefulTransform,
    Combine,
}

/// Which clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeDomain {
    EventTime,
    ProcessingTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateKind {
    Value,
    List,
    Map,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl {
    /// More than 0.
    pub micros: i64,
    pub domain: TimeDomain,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateSpec {
    pub name: String,
    pub kind: StateKind,
    /// The type of a value, in the contract's plain encoding.
    pub value: Vec<Field>,
    pub key: Vec<Field>,
    pub version: u32,
    /// Other versions that it is brought from.
    pub migrates: Vec<Migration>,
    pub ttl: Option<Ttl>,
}

/// Another version of a state, and the types that the migration from it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    pub version: u32,
    pub value: Vec<Field>,
    pub key: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimerSpec {
    pub name: String,
    pub domain: TimeDomain,
}

/// The u32 values of a list that crosses as bytes.
pub(crate) fn numbers(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.chunks_exact(4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// The i64 values of a list that crosses as bytes.
pub(crate) fn wide_numbers(bytes: &[u8]) -> impl ExactSizeIterator<Item = i64> + '_ {
    bytes.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes))
}
