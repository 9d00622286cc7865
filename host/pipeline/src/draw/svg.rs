//! A drawing as SVG: boxes in columns from left to right, arrows in straight pieces through the gaps between them.
//!
//! Colours follow the reader's preference for light or dark. Text is measured by its number of characters, since no font is at
//! hand; boxes are generous for that reason.

use std::fmt::Write as _;

use super::layout::{Cell, Layout, layout};
use super::{Drawing, shortened};

const CHARACTER: usize = 8;
const LINE: usize = 17;
const PADDING: usize = 12;
/// Room between columns, in which arrows turn, and more of it for labels on arrows.
const GAP: usize = 56;
const LABEL_CHARACTER: usize = 7;
const MAX_LABEL: usize = 24;
/// Room between rows.
const ROW_GAP: usize = 28;
const MARGIN: usize = 24;
const TITLE: usize = 40;
const MAX_CHARACTERS: usize = 48;

const STYLE: &str = "text{font:13px ui-sans-serif,system-ui,sans-serif;fill:#1b1f24}.label{font-weight:600}.detail{fill:#57606a}\
.box{fill:#f6f8fa;stroke:#8c959f}.group{fill:none;stroke:#0969da;stroke-dasharray:4 3}.arrow{fill:none;stroke:#57606a;stroke-width:1.3}\
.head{fill:#57606a}.title{font-size:16px;font-weight:600}.edge{font-size:11px;fill:#0969da}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.detail{fill:#9198a1}.box{fill:#161b22;stroke:#6e7681}.arrow{stroke:#9198a1}.head{fill:#9198a1}}";

pub(super) fn write(drawing: &Drawing) -> String {
    let layout = layout(drawing);
    let grid = Grid::new(drawing, &layout);
    let mut out = String::new();
    let (width, height) = (grid.width.max(drawing.title.chars().count() * 10 + 2 * MARGIN), grid.height);
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">"
    );
    let _ = writeln!(out, "<title>{}</title>\n<style>{STYLE}</style>", escape(&drawing.title));
    out.push_str("<defs><marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\"><path class=\"head\" d=\"M0 0L8 4L0 8z\"/></marker></defs>\n");
    let _ = writeln!(out, "<text class=\"title\" x=\"{MARGIN}\" y=\"{}\">{}</text>", MARGIN + 8, escape(&drawing.title));
    for index in 0..drawing.groups.len() {
        group(drawing, &layout, &grid, index, &mut out);
    }
    for index in 0..drawing.edges.len() {
        arrow(drawing, &layout, &grid, index, &mut out);
    }
    for index in 0..drawing.nodes.len() {
        shape(drawing, &layout, &grid, index, &mut out);
    }
    out.push_str("</svg>\n");
    out
}

/// Where columns and rows lie.
struct Grid {
    /// Left edge and width of each column.
    columns: Vec<(usize, usize)>,
    row_height: usize,
    box_height: usize,
    width: usize,
    height: usize,
}

impl Grid {
    fn new(drawing: &Drawing, layout: &Layout) -> Grid {
        let mut widths = vec![0; layout.columns];
        let mut lines = 1;
        for (shape, cell) in drawing.nodes.iter().zip(&layout.cells) {
            let text = lines_of(&shape.label, &shape.detail);
            let longest = text.iter().map(|line| line.chars().count()).max().unwrap_or(0);
            widths[cell.column] = widths[cell.column].max(longest * CHARACTER + 2 * PADDING);
            lines = lines.max(text.len());
        }
        let label = drawing.edges.iter().map(|arrow| arrow.label.chars().count().min(MAX_LABEL)).max().unwrap_or(0);
        let gap = GAP + label * LABEL_CHARACTER;
        let mut left = MARGIN;
        let mut columns = Vec::with_capacity(widths.len());
        for width in widths {
            columns.push((left, width));
            left += width + gap;
        }
        let box_height = lines * LINE + 2 * PADDING - 4;
        let row_height = box_height + ROW_GAP;
        let height = MARGIN + TITLE + layout.rows * row_height + MARGIN;
        Grid { columns, row_height, box_height, width: left.saturating_sub(gap) + MARGIN, height }
    }

    fn top(&self, cell: Cell) -> usize {
        MARGIN + TITLE + cell.row * self.row_height
    }

    fn middle(&self, cell: Cell) -> usize {
        self.top(cell) + self.box_height / 2
    }

    fn left(&self, cell: Cell) -> usize {
        self.columns[cell.column].0
    }

    fn right(&self, cell: Cell) -> usize {
        self.columns[cell.column].0 + self.columns[cell.column].1
    }
}

fn lines_of(label: &str, detail: &str) -> Vec<String> {
    let lines = std::iter::once(label).chain(detail.lines().filter(|line| !line.is_empty()));
    lines.map(|line| shortened(line, MAX_CHARACTERS)).collect()
}

fn shape(drawing: &Drawing, layout: &Layout, grid: &Grid, index: usize, out: &mut String) {
    let (shape, cell) = (&drawing.nodes[index], layout.cells[index]);
    let (left, top) = (grid.left(cell), grid.top(cell));
    let (width, height) = (grid.columns[cell.column].1, grid.box_height);
    let _ = writeln!(out, "<g><title>{}</title>", escape(&format!("{}\n{}", shape.label, shape.detail)));
    let _ = writeln!(out, "<rect class=\"box\" x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>");
    for (number, line) in lines_of(&shape.label, &shape.detail).iter().enumerate() {
        let class = if number == 0 { "label" } else { "detail" };
        let (x, y) = (left + PADDING, top + PADDING + 10 + number * LINE);
        let _ = writeln!(out, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", escape(line));
    }
    out.push_str("</g>\n");
}

/// Turns early in each gap, at a place of its own for each row so that arrows do not cover each other; the rest of the gap is
/// for the label in front of the head.
fn arrow(drawing: &Drawing, layout: &Layout, grid: &Grid, index: usize, out: &mut String) {
    let arrow = &drawing.edges[index];
    let (from, to) = (layout.cells[arrow.from], layout.cells[arrow.to]);
    let mut path = format!("M{} {}", grid.right(from), grid.middle(from));
    let mut at = from;
    for &next in layout.lanes[index].iter().chain([&to]) {
        let turn = grid.right(at) + GAP / 4 + (at.row * 7) % (GAP / 4);
        let (level, end) = (grid.middle(next), grid.left(next));
        if grid.middle(at) != level {
            let _ = write!(path, "H{turn}V{level}");
        }
        // A lane is crossed from one gap to the next; a box is where it ends.
        let _ = write!(path, "H{}", if next == to { end } else { grid.right(next) });
        at = next;
    }
    let _ = writeln!(out, "<path class=\"arrow\" marker-end=\"url(#head)\" d=\"{path}\"/>");
    if !arrow.label.is_empty() {
        let (x, y) = (grid.left(to) - GAP / 4, grid.middle(to) - 5);
        let _ = writeln!(
            out,
            "<text class=\"edge\" text-anchor=\"end\" x=\"{x}\" y=\"{y}\">{}</text>",
            escape(&shortened(&arrow.label, MAX_LABEL))
        );
    }
}

/// A frame around the boxes of a group.
fn group(drawing: &Drawing, layout: &Layout, grid: &Grid, index: usize, out: &mut String) {
    let cells = drawing.nodes.iter().zip(&layout.cells).filter(|(shape, _)| shape.group == Some(index)).map(|(_, cell)| *cell);
    let cells: Vec<Cell> = cells.collect();
    let bounds = (
        cells.iter().map(|&cell| grid.left(cell)).min(),
        cells.iter().map(|&cell| grid.top(cell)).min(),
        cells.iter().map(|&cell| grid.right(cell)).max(),
        cells.iter().map(|&cell| grid.top(cell) + grid.box_height).max(),
    );
    let (Some(left), Some(top), Some(right), Some(bottom)) = bounds else { return };
    let (x, y, width, height) = (left - 8, top - 10, right - left + 16, bottom - top + 18);
    let _ = writeln!(out, "<rect class=\"group\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"10\"/>");
    let label = escape(&shortened(&drawing.groups[index].label, MAX_CHARACTERS));
    let _ = writeln!(out, "<text class=\"edge\" x=\"{}\" y=\"{}\">{label}</text>", x + 6, y - 3);
}

/// Markup and characters that XML does not allow.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
