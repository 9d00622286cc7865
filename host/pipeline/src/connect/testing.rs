//! A test of the file in place of the pipeline: mocks take the place of what they name, assertions are put where rows are
//! expected, and only what leads to an assertion is left. So a test runs neither sinks nor sources that it does not need.

use pelton_core::catalog::check_keys;
use serde_json::{Value, json};

use super::{Connector, Target};
use crate::draft::{Draft, Edge, Kind};
use crate::graph::Transform;
use crate::source::Mark;
use crate::test_blocks::{Rows, TestBlock};
use crate::yaml::Yaml;

impl Connector<'_, '_, '_, '_> {
    /// Makes the connected pipeline the test.
    pub(super) fn test(&mut self, test: &TestBlock<'_>) {
        let mut replaced: Vec<(usize, String, usize)> = Vec::new();
        for mock in &test.mock_outputs {
            if let Some(edge) = self.resolve(&mock.at, 0) {
                let mocked = self.mock(mock, "MockOutput");
                replaced.push((edge.draft, edge.output, mocked));
            }
        }
        for mock in &test.mock_inputs {
            if let Some(item) = self.item(&mock.at, 0) {
                let mocked = self.mock(mock, "MockInput");
                self.feed(item, mocked, mock.at.mark);
            }
        }
        let mut asserts = Vec::new();
        for expected in &test.expected_outputs {
            if let Some(edge) = self.resolve(&expected.at, 0) {
                asserts.push(self.expect(expected, "ExpectedOutput", vec![edge]));
            }
        }
        for expected in &test.expected_inputs {
            if let Some(item) = self.item(&expected.at, 0) {
                let inputs = self.inputs_of(item);
                if inputs.is_empty() {
                    self.report.error(expected.at.mark, format!("`{}` reads no input", expected.at.text));
                }
                asserts.push(self.expect(expected, "ExpectedInput", inputs));
            }
        }
        for draft in self.drafts.iter_mut() {
            for edge in &mut draft.inputs {
                // A mock is named by what it stands for, which is never a mock.
                if let Some((.., mocked)) = replaced.iter().find(|(from, output, _)| *from == edge.draft && *output == edge.output) {
                    edge.draft = *mocked;
                    edge.output = String::new();
                }
            }
        }
        self.keep_what_leads_to(&asserts);
        self.check_sources(test);
    }

    fn mock(&mut self, mock: &Rows<'_>, kind: &str) -> usize {
        let name = self.unique(format!("{kind}[{}]", mock.at.text));
        let config = json!({ "elements": mock.elements.to_json() });
        self.check("Create", &config, mock.elements);
        let transform = Transform::Source { kind: "Create".to_string(), config };
        self.add(Draft::inserted(name, mock.at.mark, transform, Vec::new()))
    }

    fn expect(&mut self, expected: &Rows<'_>, kind: &str, inputs: Vec<Edge>) -> usize {
        let name = self.unique(format!("{kind}[{}]", expected.at.text));
        let mark = expected.at.mark;
        let inputs = match inputs.len() {
            0 | 1 => inputs,
            _ => {
                let flatten = self.unique(format!("{name}-Flatten"));
                let draft = self.add(Draft::inserted(flatten, mark, Transform::Flatten, inputs));
                vec![Edge { draft, output: String::new(), mark }]
            }
        };
        // As in Beam a null must be expected as such, so that a test says what the columns are.
        let config = json!({ "elements": expected.elements.to_json(), "null_fields": "keep" });
        self.check("AssertEqual", &config, expected.elements);
        let transform = Transform::Sink { kind: "AssertEqual".to_string(), config };
        self.add(Draft::inserted(name, mark, transform, inputs))
    }

    fn check(&mut self, kind: &str, config: &Value, elements: &Yaml) {
        let Some(connector) = self.context.catalog.iter().find(|connector| connector.name == kind) else { return };
        for fault in check_keys(config, connector.keys).into_iter().chain((connector.check)(config)) {
            let mark = fault.path.get(1..).and_then(|path| elements.mark_at(path)).unwrap_or(elements.mark);
            self.report.error_with_help(mark, fault.message, fault.help);
        }
    }

    /// Gives an item these rows in place of all that it reads; its own windowing stays between.
    fn feed(&mut self, item: usize, mocked: usize, mark: Mark) {
        let edge = Edge { draft: mocked, output: String::new(), mark };
        let readers = self.readers_of(item);
        if self.inputs_of(item).is_empty() {
            self.report.error(mark, format!("`{}` reads no input", self.items[item].spec.label()));
        }
        for reader in readers {
            // Side inputs stay what they are.
            let own = 1 + self.drafts[reader].sides.len();
            let window = self.drafts[reader].inputs.first().map(|input| input.draft);
            let window =
                window.filter(|draft| self.items[item].windowing.is_some() && matches!(self.drafts[*draft].kind, Kind::Inserted(_)));
            match window {
                Some(window) => {
                    self.drafts[window].inputs = vec![edge.clone()];
                    self.drafts[reader].inputs.truncate(own);
                }
                None => {
                    self.drafts[reader].inputs.truncate(own);
                    match self.drafts[reader].inputs.first_mut() {
                        Some(first) => *first = edge.clone(),
                        None => self.drafts[reader].inputs.push(edge.clone()),
                    }
                }
            }
        }
    }

    fn readers_of(&self, item: usize) -> Vec<usize> {
        match &self.items[item].target {
            Target::Leaf { draft, .. } => vec![*draft],
            Target::Composite { ports, .. } => ports.iter().map(|(_, draft)| *draft).collect(),
        }
    }

    fn inputs_of(&self, item: usize) -> Vec<Edge> {
        let own = |reader: usize| {
            let Draft { inputs, sides, .. } = &self.drafts[reader];
            inputs[..inputs.len() - sides.len().min(inputs.len())].to_vec()
        };
        self.readers_of(item).into_iter().flat_map(own).collect()
    }

    fn keep_what_leads_to(&mut self, asserts: &[usize]) {
        let mut kept = vec![false; self.drafts.len()];
        let mut left = asserts.to_vec();
        while let Some(draft) = left.pop() {
            if !std::mem::replace(&mut kept[draft], true) {
                left.extend(self.drafts[draft].inputs.iter().map(|edge| edge.draft));
            }
        }
        let mut number = vec![0; self.drafts.len()];
        let mut count = 0;
        for (draft, kept) in kept.iter().enumerate() {
            number[draft] = count;
            count += usize::from(*kept);
        }
        let mut keep = kept.into_iter();
        self.drafts.retain(|_| keep.next().unwrap_or(false));
        self.drafts.iter_mut().flat_map(|draft| &mut draft.inputs).for_each(|edge| edge.draft = number[edge.draft]);
    }

    /// A test must not read the outside world by mistake.
    fn check_sources(&mut self, test: &TestBlock<'_>) {
        for draft in &self.drafts {
            let Kind::Written(Some(Transform::Source { kind, .. })) = &draft.kind else { continue };
            let allowed = |name: &String| *name == draft.name || name == kind || draft.name.ends_with(&format!("/{name}"));
            if kind != "Create" && !test.allowed_sources.iter().any(allowed) {
                let message = format!("the test `{}` would read the source `{}`", test.name, draft.name);
                let help = format!(
                    "give its rows with `mock_outputs: [{{name: {}, elements: […]}}]`, or name it in `allowed_sources`",
                    draft.name
                );
                self.report.error_with_help(test.mark, message, Some(help));
            }
        }
    }
}
