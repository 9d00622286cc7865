//! A drawing as an indented tree. A box that several arrows reach is drawn below the first; the others say that it stands elsewhere.

use std::fmt::Write as _;

use super::{Arrow, Drawing, shortened};

/// Longer details are cut, so that a line fits a terminal.
const MAX_DETAIL: usize = 100;

pub(super) fn write(drawing: &Drawing) -> String {
    let mut out = format!("{}\n", drawing.title);
    let mut written = vec![false; drawing.nodes.len()];
    let entered: Vec<bool> = (0..drawing.nodes.len()).map(|node| drawing.edges.iter().any(|edge| edge.to == node)).collect();
    // Boxes without arrows into them first; what is left is in a cycle, which a checked graph does not have.
    let roots = (0..drawing.nodes.len()).filter(|&node| !entered[node]);
    for root in roots.chain(0..drawing.nodes.len()) {
        if !written[root] {
            tree(drawing, root, &mut written, &mut out);
        }
    }
    out
}

/// A box to write: how its line begins, and how the lines below it do.
struct Step<'d> {
    node: usize,
    via: Option<&'d Arrow>,
    first: String,
    below: String,
}

fn tree(drawing: &Drawing, root: usize, written: &mut [bool], out: &mut String) {
    let mut stack = vec![Step { node: root, via: None, first: String::new(), below: String::new() }];
    while let Some(step) = stack.pop() {
        let shape = &drawing.nodes[step.node];
        let output = step.via.map(|arrow| arrow.label.as_str()).filter(|label| !label.is_empty());
        let output = output.map(|label| format!("[{label}] ")).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = write!(out, "{}{output}{}", step.first, shape.label);
        if written[step.node] {
            out.push_str("  (see above)\n");
            continue;
        }
        written[step.node] = true;
        let group = shape.group.and_then(|group| drawing.groups.get(group)).map(|group| format!("  {{{}}}", group.label));
        let mut lines = shape.detail.lines().filter(|line| !line.is_empty()).map(|line| shortened(line, MAX_DETAIL));
        let detail = lines.next().map(|line| format!("  {line}")).unwrap_or_default();
        let _ = writeln!(out, "{detail}{}", group.unwrap_or_default());
        let below: Vec<&Arrow> = drawing.edges.iter().filter(|edge| edge.from == step.node).collect();
        let bar = if below.is_empty() { "   " } else { "│  " };
        for line in lines {
            let _ = writeln!(out, "{}{bar}  {line}", step.below);
        }
        for (index, arrow) in below.iter().enumerate().rev() {
            let (branch, bar) = if index + 1 == below.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            let (first, below) = (format!("{}{branch}", step.below), format!("{}{bar}", step.below));
            stack.push(Step { node: arrow.to, via: Some(arrow), first, below });
        }
    }
}
