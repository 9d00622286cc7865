//! Drawings of a plan: what is drawn, apart from how.
//!
//! A [`Drawing`] is boxes, arrows and groups with text in them. It is made from a [`Graph`] here and from a physical plan
//! elsewhere, and written as text for a terminal, as DOT, or as SVG. None of it needs a tool or a font beyond the reader's.

mod dot;
mod layout;
mod svg;
mod text;

use crate::graph::{Expression, Graph, LogLevel, Node, TimeUnit, TimedRule, Transform};
use pelton_core::calendar::CalendarUnit;
use pelton_core::watermark::Rule;
use pelton_core::window::WindowFn;

/// Something to draw.
#[derive(Clone, Debug, Default)]
pub struct Drawing {
    /// Above it.
    pub title: String,
    /// Frames around some of the boxes, such as the stages of a plan; may be empty.
    pub groups: Vec<Group>,
    /// The boxes.
    pub nodes: Vec<Shape>,
    /// The arrows.
    pub edges: Vec<Arrow>,
}

/// A frame.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// In its corner.
    pub label: String,
}

/// A box.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// In bold.
    pub label: String,
    /// Below it; lines are separated by `\n`; may be empty.
    pub detail: String,
    /// Index of its frame.
    pub group: Option<usize>,
}

/// An arrow.
#[derive(Clone, Debug, Default)]
pub struct Arrow {
    /// Index of the box where it begins.
    pub from: usize,
    /// Index of the box where it ends.
    pub to: usize,
    /// Beside it; may be empty.
    pub label: String,
}

impl Drawing {
    /// For a terminal: an indented tree, each box once.
    pub fn to_text(&self) -> String {
        text::write(self)
    }

    /// For Graphviz and what else reads DOT.
    pub fn to_dot(&self) -> String {
        dot::write(self)
    }

    /// For a browser.
    pub fn to_svg(&self) -> String {
        svg::write(self)
    }
}

impl Graph {
    /// The plan as written, before anything is fused.
    pub fn drawing(&self) -> Drawing {
        let nodes = self.nodes.iter().map(|node| Shape { label: node.name.clone(), detail: detail(node), group: None });
        let edges = self
            .nodes
            .iter()
            .flat_map(|node| node.inputs.iter().map(|input| Arrow { from: input.node, to: node.id, label: input.output.clone() }));
        Drawing { title: self.name.clone(), groups: Vec::new(), nodes: nodes.collect(), edges: edges.collect() }
    }
}

/// One line for what a node does, and one for its windows where they matter.
pub fn detail(node: &Node) -> String {
    let what = describe(&node.transform);
    let kind = node.transform.kind();
    let first = match (node.name.rsplit('/').next() == Some(kind), what.is_empty()) {
        (true, _) => what,
        (false, true) => kind.to_string(),
        (false, false) => format!("{kind}: {what}"),
    };
    match (&node.transform, &node.windowing) {
        (transform, Some(strategy)) if transform.is_keyed() => {
            format!("{first}\nper window: {}", describe_window(strategy.window_fn))
        }
        _ => first,
    }
}

fn describe(transform: &Transform) -> String {
    match transform {
        Transform::Source { config, .. } | Transform::Sink { config, .. } => {
            let place = ["path", "topic"].iter().find_map(|key| config.get(key)?.as_str());
            place.unwrap_or_default().to_string()
        }
        Transform::Plugin { key, .. } if !key.is_empty() => format!("state by {}", names(key.iter().map(|column| column.text.as_str()))),
        Transform::Plugin { .. } | Transform::Flatten | Transform::StripErrorMetadata | Transform::Validate { .. } => String::new(),
        Transform::Explode { fields, .. } => names(fields.iter().map(String::as_str)),
        Transform::Reshuffle { buckets } => buckets.map_or(String::new(), |buckets| format!("to {buckets}")),
        Transform::MatchAll { file_pattern, .. } => file_pattern.clone().unwrap_or_default(),
        Transform::AssignTimestamps { timestamp, unit, .. } => match unit {
            TimeUnit::Seconds => quoted(timestamp),
            TimeUnit::Milliseconds => format!("{} in ms", quoted(timestamp)),
            TimeUnit::Microseconds => format!("{} in us", quoted(timestamp)),
            TimeUnit::Nanoseconds => format!("{} in ns", quoted(timestamp)),
        },
        Transform::SetWatermark { rule, marker, .. } => match (rule, marker) {
            (Rule::FixedDelay(delay), _) => format!("{delay} behind the latest"),
            (Rule::Adaptive { quantile, min, max }, _) => {
                format!("{} % of rows in time, {min} to {max} behind", f64::from(*quantile) / 1e4)
            }
            (Rule::Punctuated, Some(marker)) => format!("where {}", quoted(marker)),
            (Rule::ProcessingTime, _) => "the clock".to_string(),
            _ => String::new(),
        },
        Transform::WindowInto { strategy, .. } => describe_window(strategy.window_fn),
        Transform::ExtractWindowingInfo { fields } => names(fields.iter().map(|(name, _)| name.as_str())),
        Transform::MapToFields { fields, append, drop } => {
            let fields = names(fields.iter().map(|(name, _)| name.as_str()));
            let dropped = if drop.is_empty() { String::new() } else { format!(", without {}", names(drop.iter().map(String::as_str))) };
            format!("{}{fields}{dropped}", if *append { "+ " } else { "" })
        }
        Transform::Filter { keep } => quoted(keep),
        Transform::Partition { by, .. } => format!("by {}", quoted(by)),
        Transform::Combine { group_by, combine, .. } | Transform::RollUp { group_by, combine, .. } => {
            let columns = combine.iter().map(|aggregate| {
                let value = aggregate.value.as_ref().map_or("*", |value| value.text.as_str());
                format!("{} = {}({value})", aggregate.name, aggregate.function.name())
            });
            let columns: Vec<String> = columns.collect();
            match group_by.is_empty() {
                true => columns.join(", "),
                false => format!("{} by {}", columns.join(", "), names(group_by.iter().map(|(name, _)| name.as_str()))),
            }
        }
        Transform::Sql { query, .. } => shortened(&quoted(query), 60),
        Transform::Join(join) => {
            let side = |side: &(usize, Expression)| format!("{}.{}", join.inputs[side.0], quoted(&side.1));
            let equal = join.equalities.iter().map(|equality| format!("{} = {}", side(&equality.left), side(&equality.right)));
            equal.collect::<Vec<_>>().join(", ")
        }
        Transform::TimedJoin(timed) => {
            let side = |side: &(usize, Expression)| format!("{}.{}", timed.join.inputs[side.0], quoted(&side.1));
            let equal = timed.join.equalities.iter().map(|equality| format!("{} = {}", side(&equality.left), side(&equality.right)));
            let rule = match timed.rule {
                TimedRule::Interval { before, after } => format!("from {before} before to {after} after"),
                TimedRule::AsOf { tolerance } => format!("not older than {tolerance}"),
            };
            format!("{}\n{rule}", equal.collect::<Vec<_>>().join(", "))
        }
        Transform::LookupJoin(lookup) => {
            let equal = lookup.on.iter().map(|key| format!("{} = {}", quoted(&key.input), key.table));
            let again = lookup.refresh.map(|period| format!(" every {period}")).unwrap_or_default();
            format!("{}\n{}{again}", equal.collect::<Vec<_>>().join(", "), lookup.table.kind)
        }
        Transform::LogForTesting { level, .. } => match level {
            LogLevel::Error => "ERROR".to_string(),
            LogLevel::Info => "INFO".to_string(),
            LogLevel::Debug => "DEBUG".to_string(),
        },
    }
}

pub(crate) fn describe_window(window: WindowFn) -> String {
    match window {
        WindowFn::Global => "global".to_string(),
        WindowFn::Fixed { size, offset } if offset.micros() == 0 => format!("fixed {size}"),
        WindowFn::Fixed { size, offset } => format!("fixed {size} + {offset}"),
        WindowFn::Sliding { size, period, .. } => format!("sliding {size} every {period}"),
        WindowFn::Sessions { gap } => format!("sessions, gap {gap}"),
        WindowFn::Calendar(calendar) => {
            let unit = match calendar.unit {
                CalendarUnit::Days => "days",
                CalendarUnit::Weeks { .. } => "weeks",
                CalendarUnit::Months { .. } => "months",
            };
            format!("{} {unit} in {}", calendar.count, calendar.zone)
        }
    }
}

fn quoted(expression: &Expression) -> String {
    expression.text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// Cut so that a box stays a box.
fn shortened(text: &str, limit: usize) -> String {
    match text.chars().count() > limit {
        true => text.chars().take(limit - 1).chain(['…']).collect(),
        false => text.to_string(),
    }
}
