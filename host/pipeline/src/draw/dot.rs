//! A drawing as DOT.

use std::fmt::Write as _;

use super::Drawing;

pub(super) fn write(drawing: &Drawing) -> String {
    let mut out = format!("digraph {} {{\n", quote(&drawing.title));
    out.push_str(
        "  rankdir=LR;\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n  edge [fontname=\"sans-serif\", fontsize=10];\n",
    );
    // Writing to a string cannot fail.
    for (index, group) in drawing.groups.iter().enumerate() {
        let _ = writeln!(out, "  subgraph cluster_{index} {{");
        let _ = writeln!(out, "    label={};", quote(&group.label));
        for (node, _) in drawing.nodes.iter().enumerate().filter(|(_, shape)| shape.group == Some(index)) {
            let _ = writeln!(out, "    n{node};");
        }
        out.push_str("  }\n");
    }
    for (index, shape) in drawing.nodes.iter().enumerate() {
        let label = match shape.detail.is_empty() {
            true => shape.label.clone(),
            false => format!("{}\n{}", shape.label, shape.detail),
        };
        let _ = writeln!(out, "  n{index} [label={}];", quote(&label));
    }
    for arrow in &drawing.edges {
        let label = if arrow.label.is_empty() { String::new() } else { format!(" [label={}]", quote(&arrow.label)) };
        let _ = writeln!(out, "  n{} -> n{}{label};", arrow.from, arrow.to);
    }
    out.push_str("}\n");
    out
}

fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
