//! Transforms that are other than the file says, as swaps make them.

use pelton_pipeline::{Change, Graph, Settings, Transform, load, render};
use serde_json::{Value, json};

use crate::{CATALOG, OnePlugin, settings};

const FILE: &str = "pipeline:
  type: chain
  transforms:
    - {type: Create, config: {elements: [1]}}
    - {type: Filter, name: Keep, config: {language: sql, keep: 'element > 1'}}
";

/// The file with a new config of `Keep`; else all findings as text.
fn changed(config: Value) -> Result<Graph, String> {
    let changes = vec![Change { transform: "Keep".into(), plugin: None, config: Some(config) }];
    let settings = Settings { changes, ..settings(FILE, Vec::new()) };
    load(&settings, &CATALOG, &OnePlugin).map_err(|findings| render(&findings))
}

#[test]
fn an_expression_stays_in_the_language_of_the_file() {
    let graph = changed(json!({"keep": "element BETWEEN 1 AND 2"})).unwrap();
    let node = graph.nodes.iter().find(|node| node.name == "Keep").unwrap();
    let Transform::Filter { keep } = &node.transform else { panic!("{:?}", node.transform) };
    assert_eq!(keep.text, "element BETWEEN 1 AND 2");
    assert_eq!(node.written["language"], "sql");
    // One that is named counts.
    let graph = changed(json!({"language": "generic", "keep": "element == 1"})).unwrap();
    assert_eq!(graph.nodes[1].written["language"], "generic");
}

#[test]
fn what_is_wrong_in_a_new_config_is_shown_there_and_not_in_the_file() {
    let said = changed(json!({"kep": "true"})).unwrap_err();
    for part in ["unknown key `kep`", "--> the new config of `Keep`:2:3", "2 |   \"kep\": \"true\"", "did you mean `keep`?"] {
        assert!(said.contains(part), "`{part}` is not in\n{said}");
    }
    assert!(!said.contains("element > 1") && said.matches("error:").count() == 1, "{said}");
}
