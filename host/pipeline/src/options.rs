//! `options:` of a pipeline file: Beam's, which are accepted, and ours under `options.pelton`, whose unknown keys are errors.

mod durable;
mod trust;

pub use durable::{Backend, Delivery, Durable};
pub use trust::trust_file;

use std::collections::BTreeMap;

use pelton_core::key::MAX_PARALLELISM;
use pelton_core::time::Duration;
use pelton_core::trust::Policy;
use serde_json::Value;

use crate::fields::Fields;
use crate::report::Report;
use crate::source::Mark;
use crate::yaml::{Content, Entry, Yaml};

/// `options.pelton`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Name of the pipeline.
    pub name: Option<String>,
    /// Tasks side by side; the default is the number of cores.
    pub parallelism: Option<usize>,
    /// Bytes for the whole pipeline.
    pub memory: Option<u64>,
    /// Its share of the processor against other pipelines, 1 to 100; without it, 100.
    pub weight: Option<u32>,
    /// How event time advances.
    pub watermark: Watermark,
    /// `limits`, a mapping or `Null`.
    pub limits: Value,
    /// What outlives the process.
    pub durable: Durable,
    /// Whose plugins it takes; without it, anybody's. Keys are as written.
    pub trust: Option<Policy>,
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

/// Names of transforms that options have, and where they stand; they are checked once the graph is known.
#[derive(Default)]
pub(crate) struct NameMarks {
    /// Sources in `watermark.sources`.
    pub sources: Vec<(String, Mark)>,
    /// Transforms in `uids`.
    pub uids: Vec<(String, Mark)>,
}

/// Reads `options:`.
pub(crate) fn options(yaml: Option<&Yaml>, report: &mut Report<'_>) -> (Options, NameMarks) {
    let Some(yaml) = yaml else { return Default::default() };
    let entries = Fields::of(Some(yaml), yaml.mark, "`options`", report).into_entries();
    let mut read = <(Options, NameMarks)>::default();
    for entry in entries {
        match entry.key.as_str() {
            "pelton" => read = pelton(entry, report),
            // Whether a pipeline is a stream follows from its sources.
            "streaming" => {}
            other => {
                let help = "settings of Pelton stand below `pelton`".to_string();
                report.warning(entry.mark, format!("the option `{other}` has no effect here"), Some(help));
            }
        }
    }
    read
}

fn pelton(entry: &Entry, report: &mut Report<'_>) -> (Options, NameMarks) {
    let mut fields = Fields::of(Some(&entry.value), entry.mark, "`options.pelton`", report);
    let mut options = Options { name: fields.text("name", report).map(str::to_string), ..Options::default() };
    if let Some(name) = options.name.as_ref().filter(|name| !is_name(name)) {
        let mark = entry.value.mark_at(&["name".to_string()]).unwrap_or(entry.mark);
        report.error(mark, format!("`{name}` is no name: letters, digits, `-`, `_` and `.`, at most {MAX_NAME}"));
    }
    options.parallelism = fields.get("parallelism").and_then(|entry| parallelism(entry, report));
    options.memory = fields.get("memory").and_then(|entry| size(entry, report));
    options.weight = fields.get("weight").and_then(|entry| weight(entry, report));
    let mut marks = NameMarks::default();
    if let Some(entry) = fields.get("watermark") {
        (options.watermark, marks.sources) = watermark(entry, report);
    }
    if let Some(entry) = fields.get("limits") {
        Fields::of(Some(&entry.value), entry.mark, "`limits`", report);
        options.limits = entry.value.to_json();
    }
    (options.durable, marks.uids) = durable::durable(&mut fields, report);
    options.trust = fields.get("trust").map(|entry| trust::trust(entry, report));
    fields.not_yet("grants", report);
    fields.finish(report);
    (options, marks)
}

/// The name becomes part of folder and topic names.
const MAX_NAME: usize = 100;

fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(allowed) && !name.starts_with('.')
}

fn parallelism(entry: &Entry, report: &mut Report<'_>) -> Option<usize> {
    let number = match &entry.value.content {
        Content::Number(number) => number.as_u64().and_then(|number| usize::try_from(number).ok()),
        _ => None,
    };
    match number.filter(|number| (1..=MAX_PARALLELISM).contains(number)) {
        Some(number) => Some(number),
        None => {
            report.error(entry.value.mark, format!("`parallelism` must be a whole number from 1 to {MAX_PARALLELISM}"));
            None
        }
    }
}

fn weight(entry: &Entry, report: &mut Report<'_>) -> Option<u32> {
    const MAX_WEIGHT: u64 = 100;
    match &entry.value.content {
        Content::Number(number) if number.as_u64().is_some_and(|n| (1..=MAX_WEIGHT).contains(&n)) => {
            number.as_u64().and_then(|number| u32::try_from(number).ok())
        }
        _ => {
            report.error(entry.value.mark, format!("`weight` must be a whole number from 1 to {MAX_WEIGHT}"));
            None
        }
    }
}

fn size(entry: &Entry, report: &mut Report<'_>) -> Option<u64> {
    let found = match &entry.value.content {
        Content::Number(number) => number.as_u64(),
        Content::Text(text) => parse_size(text),
        _ => None,
    };
    if found.is_none_or(|bytes| bytes == 0) {
        let message = format!("`{}` must be a size such as 512MiB or 1GiB", entry.key);
        report.error(entry.value.mark, message);
    }
    found
}

/// A number of bytes, decimals allowed, with B, KB, MB, GB, TB (thousands) or KiB, MiB, GiB, TiB (1024).
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit: f64 = match unit.trim() {
        "" | "B" => 1.0,
        "KB" | "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        "TiB" => 1_099_511_627_776.0,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * unit;
    (bytes.is_finite() && bytes < 9e18).then_some(bytes.round() as u64)
}

fn watermark(entry: &Entry, report: &mut Report<'_>) -> (Watermark, Vec<(String, Mark)>) {
    let mut fields = Fields::of(Some(&entry.value), entry.mark, "`watermark`", report);
    let mut watermark = Watermark {
        delay: fields.duration("delay", report),
        idle_timeout: fields.duration("idle_timeout", report),
        allowed_lateness: fields.duration("allowed_lateness", report).unwrap_or(Duration::ZERO),
        sources: BTreeMap::new(),
    };
    let mut marks = Vec::new();
    if let Some(sources) = fields.get("sources") {
        for source in Fields::of(Some(&sources.value), sources.mark, "`sources`", report).into_entries() {
            let owner = format!("the watermark of `{}`", source.key);
            let mut fields = Fields::of(Some(&source.value), source.mark, owner, report);
            let own = SourceWatermark { delay: fields.duration("delay", report), idle_timeout: fields.duration("idle_timeout", report) };
            fields.finish(report);
            watermark.sources.insert(source.key.clone(), own);
            marks.push((source.key.clone(), source.mark));
        }
    }
    fields.finish(report);
    (watermark, marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        for (text, bytes) in [("1GiB", 1 << 30), ("512 MiB", 512 << 20), ("1.5KB", 1_500), ("7", 7)] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "GiB", "1gib", "-1", "1.2.3", "1e3"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
