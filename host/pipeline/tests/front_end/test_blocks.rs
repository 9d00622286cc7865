//! `tests:` of a file: the part of the pipeline that is left.

use pelton_pipeline::{Graph, Transform, load_tests, render};

use crate::{CATALOG, OnePlugin, settings};

const PIPELINE: &str = "pipeline:
  type: chain
  transforms:
    - {type: ReadFromJson, name: Read, config: {path: a}}
    - {type: Filter, config: {keep: x}}
    - {type: Combine, name: Sums, windowing: {type: fixed, size: 60}, config: {group_by: k, combine: {n: {value: v, fn: sum}}}}
    - {type: WriteToJson, name: Write, config: {path: b}}
tests:
";

/// One line a node of each test: `name <- inputs`.
fn check(tests: &str, expected: &[&[&str]]) {
    let text = format!("{PIPELINE}{tests}");
    let found = load_tests(&settings(&text, Vec::new()), &CATALOG, &OnePlugin);
    let found = found.unwrap_or_else(|findings| panic!("{}\n{text}", render(&findings)));
    let line = |graph: &Graph| -> Vec<String> {
        let inputs = |node: &pelton_pipeline::Node| -> Vec<String> {
            node.inputs.iter().map(|input| format!("{}{}", graph.nodes[input.node].name, input.output)).collect()
        };
        graph.nodes.iter().map(|node| format!("{} <- {}", node.name, inputs(node).join(", "))).collect()
    };
    let lines: Vec<Vec<String>> = found.iter().map(|test| line(&test.graph)).collect();
    assert_eq!(lines, expected);
}

fn check_bad(tests: &str, fragment: &str) {
    let text = format!("{PIPELINE}{tests}");
    let findings = load_tests(&settings(&text, Vec::new()), &CATALOG, &OnePlugin).err().unwrap_or_default();
    assert!(render(&findings).contains(fragment), "{}\n{text}", render(&findings));
}

#[test]
fn mocks_take_the_place_of_what_they_name() {
    check(
        "  - name: outputs
    mock_outputs: [{name: Read, elements: [{x: true, k: a, v: 1}]}]
    expected_outputs: [{name: Sums, elements: [{k: a, n: 1}]}]
  - mock_inputs: [{name: Sums, elements: [{k: a, v: 1}]}]
    expected_inputs: [{name: Write, elements: [{k: a, n: 1}]}]
",
        &[
            &[
                "MockOutput[Read] <- ",
                "Filter <- MockOutput[Read]",
                "Sums/WindowInto[input] <- Filter",
                "Sums <- Sums/WindowInto[input]",
                "ExpectedOutput[Sums] <- Sums",
            ],
            &[
                "MockInput[Sums] <- ",
                "Sums/WindowInto[input] <- MockInput[Sums]",
                "Sums <- Sums/WindowInto[input]",
                "ExpectedInput[Write] <- Sums",
            ],
        ],
    );
}

#[test]
fn a_source_may_be_read_where_the_test_allows_it() {
    let test = "  - {allowed_sources: [ReadFromJson], expected_outputs: [{name: Filter, elements: []}]}\n";
    check(test, &[&["Read <- ", "Filter <- Read", "ExpectedOutput[Filter] <- Filter"]]);
    check_bad(&test.replace("allowed_sources: [ReadFromJson], ", ""), "the test `test 1` would read the source `Read`");
}

#[test]
fn nulls_must_be_expected() {
    let text = format!(
        "{PIPELINE}  - {{name: t, mock_outputs: [{{name: Read, elements: []}}], expected_outputs: [{{name: Filter, elements: [{{a: null}}]}}]}}\n"
    );
    let tests = load_tests(&settings(&text, Vec::new()), &CATALOG, &OnePlugin).unwrap();
    let last = &tests[0].graph.nodes.last().unwrap().transform;
    let Transform::Sink { config, .. } = last else { panic!("{last:?}") };
    assert_eq!(config["null_fields"], "keep");
    assert_eq!((tests[0].name.as_str(), tests[0].place.line), ("t", 9));
}

#[test]
fn what_is_wrong_with_a_test() {
    check_bad("  - {name: t}\n", "the test `t` expects nothing");
    check_bad("  - {expected_outputs: [{name: Reed, elements: []}]}\n", "did you mean `Read`?");
    check_bad("  - {expected_inputs: [{name: Read, elements: []}]}\n", "`Read` reads no input");
    check_bad("  - {expected_outputs: [{name: Read}]}\n", "an entry of `expected_outputs` needs `elements`");
    check_bad("  - {expected_outputs: [{name: Read, elements: 3}]}\n", "`elements` must be a list");
    check_bad("  - {expected_outptus: []}\n", "did you mean `expected_outputs`?");
}
