//! `GenerateEvents`: events made from a seed, for trying out, demonstrating and testing pipelines.
//!
//! - [`model`]: what the events are. [`lag`]: when they arrive. [`random`]: where both get their numbers.
//!
//! Invariant: the events of a config are the same whatever the rate and the parallelism, and however often reading was interrupted.

mod lag;
mod model;
pub(crate) mod random;

use crate::ConnectError;
use crate::batch_rows::BatchRows;
use crate::file::decode::text_schema;
use crate::format::json_read::JsonDecoder;
use crate::format::schema;
use crate::settings::Settings;
use crate::source::{Reader, Source, SourceBatch, SourceContext};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringBuilder};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use lag::{ArrivalPlace, Arrivals, Lag, MAX_HELD};
use model::{Clock, Kind, Model};
use pelton_core::batch::TARGET_BYTES;
use pelton_core::catalog::{ConfigFault, ConnectorSpec, KeySpec, Role};
use pelton_core::fault::FormatError;
use pelton_core::{Duration, Instant, Split, SplitPosition};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// With a rate, events are sent this often: an eye sees no steps, and a batch has some rows.
const PACE: std::time::Duration = std::time::Duration::from_millis(10);
const MAX_PARTS: u64 = 1_024;

/// What it says of itself.
pub static SPEC: ConnectorSpec = ConnectorSpec {
    name: "GenerateEvents",
    role: Role::Source,
    doc: "Makes events from a seed: the same ones in every run, whatever the rate and the parallelism.",
    keys: &[
        KeySpec {
            name: "kind",
            required: true,
            doc: "`web_access` (a web server's log), `iot` (readings of sensors) or `transactions` (purchases).",
        },
        KeySpec { name: "seed", required: false, doc: "Any whole number; another seed gives other events (default 42)." },
        KeySpec { name: "count", required: false, doc: "How many events, not counting duplicates (default: without end)." },
        KeySpec { name: "rate", required: false, doc: "Events a second, over all parts (default: as fast as possible)." },
        KeySpec { name: "start", required: false, doc: "Event time of the first event, RFC 3339 or `now` (default 2026-01-01T00:00:00Z)." },
        KeySpec {
            name: "interval",
            required: false,
            doc: "Event time from one event to the next (default: 1/rate, or 1ms without a rate).",
        },
        KeySpec {
            name: "parts",
            required: false,
            doc: "Splits that the events are dealt out to, each with a watermark of its own (default 1).",
        },
        KeySpec { name: "devices", required: false, doc: "Devices, sensors or customers that the events come from (default 1000)." },
        KeySpec {
            name: "format",
            required: false,
            doc: "`lines` or `json`: one column `line` with JSON text (default for web_access); `rows`: a column for each field (default for the others).",
        },
        KeySpec {
            name: "lag",
            required: false,
            doc: "`{offline_share, offline_duration, burst_on_return, duplicates, malformed, max_out_of_order}`: the share of its time that a device is offline (default 0) and for how long at a time (default 60s), whether it then sends all at once (default true), the shares of events that come twice or are cut off (default 0), and by how much event times are out of order (default 0s).",
        },
    ],
    has_errors: true,
    endless: |config| config.get("count").is_none_or(Value::is_null),
    timed: false,
    check: |config| read(config).1,
};

struct Options {
    kind: Kind,
    seed: u64,
    count: Option<u64>,
    rate: Option<f64>,
    start: Option<Instant>,
    interval_micros: i64,
    parts: u64,
    devices: u64,
    lines: bool,
    lag: Lag,
    jitter_micros: u64,
}

fn read(config: &Value) -> (Options, Vec<ConfigFault>) {
    let mut settings = Settings::new(config);
    let kinds = [("web_access", Kind::WebAccess), ("iot", Kind::Iot), ("transactions", Kind::Transactions)];
    let kind = settings.choice("kind", &kinds).unwrap_or(Kind::WebAccess);
    let rate = settings.number("rate", 0.001..=1e9);
    let default_interval = rate.map_or(1_000, |rate| (1e6 / rate) as i64).max(1);
    let interval_micros = settings.duration("interval").map_or(default_interval, Duration::micros);
    let (lag, jitter_micros) = read_lag(&mut settings, interval_micros);
    let options = Options {
        kind,
        seed: settings.integer("seed", 0..=u64::MAX).unwrap_or(42),
        count: settings.integer("count", 0..=u64::MAX),
        rate,
        start: start(&mut settings),
        interval_micros,
        parts: settings.integer("parts", 1..=MAX_PARTS).unwrap_or(1),
        devices: settings.integer("devices", 1..=u64::from(u32::MAX)).unwrap_or(1_000),
        lines: settings
            .choice("format", &[("lines", true), ("line", true), ("json", true), ("rows", false)])
            .unwrap_or(kind == Kind::WebAccess),
        lag,
        jitter_micros,
    };
    (options, settings.into_faults())
}

/// The first event time; `None` for `now`.
fn start(settings: &mut Settings<'_>) -> Option<Instant> {
    const DEFAULT: &str = "2026-01-01T00:00:00Z";
    let text = settings.string("start").unwrap_or_else(|| DEFAULT.into());
    if text == "now" {
        return None;
    }
    Some(Instant::parse_rfc3339(&text).unwrap_or_else(|error| {
        settings.fault("start", error.to_string(), "write a time such as 2026-01-31T12:00:00Z, or now");
        Instant::MIN
    }))
}

fn read_lag(settings: &mut Settings<'_>, interval_micros: i64) -> (Lag, u64) {
    let keys = ["offline_share", "offline_duration", "burst_on_return", "duplicates", "malformed", "max_out_of_order"];
    let mut section = settings.section("lag", &keys);
    let lag = Lag {
        offline_share: section.number("offline_share", 0.0..=0.95).unwrap_or(0.0),
        offline_micros: section.duration("offline_duration").map_or(60_000_000, Duration::micros),
        burst: section.boolean("burst_on_return").unwrap_or(true),
        duplicates: section.number("duplicates", 0.0..=1.0).unwrap_or(0.0),
        malformed: section.number("malformed", 0.0..=1.0).unwrap_or(0.0),
    };
    let jitter = section.duration("max_out_of_order").map_or(0, |jitter| jitter.micros() as u64);
    let held = lag.offline_share * lag.offline_micros as f64 / interval_micros.max(1) as f64;
    if held > MAX_HELD {
        let message = format!("offline devices would hold {held:.0} events, more than {MAX_HELD}");
        section.fault("offline_duration", message, "shorten it, lower `offline_share`, or lengthen `interval`");
    }
    settings.absorb(section);
    (lag, jitter)
}

/// Opens the source; nothing outside is touched.
#[allow(clippy::disallowed_methods, reason = "the connector is at the edge, where processing time comes in")]
pub async fn open(config: Value, ctx: SourceContext) -> Result<Box<dyn Source>, ConnectError> {
    let options = read(&config).0;
    let start = options.start.unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Instant::from_micros_saturating(since.as_micros() as i64)
    });
    let model = options.model(start);
    let schema = if options.lines { text_schema() } else { schema::nullable(&model.schema()) };
    let split = |part| Arc::new(Split::Generated { name: ctx.transform.clone(), part });
    let splits = (0..options.parts as u32).map(split).collect();
    let places = HashMap::new();
    Ok(Box::new(EventSource { ctx, options, start, model: Arc::new(model), schema, projection: None, splits, places }))
}

/// What the events follow from. `count` and `rate` may change from start to start: they only say how many come, and when.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Plan {
    /// In microseconds; the moment of the first start, if the config says `now`.
    start: i64,
    /// `start` was said.
    given: bool,
    /// Everything else, as one text.
    config: String,
}

/// Where a part goes on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Place {
    arrivals: ArrivalPlace,
    sent: u64,
}

struct EventSource {
    ctx: SourceContext,
    options: Options,
    start: Instant,
    model: Arc<Model>,
    schema: SchemaRef,
    projection: Option<Vec<String>>,
    splits: Vec<Arc<Split>>,
    /// Where parts go on, by the id of their split.
    places: HashMap<String, Place>,
}

impl Source for EventSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn bounded(&self) -> bool {
        self.options.count.is_some()
    }

    fn splits(&self) -> Vec<Arc<Split>> {
        self.splits.clone()
    }

    fn project(&mut self, columns: &[String]) {
        self.projection = Some(columns.to_vec());
    }

    fn plan(&self) -> Vec<u8> {
        serde_json::to_vec(&self.now_planned()).expect("numbers and text are JSON")
    }

    fn restore(&mut self, plan: &[u8], positions: Vec<SplitPosition>) -> Result<(), ConnectError> {
        let (then, now): (Plan, Plan) = (serde_json::from_slice(plan).map_err(ConnectError::internal)?, self.now_planned());
        if then.config != now.config || (now.given && then.start != now.start) {
            return Err(ConnectError::user(
                format!("{}: its config would make other events than those that it has begun with", self.ctx.transform),
                "only `count`, `rate` and `format` may change; put the rest back as it was, or begin anew with an empty state",
            ));
        }
        self.start = Instant::from_micros_saturating(then.start);
        self.model = Arc::new(self.options.model(self.start));
        for position in positions {
            self.places.insert(position.split, serde_json::from_slice(&position.position).map_err(ConnectError::internal)?);
        }
        Ok(())
    }

    fn readers(self: Box<Self>, count: usize) -> Result<Vec<Box<dyn Reader>>, ConnectError> {
        let mut dealt: Vec<Vec<Part>> = (0..count.max(1)).map(|_| Vec::new()).collect();
        let (parts, options) = (self.options.parts, &self.options);
        for (number, split) in self.splits.iter().enumerate() {
            let mut arrivals = Arrivals::new(options.seed, options.lag, number as u64, parts, options.count);
            let place = self.places.get(&split.id());
            if let Some(place) = place {
                arrivals.go_to(place.arrivals, &self.model);
            }
            let sent = place.map_or(0, |place| place.sent);
            let reader = number % dealt.len();
            dealt[reader].push(Part { split: split.clone(), arrivals, sent, sent_before: sent, paused: false });
        }
        let mut readers: Vec<Box<dyn Reader>> = Vec::with_capacity(dealt.len());
        for parts in dealt {
            readers.push(Box::new(EventReader {
                rows: self.rows()?,
                model: self.model.clone(),
                stop: self.ctx.stop.clone(),
                io: self.ctx.io.clone(),
                rate: options.rate.map(|rate| rate / options.parts as f64),
                started: None,
                parts,
                ended: Vec::new(),
                turn: 0,
                clock: Clock::default(),
                line: Vec::new(),
                batch: BatchRows::default(),
            }));
        }
        Ok(readers)
    }
}

impl Options {
    fn model(&self, start: Instant) -> Model {
        Model::new(self.kind, self.seed, start, self.interval_micros, self.jitter_micros, self.devices)
    }
}

impl EventSource {
    fn now_planned(&self) -> Plan {
        let Options { kind, seed, interval_micros, parts, devices, lag, jitter_micros, .. } = &self.options;
        let config = format!("{:?}", (kind, seed, interval_micros, parts, devices, lag, jitter_micros));
        Plan { start: self.start.micros(), given: self.options.start.is_some(), config }
    }

    fn rows(&self) -> Result<Rows, ConnectError> {
        let projection = self.projection.as_deref();
        if self.options.lines {
            let wanted = projection.is_none_or(|names| names.iter().any(|name| name == "line"));
            let schema = if wanted { text_schema() } else { Arc::new(Schema::empty()) };
            return Ok(Rows::Lines { schema, wanted, lines: StringBuilder::new() });
        }
        JsonDecoder::new(&self.model.schema(), projection).map(Rows::Columns).map_err(ConnectError::internal)
    }
}

/// What becomes of an event.
enum Rows {
    Lines { schema: SchemaRef, wanted: bool, lines: StringBuilder },
    Columns(JsonDecoder),
}

impl Rows {
    fn push(&mut self, line: &[u8]) -> Result<(), String> {
        match self {
            Rows::Lines { wanted: false, .. } => Ok(()),
            Rows::Lines { lines, .. } => {
                lines.append_value(std::str::from_utf8(line).map_err(|error| error.to_string())?);
                Ok(())
            }
            Rows::Columns(decoder) => decoder.push(line),
        }
    }

    fn finish(&mut self, rows: usize) -> RecordBatch {
        match self {
            Rows::Lines { schema, wanted, lines } => {
                let columns: Vec<ArrayRef> = if *wanted { vec![Arc::new(lines.finish())] } else { Vec::new() };
                let options = RecordBatchOptions::new().with_row_count(Some(rows));
                RecordBatch::try_new_with_options(schema.clone(), columns, &options).expect("one string for the one column")
            }
            Rows::Columns(decoder) => decoder.finish(),
        }
    }
}

/// A split and how far it has come.
struct Part {
    split: Arc<Split>,
    arrivals: Arrivals,
    sent: u64,
    /// In earlier lives of the process: the rate is kept from the start of this one.
    sent_before: u64,
    paused: bool,
}

impl Part {
    fn position(&self) -> SplitPosition {
        let place = Place { arrivals: self.arrivals.place(), sent: self.sent };
        SplitPosition { split: self.split.id(), position: serde_json::to_vec(&place).expect("numbers are JSON") }
    }
}

/// Gives the events of some parts in turn.
struct EventReader {
    model: Arc<Model>,
    rows: Rows,
    parts: Vec<Part>,
    /// Where parts have ended.
    ended: Vec<SplitPosition>,
    turn: usize,
    stop: tokio::sync::watch::Receiver<bool>,
    io: tokio::runtime::Handle,
    /// Events a second of each part.
    rate: Option<f64>,
    started: Option<std::time::Instant>,
    clock: Clock,
    line: Vec<u8>,
    batch: BatchRows,
}

#[async_trait]
impl Reader for EventReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>, ConnectError> {
        loop {
            if *self.stop.borrow() || self.parts.is_empty() {
                return Ok(None);
            }
            let due = self.due();
            if due > 0 {
                return Ok(Some(self.batch(due)));
            }
            // The timer runs on the I/O runtime: a worker's own need not have one.
            let pause = self.io.spawn(async { tokio::time::sleep(PACE).await });
            pause.await.map_err(ConnectError::internal)?;
        }
    }

    fn assigned(&self) -> Vec<Arc<Split>> {
        self.parts.iter().map(|part| part.split.clone()).collect()
    }

    fn pause(&mut self, splits: &[Arc<Split>]) -> bool {
        self.parts.iter_mut().for_each(|part| part.paused = splits.iter().any(|split| Arc::ptr_eq(split, &part.split)));
        true
    }

    fn positions(&self) -> Vec<SplitPosition> {
        self.parts.iter().map(Part::position).chain(self.ended.iter().cloned()).collect()
    }

    fn unclaimed(&self) -> bool {
        false
    }
}

impl EventReader {
    /// How many events the next part in turn may send now. Parts that are paused, or ahead of the clock, pass their turn.
    #[allow(clippy::disallowed_methods, reason = "a rate is kept by the clock")]
    fn due(&mut self) -> usize {
        let elapsed = self.started.get_or_insert_with(std::time::Instant::now).elapsed();
        let allowed = self.rate.map_or(u64::MAX, |rate| (elapsed.as_secs_f64() * rate) as u64 + 1);
        for _ in 0..self.parts.len() {
            self.turn %= self.parts.len();
            let part = &self.parts[self.turn];
            let due = allowed.saturating_sub(part.sent - part.sent_before);
            if due > 0 && !part.paused {
                return due.min(self.batch.most as u64) as usize;
            }
            self.turn += 1;
        }
        0
    }

    fn batch(&mut self, most: usize) -> SourceBatch {
        self.batch = self.batch.next();
        self.turn %= self.parts.len();
        let part = &mut self.parts[self.turn];
        let (mut offsets, mut errors, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut ended = false;
        while offsets.len() + errors.len() < most && bytes < TARGET_BYTES {
            let Some(arrival) = part.arrivals.next(&self.model) else {
                ended = true;
                break;
            };
            self.line.clear();
            self.model.write(arrival.index, &mut self.clock, &mut self.line);
            if arrival.malformed {
                self.line.truncate(self.line.len() / 2);
            }
            bytes += self.line.len();
            let offset = part.sent as i64;
            part.sent += 1;
            match self.rows.push(&self.line) {
                Ok(()) => offsets.push(offset),
                Err(message) => errors.push(FormatError { element: self.line.clone(), message, offset, time: None }),
            }
        }
        let rows = self.rows.finish(offsets.len());
        let batch = SourceBatch { errors, bytes, split_ended: ended, ..SourceBatch::new(rows, part.split.clone(), offsets.into()) };
        match ended {
            true => self.ended.push(self.parts.remove(self.turn).position()),
            false => self.turn += 1,
        }
        batch
    }
}
