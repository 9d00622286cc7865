//! The events themselves. Event number i is a function of the seed and i alone, so that any number of readers, at any rate, give
//! the same events.
//!
//! Web access lines are those of the benchmark's generator (`shared/recipes/peers/gen.py`) in form and in distribution: about 250
//! bytes, 500 paths whose n-th is asked for in proportion to 1/n^0.9, four responses in five are 200.

use super::random::Random;
use crate::format::schema::timestamp;
use arrow::datatypes::{DataType, Field, Schema};
use pelton_core::Instant;
use std::io::Write;

/// What kind of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Requests to a web server.
    WebAccess,
    /// Readings of sensors.
    Iot,
    /// Purchases.
    Transactions,
}

const PATHS: usize = 500;
/// Entries of the table that stands for the distribution of paths; a power of two.
const PATH_TABLE: usize = 1 << 16;
const VERBS: [&str; 5] = ["GET", "GET", "GET", "POST", "PUT"];
const AGENTS: [&str; 5] = [
    "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64) AppleWebKit/537.36 Chrome/126",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5) Safari/604.1",
    "curl/8.5.0",
    "Googlebot/2.1 (+http://www.google.com/bot.html)",
];
/// Responses and in how many of a hundred events they occur.
const RESPONSES: [(u64, &str); 6] = [(80, "200"), (88, "304"), (94, "404"), (97, "301"), (99, "500"), (100, "403")];

/// Writes events.
#[derive(Clone, Debug)]
pub struct Model {
    kind: Kind,
    seed: u64,
    start: Instant,
    interval_micros: i64,
    jitter_micros: u64,
    devices: u64,
    paths: Vec<String>,
    path_table: Vec<u16>,
}

impl Model {
    /// Events from `start` on, one each `interval`, up to `jitter` older than that.
    pub fn new(kind: Kind, seed: u64, start: Instant, interval_micros: i64, jitter_micros: u64, devices: u64) -> Model {
        let mut random = Random::of(seed, u64::MAX);
        let sections = ["shop", "api/v1", "static", "blog", "user", "img"];
        let pages = ["item", "page", "cart", "search", "asset"];
        let path = |number| format!("/{}/{}/{number}", random.pick(&sections), random.pick(&pages));
        let paths = (0..PATHS).map(path).collect();
        Model { kind, seed, start, interval_micros, jitter_micros, devices, paths, path_table: path_table() }
    }

    /// Columns of the events.
    pub fn schema(&self) -> Schema {
        let fields: &[(&str, DataType)] = match self.kind {
            Kind::WebAccess => &[
                ("ip", DataType::Utf8),
                ("user_id", DataType::Int64),
                ("lat", DataType::Float64),
                ("lng", DataType::Float64),
                ("timestamp", timestamp()),
                ("http_request", DataType::Utf8),
                ("http_response", DataType::Int64),
                ("num_bytes", DataType::Int64),
                ("user_agent", DataType::Utf8),
            ],
            Kind::Iot => &[
                ("sensor_id", DataType::Utf8),
                ("temperature", DataType::Float64),
                ("humidity", DataType::Float64),
                ("pressure", DataType::Float64),
                ("timestamp", timestamp()),
                ("location", DataType::Utf8),
            ],
            Kind::Transactions => &[
                ("transaction_id", DataType::Utf8),
                ("customer_id", DataType::Int64),
                ("product_id", DataType::Utf8),
                ("amount", DataType::Float64),
                ("transaction_date", timestamp()),
            ],
        };
        Schema::new(fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect::<Vec<_>>())
    }

    /// When an event would be sent by a device that is always online, in microseconds.
    pub fn regular_time(&self, index: u64) -> i64 {
        let offset = i128::from(index) * i128::from(self.interval_micros) + i128::from(self.start.micros());
        i64::try_from(offset).map_or(Instant::MAX.micros(), |micros| micros.min(Instant::MAX.micros()))
    }

    /// Which device an event comes from.
    pub fn device(&self, index: u64) -> u64 {
        Random::of(self.seed, index).below(self.devices)
    }

    /// Appends an event as a JSON object, without a line end.
    pub fn write(&self, index: u64, clock: &mut Clock, out: &mut Vec<u8>) {
        let mut random = Random::of(self.seed, index);
        let device = random.below(self.devices);
        let jitter = if self.jitter_micros == 0 { 0 } else { random.below(self.jitter_micros + 1) };
        let time = self.regular_time(index).saturating_sub(jitter as i64);
        match self.kind {
            Kind::WebAccess => self.web_access(device, time, &mut random, clock, out),
            Kind::Iot => iot(device, time, &mut random, clock, out),
            Kind::Transactions => transaction(index, device, time, &mut random, clock, out),
        }
    }

    fn web_access(&self, device: u64, time: i64, random: &mut Random, clock: &mut Clock, out: &mut Vec<u8>) {
        let mut address = Random::of(self.seed ^ 0x6970, device);
        out.extend_from_slice(b"{\"ip\":\"");
        for position in 0..4 {
            if position > 0 {
                out.push(b'.');
            }
            integer(address.below(256), out);
        }
        out.extend_from_slice(b"\",\"user_id\":");
        integer(device, out);
        out.extend_from_slice(b",\"lat\":");
        fixed(random.below(18_000_000) as i64 - 9_000_000, 5, out);
        out.extend_from_slice(b",\"lng\":");
        fixed(random.below(36_000_000) as i64 - 18_000_000, 5, out);
        out.extend_from_slice(b",\"timestamp\":\"");
        clock.write(time, out);
        out.extend_from_slice(b"\",\"http_request\":\"");
        out.extend_from_slice(random.pick(&VERBS).as_bytes());
        out.push(b' ');
        let path = self.path_table[random.below(PATH_TABLE as u64) as usize];
        out.extend_from_slice(self.paths[usize::from(path)].as_bytes());
        out.extend_from_slice(b" HTTP/1.1\",\"http_response\":");
        let drawn = random.below(100);
        let response = RESPONSES.iter().find(|(below, _)| drawn < *below).map_or("200", |(_, response)| response);
        out.extend_from_slice(response.as_bytes());
        out.extend_from_slice(b",\"num_bytes\":");
        integer(random.below(50_000), out);
        out.extend_from_slice(b",\"user_agent\":\"");
        out.extend_from_slice(random.pick(&AGENTS).as_bytes());
        out.extend_from_slice(b"\"}");
    }
}

fn iot(device: u64, time: i64, random: &mut Random, clock: &mut Clock, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"sensor_id\":\"sensor-");
    padded(device, 5, out);
    out.extend_from_slice(b"\",\"temperature\":");
    fixed(1_000 + random.below(2_500) as i64, 2, out);
    out.extend_from_slice(b",\"humidity\":");
    fixed(3_000 + random.below(6_000) as i64, 2, out);
    out.extend_from_slice(b",\"pressure\":");
    fixed(98_000 + random.below(5_000) as i64, 2, out);
    out.extend_from_slice(b",\"timestamp\":\"");
    clock.write(time, out);
    out.extend_from_slice(b"\",\"location\":\"hall-");
    integer(device % 16, out);
    out.extend_from_slice(b"\"}");
}

fn transaction(index: u64, device: u64, time: i64, random: &mut Random, clock: &mut Clock, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"transaction_id\":\"T");
    padded(index, 10, out);
    out.extend_from_slice(b"\",\"customer_id\":");
    integer(device, out);
    out.extend_from_slice(b",\"product_id\":\"P-");
    padded(random.below(1_000), 4, out);
    out.extend_from_slice(b"\",\"amount\":");
    fixed(100 + random.below(50_000) as i64, 2, out);
    out.extend_from_slice(b",\"transaction_date\":\"");
    clock.write(time, out);
    out.extend_from_slice(b"\"}");
}

/// The n-th path as often as 1/n^0.9 asks for.
fn path_table() -> Vec<u16> {
    let weights: Vec<f64> = (1..=PATHS).map(|rank| (rank as f64).powf(-0.9)).collect();
    let total: f64 = weights.iter().sum();
    let mut table = Vec::with_capacity(PATH_TABLE);
    let mut reached = 0.0;
    for (path, weight) in weights.iter().enumerate() {
        reached += weight / total;
        let end = ((reached * PATH_TABLE as f64).round() as usize).min(PATH_TABLE);
        table.resize(end.max(table.len()), path as u16);
    }
    table.resize(PATH_TABLE, PATHS as u16 - 1);
    table
}

fn integer(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn padded(value: u64, width: usize, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value);
    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(digits.len())));
    out.extend_from_slice(digits.as_bytes());
}

/// A number of `places` decimals, given in units of the last one.
fn fixed(value: i64, places: u32, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let (value, unit) = (value.unsigned_abs(), 10u64.pow(places));
    integer(value / unit, out);
    out.push(b'.');
    padded(value % unit, places as usize, out);
}

/// Writes instants with milliseconds; the text of the last second is kept, since most events share it with the one before.
#[derive(Default)]
pub struct Clock {
    second: Option<i64>,
    text: Vec<u8>,
}

impl Clock {
    fn write(&mut self, micros: i64, out: &mut Vec<u8>) {
        let second = micros.div_euclid(1_000_000);
        if self.second != Some(second) {
            self.text.clear();
            let instant = Instant::from_micros_saturating(second.saturating_mul(1_000_000)).to_string();
            let whole = instant.split(['.', 'Z']).next().unwrap_or(&instant);
            // A Vec takes all that is written to it.
            let _ = self.text.write_all(whole.as_bytes());
            self.second = Some(second);
        }
        out.extend_from_slice(&self.text);
        out.push(b'.');
        padded(micros.rem_euclid(1_000_000) as u64 / 1_000, 3, out);
        out.push(b'Z');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::json_read::JsonDecoder;

    fn model(kind: Kind) -> Model {
        Model::new(kind, 7, Instant::parse_rfc3339("2026-01-01T00:00:00Z").unwrap(), 1_000, 2_000_000, 1_000)
    }

    #[test]
    fn every_event_fits_its_schema() {
        for kind in [Kind::WebAccess, Kind::Iot, Kind::Transactions] {
            let model = model(kind);
            let mut decoder = JsonDecoder::new(&model.schema(), None).unwrap();
            let (mut clock, mut out) = (Clock::default(), Vec::new());
            for index in 0..2_000 {
                out.clear();
                model.write(index, &mut clock, &mut out);
                decoder.push(&out).unwrap();
            }
            let rows = decoder.finish();
            assert!(rows.columns().iter().all(|column| column.null_count() == 0), "{kind:?}");
        }
    }

    #[test]
    fn events_do_not_depend_on_their_order() {
        let model = model(Kind::WebAccess);
        let line = |index, clock: &mut Clock| {
            let mut out = Vec::new();
            model.write(index, clock, &mut out);
            String::from_utf8(out).unwrap()
        };
        let mut clock = Clock::default();
        let forwards: Vec<String> = (0..100).map(|index| line(index, &mut clock)).collect();
        let mut backwards: Vec<String> = (0..100).rev().map(|index| line(index, &mut clock)).collect();
        backwards.reverse();
        assert_eq!(forwards, backwards);
        assert!((150..350).contains(&forwards[0].len()), "{}", forwards[0]);
    }

    #[test]
    fn numbers_have_their_places() {
        for (value, expected) in [(1_234, "12.34"), (-5, "-0.05"), (-12_300, "-123.00")] {
            let mut out = Vec::new();
            fixed(value, 2, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
