//! The page of a run: one file without anything from outside. Charts are drawn here as SVG.

use crate::progress::Timeline;
use crate::summary::Summary;
use pelton_core::Instant;
use pelton_runtime::Progress;
use std::fmt::Write;

/// Size of a chart's plotting area, pixels.
const WIDE: f64 = 820.0;
const HIGH: f64 = 320.0;
/// Room for axes.
const LEFT: f64 = 90.0;
const BELOW: f64 = 46.0;

/// The whole page.
pub fn page(run: &Summary, progress: &Progress, timeline: &Timeline, plan: &str) -> String {
    let mut body = String::new();
    let _ = write!(
        body,
        "<h1>{}</h1><p>{} after {:.2} s: {} rows read, {:.0} rows a second.</p>",
        escape(&run.pipeline),
        run.end,
        run.seconds,
        run.rows_read,
        run.rows_per_second
    );
    let _ = write!(
        body,
        "<h2>Event time against processing time</h2><p>Each point is a row. Rows that arrive as they happen lie on the diagonal; a row that was held up lies above it.</p>{}",
        scatter(&progress.scatter.points())
    );
    let _ = write!(body, "<h2>Rows per window</h2>{}", bars(&progress.windows.counts()));
    let _ = write!(body, "<h2>Throughput</h2>{}", throughput(timeline));
    let _ = write!(body, "<h2>Transforms</h2>{}", table(run));
    let _ = write!(body, "<h2>Plan</h2><div class=\"plan\">{plan}</div>");
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>{} - Pelton</title><style>{STYLE}</style></head><body>{body}</body></html>\n",
        escape(&run.pipeline)
    )
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#1d2733}h1{font-size:1.6em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{padding:.25em .6em;text-align:right;border-bottom:1px solid #dde3ea}th:first-child,td:first-child{text-align:left}svg{max-width:100%;height:auto}.plan{overflow-x:auto}.plan svg{max-width:none}text{font:12px system-ui,sans-serif;fill:#51606f}.axis{stroke:#9fb0c0;fill:none}.grid{stroke:#e6ebf0}.dot{fill:#1f6feb;fill-opacity:.45}.bar{fill:#1f6feb}.line{stroke:#1f6feb;stroke-width:2;fill:none}.ideal{stroke:#d1495b;stroke-dasharray:5 4}";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A linear scale from data to pixels.
struct Scale {
    from: f64,
    to: f64,
    length: f64,
}

impl Scale {
    fn over(values: impl Iterator<Item = f64> + Clone, length: f64) -> Scale {
        let (from, to) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let to = if to > from { to } else { from + 1.0 };
        Scale { from, to, length }
    }

    fn at(&self, value: f64) -> f64 {
        (value - self.from) / (self.to - self.from) * self.length
    }

    /// Five values, evenly spaced.
    fn ticks(&self) -> impl Iterator<Item = f64> + '_ {
        (0..=4).map(|step| self.from + (self.to - self.from) * f64::from(step) / 4.0)
    }
}

fn frame(
    x: &Scale,
    y: &Scale,
    x_name: &str,
    y_name: &str,
    x_label: impl Fn(f64) -> String,
    y_label: impl Fn(f64) -> String,
    inside: &str,
) -> String {
    let mut svg = format!(
        "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{y_name} against {x_name}\">",
        WIDE + LEFT + 40.0,
        HIGH + BELOW + 30.0
    );
    let _ = write!(svg, "<text x=\"4\" y=\"14\">{y_name}</text><g transform=\"translate({LEFT},24)\">");
    for tick in y.ticks() {
        let at = HIGH - y.at(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"0\" x2=\"{WIDE}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"-8\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            at + 4.0,
            y_label(tick)
        );
    }
    for tick in x.ticks() {
        let _ = write!(svg, "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", x.at(tick), HIGH + 18.0, x_label(tick));
    }
    let _ = write!(
        svg,
        "<path class=\"axis\" d=\"M0 0V{HIGH}H{WIDE}\"/>{inside}<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{x_name}</text></g></svg>",
        WIDE / 2.0,
        HIGH + 38.0
    );
    svg
}

fn clock(micros: f64, with_date: bool) -> String {
    let text = Instant::from_micros_saturating(micros as i64).to_string();
    let time = text.get(11..19).unwrap_or_default();
    if with_date { format!("{} {time}", text.get(5..10).unwrap_or_default()) } else { time.into() }
}

fn scatter(points: &[(i64, i64)]) -> String {
    let points: Vec<_> = points
        .iter()
        .filter(|(event, _)| *event > Instant::MIN.micros())
        .map(|(event, processing)| (*event as f64, *processing as f64))
        .collect();
    if points.is_empty() {
        return "<p>No row had an event time.</p>".into();
    }
    let x = Scale::over(points.iter().map(|point| point.0), WIDE);
    let y = Scale::over(points.iter().map(|point| point.1), HIGH);
    let mut inside = String::new();
    // The diagonal, where the two ranges overlap: rows handled as they happen.
    let (from, to) = (x.from.max(y.from), x.to.min(y.to));
    if from < to {
        let _ = write!(
            inside,
            "<line class=\"ideal\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            x.at(from),
            HIGH - y.at(from),
            x.at(to),
            HIGH - y.at(to)
        );
    }
    for (event, processing) in &points {
        let _ = write!(inside, "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2\"/>", x.at(*event), HIGH - y.at(*processing));
    }
    frame(&x, &y, "event time (UTC)", "processing time (UTC)", |at| clock(at, x.to - x.from > 86_400e6), |at| clock(at, false), &inside)
}

fn bars(counts: &[(i64, u64)]) -> String {
    let counts: Vec<_> = counts.iter().filter(|(start, _)| *start > Instant::MIN.micros()).collect();
    if counts.is_empty() {
        return "<p>No window has been given out.</p>".into();
    }
    let x = Scale::over(counts.iter().map(|count| count.0 as f64), WIDE);
    let y = Scale::over([0.0].into_iter().chain(counts.iter().map(|count| count.1 as f64)), HIGH);
    let width = (WIDE / counts.len() as f64 * 0.8).clamp(1.0, 40.0);
    let mut inside = String::new();
    for (start, rows) in &counts {
        let high = y.at(*rows as f64);
        let left = (x.at(*start as f64) - width / 2.0).clamp(0.0, WIDE - width);
        let _ = write!(
            inside,
            "<rect class=\"bar\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{high:.1}\"><title>{}: {rows}</title></rect>",
            HIGH - high,
            Instant::from_micros_saturating(*start)
        );
    }
    frame(&x, &y, "start of the window (UTC)", "rows", |at| clock(at, x.to - x.from > 86_400e6), |rows| format!("{rows:.0}"), &inside)
}

fn throughput(timeline: &Timeline) -> String {
    let rates: Vec<(f64, f64)> = timeline
        .points
        .windows(2)
        .filter(|pair| pair[1].0 > pair[0].0)
        .map(|pair| (pair[1].0, (pair[1].1 - pair[0].1) as f64 / (pair[1].0 - pair[0].0)))
        .collect();
    if rates.is_empty() {
        return "<p>The run was too short to say.</p>".into();
    }
    let x = Scale::over([0.0].into_iter().chain(rates.iter().map(|rate| rate.0)), WIDE);
    let y = Scale::over([0.0].into_iter().chain(rates.iter().map(|rate| rate.1)), HIGH);
    let path: Vec<String> = rates.iter().map(|(at, rate)| format!("{:.1} {:.1}", x.at(*at), HIGH - y.at(*rate))).collect();
    let inside = format!("<path class=\"line\" d=\"M{}\"/>", path.join("L"));
    frame(&x, &y, "seconds since the start", "rows read a second", |at| format!("{at:.1}"), |rate| format!("{rate:.0}"), &inside)
}

fn table(run: &Summary) -> String {
    let mut html = String::from(
        "<table><tr><th>transform</th><th>rows in</th><th>led to output</th><th>filtered</th><th>errors</th><th>late</th><th>held</th><th>rows out</th><th>busy s</th></tr>",
    );
    for node in &run.transforms {
        let out: Vec<String> = node
            .rows_out
            .iter()
            .filter(|(_, rows)| *rows > 0)
            .map(|(name, rows)| if name.is_empty() { rows.to_string() } else { format!("{}: {rows}", escape(name)) })
            .collect();
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.2}</td></tr>",
            escape(&node.name),
            node.rows_in,
            node.led,
            node.filtered,
            node.errors,
            node.late,
            node.held,
            out.join(", "),
            node.busy_seconds
        );
        for hot in &node.hot_keys {
            let share = 100.0 * hot.share;
            let _ = write!(html, "<tr><td></td><td colspan=\"8\">the key {} has {share:.0} % of the rows</td></tr>", escape(&hot.key));
        }
    }
    html + "</table>"
}
