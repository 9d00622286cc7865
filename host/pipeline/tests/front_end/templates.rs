//! Jinja over several files, and providers that are made of YAML.

use pelton_pipeline::{Diagnostic, Graph, Transform, load, render};
use serde_json::{Value, json};

use crate::{CATALOG, OnePlugin, settings};

fn try_load(text: &str, variables: &[(&str, Value)]) -> Result<Graph, Vec<Diagnostic>> {
    let variables = variables.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    load(&settings(text, variables), &CATALOG, &OnePlugin)
}

fn loaded(text: &str, variables: &[(&str, Value)]) -> Graph {
    try_load(text, variables).unwrap_or_else(|findings| panic!("{}\n{text}", render(&findings)))
}

/// `file:line:column message`, one a finding.
fn findings(text: &str) -> Vec<String> {
    let shown = |finding: &Diagnostic| format!("{}:{}:{} {}", finding.file.display(), finding.line, finding.column, finding.message);
    try_load(text, &[]).unwrap_err().iter().map(shown).collect()
}

fn filters(graph: &Graph) -> Vec<(String, String)> {
    let filter = |node: &pelton_pipeline::Node| match &node.transform {
        Transform::Filter { keep } => Some((node.name.clone(), keep.text.clone())),
        _ => None,
    };
    graph.nodes.iter().filter_map(filter).collect()
}

#[test]
fn variables_have_types() {
    let text = "pipeline:
  type: chain
  transforms:
    - {type: Create, config: {elements: [1]}}
{% for step in steps %}
    - {type: Filter, config: {keep: \"x < {{ step.limit + 1 }}\"}}
{% endfor %}
{% if log %}
    - {type: LogForTesting}
{% endif %}
";
    let graph = loaded(text, &[("steps", json!([{"limit": 1}, {"limit": 2}])), ("log", json!(false))]);
    let keep: Vec<String> = filters(&graph).into_iter().map(|(_, keep)| keep).collect();
    assert_eq!(keep, ["x < 2", "x < 3"]);
    assert_eq!(graph.nodes.len(), 3);
    assert_eq!(graph.nodes[2].place.line, 6);
}

#[test]
fn now_is_when_the_pipeline_was_loaded() {
    let text = "pipeline:
  type: chain
  transforms:
    - {type: Create, config: {elements: [\"{{ datetime.datetime.now().strftime('%Y-%m-%d %H:%M:%S.%f') }}\", \"{{ datetime.date.today() }}\"]}}
";
    let graph = loaded(text, &[]);
    let Transform::Source { config, .. } = &graph.nodes[0].transform else { panic!() };
    assert_eq!(config["elements"], json!(["2026-03-04 05:06:07.000000", "2026-03-04"]));
}

#[test]
fn files_are_included_imported_and_extended() {
    let text = "{% extends 'base.yaml' %}
{% import 'macros.yaml' as steps %}
{% block steps %}
    - {type: Create, config: {elements: [1]}}
    {{- steps.keep('x') }}
    - {type: LogForTesting}
{% endblock %}
";
    let graph = loaded(text, &[]);
    assert_eq!(filters(&graph), [("Filter".to_string(), "x".to_string())]);
    // The macro's lines are in its own file.
    let Transform::Filter { keep } = &graph.nodes[1].transform else { panic!() };
    assert_eq!((graph.files[keep.place.file].display().to_string(), keep.place.line), ("folder/macros.yaml".into(), 4));
    assert_eq!((graph.nodes[2].place.file, graph.nodes[2].place.line), (0, 6));
}

#[test]
fn mistakes_in_other_files_are_shown_there() {
    let included = "pipeline:
  type: chain
  transforms:
    - {type: Create, config: {elements: [1]}}
{% include 'step.yaml' %}
    - {type: LogForTesting, config: {levle: INFO}}
";
    assert_eq!(
        findings(included),
        ["folder/test.yaml:6:38 unknown key `levle` of `LogForTesting`", "folder/step.yaml:2:16 unknown key `keap` of `Filter`",]
    );
    let missing = findings("pipeline:\n{% include 'none.yaml' %}\n");
    assert!(missing[0].starts_with("folder/test.yaml:2:") && missing[0].contains("'none.yaml'"), "{missing:?}");
}

const USE: &str = "pipeline:
  type: chain
  transforms:
    - {type: Create, config: {elements: [1]}}
    - {type: KeepBelow, config: {column: element, limit: 5}}
providers:
  - type: yaml
    transforms:
      KeepBelow:
        config_schema:
          properties: {column: {type: string}, limit: {type: integer}}
          required: [column, limit]
        body:
          type: chain
          transforms:
            - type: Filter
              config: {keep: \"{% raw %}{{ column }} < {{ limit }}{% endraw %}\"}
";

#[test]
fn a_template_stands_for_its_body() {
    assert_eq!(filters(&loaded(USE, &[])), [("KeepBelow/Filter".to_string(), "element < 5".to_string())]);
    let twice = "pipeline:
  transforms:
    - {type: Create, config: {elements: [1]}}
    - {type: Sum, name: A, input: Create, config: {of: x}}
    - {type: Sum, input: Create, config: {of: y}, windowing: {type: fixed, size: 60}}
    - {type: LogForTesting, input: [A, Sum]}
providers:
  - type: yaml
    transforms:
      Sum:
        config_schema: {properties: {of: {type: string}}}
        body: |
          {% raw %}
          type: Combine
          config: {group_by: [], combine: {\"{{ of }}\": {value: \"{{ of }}\", fn: sum}}}
          {% endraw %}
";
    let names: Vec<String> =
        loaded(&twice.replace("input: [A, Sum]", "input: A"), &[]).nodes.iter().map(|node| node.name.clone()).collect();
    assert_eq!(names, ["Create", "A", "LogForTesting", "Sum/WindowInto[input]", "Sum"]);
}

#[test]
fn mistakes_in_a_use_and_in_a_body_are_told_at_their_lines() {
    for (from, to, expected) in [
        ("limit: 5", "limit: five", "folder/test.yaml:5:33 `limit` must be of type integer, and is \"five\""),
        ("limit: 5", "limits: 5", "folder/test.yaml:5:33 the config has no `limit`, which is required"),
        ("{keep:", "{kept: 1, keep:", "folder/test.yaml:17:24 unknown key `kept` of `Filter`"),
        ("{type: integer}", "{type: int}", "folder/test.yaml:11:62 `config_schema`: `int` is no type"),
        ("KeepBelow:", "Filter:", "folder/test.yaml:9:7 there is already a transform type `Filter`"),
    ] {
        let found = findings(&USE.replace(from, to));
        assert!(found.iter().any(|finding| finding.starts_with(expected)), "{to}: {found:?}");
    }
    let endless = USE.replace("type: Filter\n              config: {", "type: KeepBelow\n              config: {");
    assert!(findings(&endless).iter().any(|finding| finding.contains("without an end")
        || finding.contains("requires")
        || finding.contains("is not allowed")
        || finding.contains("required")));
}

#[test]
fn a_list_of_providers_in_a_file_of_its_own() {
    let text = "pipeline:
  type: chain
  transforms:
    - {type: Create, config: {elements: [{n: 1}]}}
    - {type: KeepBelow, config: {column: n, limit: 5, twice: true}}
providers:
  - include: lib/providers.yaml
";
    // The body's own line in the other file, below a line that the condition has taken.
    assert_eq!(findings(text), ["folder/lib/providers.yaml:25:50 the variable `missing` is not defined"]);
    let none = findings(&text.replace("lib/providers.yaml", "lib/none.yaml"));
    assert_eq!(none[1], "folder/test.yaml:7:14 cannot read folder/lib/none.yaml: there is no such file");
}

#[test]
fn transforms_are_renamed_with_their_keys() {
    let text = "pipeline:
  type: chain
  transforms:
    - {type: Create, config: {elements: [{line: a}]}}
    - {type: Decode, config: {most: 3}}
    - {type: Small, config: {field: n}}
providers:
  - type: renaming
    transforms: {Decode: Parse}
    config:
      mappings: {Decode: {most: limit, text: word}}
      defaults: {Decode: {word: x}}
      underlying_provider: {type: wasm, config: {plugin: parse.wasm}, transforms: {Parse: parse}}
  - include: lib/providers.yaml
  - type: renaming
    transforms: {Small: KeepBelow}
    config:
      mappings: {Small: {field: column}}
      defaults: {Small: {limit: 9}}
      underlying_provider:
        type: yaml
        transforms:
          KeepBelow:
            config_schema: {properties: {column: {type: string}, limit: {type: integer}}}
            body: {type: Filter, config: {keep: \"{% raw %}{{ column }} < {{ limit }}{% endraw %}\"}}
";
    let graph = loaded(text, &[]);
    let Transform::Plugin { transform, config, .. } = &graph.nodes[1].transform else { panic!() };
    assert_eq!((transform.as_str(), config), ("parse", &json!({"limit": 3, "word": "x"})));
    assert_eq!(filters(&graph), [("Small".to_string(), "n < 9".to_string())]);
    assert_eq!(graph.nodes[1].name, "Decode");
}

#[test]
fn a_slip_in_the_name_of_a_variable_that_is_set_is_told() {
    let text = "pipeline:
  type: chain
  transforms:
    - {type: Create, config: {elements: [{{ limit | default(1) }}]}}
{% if log is defined %}
    - {type: LogForTesting, config: {level: {{ level }}}}
{% endif %}
";
    let warnings = |set: &[(&str, Value)]| {
        let shown = |finding: &Diagnostic| format!("{}; {}", finding.message, finding.help.as_deref().unwrap_or_default());
        loaded(text, set).warnings.iter().map(shown).collect::<Vec<_>>()
    };
    // A branch that is not taken reads its variables, too.
    assert!(warnings(&[("limit", json!(2)), ("level", json!("INFO"))]).is_empty());
    assert_eq!(warnings(&[("limti", json!(2))]), ["the variable `limti` is set, and nothing in the file reads it; did you mean `limit`?"]);
}
