//! `tests:`: rows that stand in for what the pipeline would read, and rows that must come out. The grammar is Beam's.

use crate::fields::{Fields, text, texts};
use crate::report::Report;
use crate::source::Mark;
use crate::syntax::Reference;
use crate::yaml::{Content, Yaml};

/// One test.
pub(crate) struct TestBlock<'y> {
    pub mark: Mark,
    pub name: String,
    /// In place of everything that a transform reads.
    pub mock_inputs: Vec<Rows<'y>>,
    /// In place of an output.
    pub mock_outputs: Vec<Rows<'y>>,
    pub expected_inputs: Vec<Rows<'y>>,
    pub expected_outputs: Vec<Rows<'y>>,
    /// Names or types of sources that may be read all the same.
    pub allowed_sources: Vec<String>,
}

/// Rows at a place of the pipeline.
pub(crate) struct Rows<'y> {
    /// A transform, or an output of one.
    pub at: Reference,
    /// A list.
    pub elements: &'y Yaml,
}

/// Reads `tests:`.
pub(crate) fn tests<'y>(yaml: &'y Yaml, report: &mut Report<'_>) -> Vec<TestBlock<'y>> {
    let Content::List(list) = &yaml.content else {
        report.error(yaml.mark, format!("`tests` must be a list, not {}", yaml.kind()));
        return Vec::new();
    };
    list.iter().enumerate().map(|(number, yaml)| test(yaml, number + 1, report)).collect()
}

fn test<'y>(yaml: &'y Yaml, number: usize, report: &mut Report<'_>) -> TestBlock<'y> {
    let mut fields = Fields::of(Some(yaml), yaml.mark, "a test", report);
    let name = fields.text("name", report).map_or_else(|| format!("test {number}"), str::to_string);
    let mut read = |key, report: &mut Report<'_>| fields.get(key).map(|entry| rows(&entry.value, key, report)).unwrap_or_default();
    let mut test = TestBlock {
        mark: yaml.mark,
        mock_inputs: read("mock_inputs", report),
        mock_outputs: read("mock_outputs", report),
        expected_inputs: read("expected_inputs", report),
        expected_outputs: read("expected_outputs", report),
        allowed_sources: Vec::new(),
        name,
    };
    if let Some(entry) = fields.get("allowed_sources") {
        test.allowed_sources = texts(&entry.value, "`allowed_sources`", report).into_iter().map(|(name, _)| name.to_string()).collect();
    }
    if yaml.entries().is_some() && test.expected_inputs.is_empty() && test.expected_outputs.is_empty() {
        let help = "give it `expected_outputs` or `expected_inputs`".to_string();
        report.error_with_help(yaml.mark, format!("the test `{}` expects nothing", test.name), Some(help));
    }
    fields.finish(report);
    test
}

fn rows<'y>(yaml: &'y Yaml, key: &str, report: &mut Report<'_>) -> Vec<Rows<'y>> {
    let Content::List(list) = &yaml.content else {
        report.error(yaml.mark, format!("`{key}` must be a list, not {}", yaml.kind()));
        return Vec::new();
    };
    let read = |yaml: &'y Yaml| {
        let mut fields = Fields::of(Some(yaml), yaml.mark, format!("an entry of `{key}`"), report);
        yaml.entries()?;
        let name = fields.require("name", report);
        let elements = fields.require("elements", report);
        fields.finish(report);
        let (name, elements) = (name?, elements?);
        if !matches!(elements.value.content, Content::List(_)) {
            report.error(elements.value.mark, format!("`elements` must be a list, not {}", elements.value.kind()));
            return None;
        }
        let at = Reference { text: text(&name.value, "`name`", report)?.to_string(), mark: name.value.mark };
        Some(Rows { at, elements: &elements.value })
    };
    list.iter().filter_map(read).collect()
}
