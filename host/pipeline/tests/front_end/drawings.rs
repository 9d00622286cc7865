//! Drawings, by their structure: nothing here depends on where a box lands.

use pelton_pipeline::draw::{Arrow, Drawing, Group, Shape};

use crate::load_with;

fn diamond() -> Drawing {
    let shape = |label: &str, group| Shape { label: label.to_string(), detail: "a < b & \"c\"\nmore".to_string(), group };
    let arrow = |from, to, label: &str| Arrow { from, to, label: label.to_string() };
    Drawing {
        title: "a \"diamond\" <1>".to_string(),
        groups: vec![Group { label: "stage 1".to_string() }],
        nodes: vec![shape("A", Some(0)), shape("B", Some(0)), shape("C", None), shape("D", None)],
        edges: vec![arrow(0, 1, ""), arrow(0, 2, "bad"), arrow(1, 3, ""), arrow(2, 3, ""), arrow(0, 3, "")],
    }
}

#[test]
fn text_shows_each_box_once_and_each_arrow() {
    let text = diamond().to_text();
    for label in ["A", "B", "C", "D"] {
        let begins = |line: &&str| line.trim_start_matches(['├', '└', '│', '─', ' ']).trim_start_matches("[bad] ").starts_with(label);
        let boxes = text.lines().skip(1).filter(begins).filter(|line| !line.contains("see above")).count();
        assert_eq!(boxes, 1, "{label}\n{text}");
    }
    assert_eq!(text.matches("see above").count(), 2, "{text}");
    assert!(text.contains("[bad] C") && text.contains("{stage 1}"), "{text}");
}

#[test]
fn dot_has_every_box_and_arrow() {
    let dot = diamond().to_dot();
    assert!(dot.starts_with("digraph \"a \\\"diamond\\\" <1>\" {") && dot.ends_with("}\n"), "{dot}");
    assert_eq!(dot.matches(" -> ").count(), 5, "{dot}");
    assert!(dot.contains("subgraph cluster_0") && dot.contains("[label=\"bad\"]"), "{dot}");
}

/// Attribute values of all elements with a class.
fn attributes(svg: &str, element: &str, name: &str) -> Vec<usize> {
    let lines = svg.lines().filter(|line| line.contains(element));
    lines.filter_map(|line| line.split(&format!(" {name}=\"")).nth(1)?.split('"').next()?.parse().ok()).collect()
}

#[test]
fn svg_is_well_formed_and_boxes_do_not_overlap() {
    let svg = diamond().to_svg();
    assert!(!svg.contains("a < b") && svg.contains("a &lt; b &amp; &quot;c&quot;"), "{svg}");
    for element in ["svg", "g", "title", "text", "style", "defs", "marker"] {
        let opened = svg.matches(&format!("<{element} ")).count() + svg.matches(&format!("<{element}>")).count();
        assert_eq!(opened, svg.matches(&format!("</{element}>")).count(), "{element}\n{svg}");
    }
    assert_eq!(svg.matches("class=\"arrow\"").count(), 5);
    let get = |name| attributes(&svg, "class=\"box\"", name);
    let (x, y, width, height) = (get("x"), get("y"), get("width"), get("height"));
    assert_eq!(x.len(), 4);
    for a in 0..4 {
        for b in a + 1..4 {
            let apart = |at: &[usize], size: &[usize]| at[a] + size[a] < at[b] || at[b] + size[b] < at[a];
            assert!(apart(&x, &width) || apart(&y, &height), "{a} and {b}\n{svg}");
        }
    }
    assert!(x[0] < x[1] && x[1] == x[2] && x[2] < x[3], "{svg}");
}

#[test]
fn frames_do_not_overlap() {
    let mut drawing = diamond();
    drawing.groups = (1..=3).map(|number| Group { label: format!("stage {number}") }).collect();
    for (node, group) in [(0, 0), (1, 1), (2, 2), (3, 0)] {
        drawing.nodes[node].group = Some(group);
    }
    let svg = drawing.to_svg();
    let get = |name| attributes(&svg, "class=\"group\"", name);
    let (y, height) = (get("y"), get("height"));
    assert_eq!(y.len(), 3);
    assert!(y[0] + height[0] < y[1] && y[1] + height[1] < y[2], "{svg}");
}

#[test]
fn nothing_and_cycles_are_drawn_too() {
    assert_eq!(Drawing::default().to_text(), "\n");
    assert!(Drawing::default().to_svg().ends_with("</svg>\n"));
    let mut cycle = diamond();
    cycle.edges.push(Arrow { from: 3, to: 0, label: String::new() });
    assert!(cycle.to_text().lines().count() > 4);
    assert!(cycle.to_svg().ends_with("</svg>\n"));
}

#[test]
fn a_graph_draws_itself() {
    let graph = load_with(
        "pipeline:
  type: chain
  windowing: {type: fixed, size: 60s}
  transforms:
    - {type: ReadFromJson, config: {path: 'in/*.json'}}
    - {type: Filter, name: Keep, config: {keep: status > 200}}
    - {type: Combine, config: {group_by: path, combine: {n: count, total: {value: bytes, fn: sum}}}}
    - {type: WriteToJson, config: {path: out}}
",
        &[],
    );
    let text = graph.expect("a good file").drawing().to_text();
    for piece in
        ["ReadFromJson  in/*.json", "Keep  Filter: status > 200", "n = count(*), total = sum(bytes) by path", "per window: fixed 1m"]
    {
        assert!(text.contains(piece), "{piece}\n{text}");
    }
}
