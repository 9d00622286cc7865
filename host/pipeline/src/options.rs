//! `options:` of a pipeline file: Beam's, which are accepted, and ours under `options.pelton`, whose unknown keys are errors.

use std::collections::BTreeMap;

use pelton_core::time::Duration;
use serde_json::Value;

/// `options.pelton`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Name of the pipeline.
    pub name: Option<String>,
    /// Tasks side by side; the default is the number of cores.
    pub parallelism: Option<usize>,
    /// Bytes for the whole pipeline.
    pub memory: Option<u64>,
    /// How event time advances.
    pub watermark: Watermark,
    /// `limits`, a mapping or `Null`.
    pub limits: Value,
}

/// How event time advances, for the whole pipeline and, where it differs, per source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// How far out of order rows are taken to be. `None`: bounded input has no watermark before its end.
    pub delay: Option<Duration>,
    /// After how long without rows a partition no longer holds the watermark.
    pub idle_timeout: Option<Duration>,
    /// How long after its end a window takes rows, where no transform says otherwise.
    pub allowed_lateness: Duration,
    /// By the full name of a source; what is not given there is inherited from above.
    pub sources: BTreeMap<String, SourceWatermark>,
}

impl Default for Watermark {
    fn default() -> Watermark {
        Watermark { delay: None, idle_timeout: None, allowed_lateness: Duration::ZERO, sources: BTreeMap::new() }
    }
}

/// The part of [`Watermark`] that a source may have of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceWatermark {
    /// As in [`Watermark`].
    pub delay: Option<Duration>,
    /// As in [`Watermark`].
    pub idle_timeout: Option<Duration>,
}
