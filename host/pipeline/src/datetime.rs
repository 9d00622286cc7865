//! Python's module `datetime` as far as templates use it, since Beam has it in scope: `datetime.datetime.now()`, `utcnow()`,
//! `datetime.date.today()`, `fromisoformat(…)`, and of what they give `strftime(…)`, `isoformat()`, `date()`, `timestamp()`, `year` … `second`.
//! Everything is UTC, and now is when the pipeline was loaded. There is no arithmetic: templates cannot define operators.

use std::fmt;
use std::sync::Arc;

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, Timelike};
use minijinja::value::{Object, ObjectRepr};
use minijinja::{Error, ErrorKind, State, Value};

/// The module, for which it is now so many microseconds since the epoch.
pub(crate) fn module(now: i64) -> Value {
    Value::from_object(Module { now })
}

#[derive(Debug)]
struct Module {
    now: i64,
}

impl Object for Module {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "datetime" => Some(Value::from_object(Class { now: self.now, dates: false })),
            "date" => Some(Value::from_object(Class { now: self.now, dates: true })),
            _ => None,
        }
    }
}

/// `datetime.datetime`, or `datetime.date`.
#[derive(Debug)]
struct Class {
    now: i64,
    dates: bool,
}

impl Object for Class {
    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, arguments: &[Value]) -> Result<Value, Error> {
        let now = DateTime::from_timestamp_micros(self.now).unwrap_or_default().naive_utc();
        let moment = match method {
            "now" | "utcnow" if !self.dates => now,
            "today" => now,
            "fromisoformat" => {
                let text = arguments.first().and_then(Value::as_str).unwrap_or_default();
                parse(text).ok_or_else(|| Error::new(ErrorKind::InvalidOperation, format!("`{text}` is no ISO date")))?
            }
            other => return Err(unknown(other)),
        };
        Ok(Value::from_object(Moment { at: moment, is_date: self.dates }))
    }
}

fn parse(text: &str) -> Option<NaiveDateTime> {
    let date = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0);
    let plain = text.trim_end_matches('Z').replace('T', " ");
    date().or_else(|| NaiveDateTime::parse_from_str(&plain, "%Y-%m-%d %H:%M:%S%.f").ok())
}

fn unknown(method: &str) -> Error {
    Error::new(ErrorKind::UnknownMethod, format!("`{method}` of Python's datetime is not available in templates"))
}

#[derive(Debug)]
struct Moment {
    at: NaiveDateTime,
    is_date: bool,
}

impl Moment {
    fn format(&self, pattern: &str) -> Result<String, Error> {
        // Python's %f has six digits, chrono's nine.
        let pattern = pattern.replace("%f", "%6f");
        let items: Vec<Item<'_>> = StrftimeItems::new(&pattern).collect();
        if items.contains(&Item::Error) {
            return Err(Error::new(ErrorKind::InvalidOperation, format!("`{pattern}` is no pattern of strftime")));
        }
        Ok(self.at.format_with_items(items.into_iter()).to_string())
    }

    fn iso(&self, between: &str) -> String {
        let pattern = match (self.is_date, self.at.and_utc().timestamp_subsec_micros()) {
            (true, _) => "%Y-%m-%d".to_string(),
            (false, 0) => format!("%Y-%m-%d{between}%H:%M:%S"),
            (false, _) => format!("%Y-%m-%d{between}%H:%M:%S.%f"),
        };
        self.format(&pattern).unwrap_or_default()
    }
}

impl Object for Moment {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iso(" "))
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        Some(match key.as_str()? {
            "year" => Value::from(self.at.year()),
            "month" => Value::from(self.at.month()),
            "day" => Value::from(self.at.day()),
            "hour" => Value::from(self.at.hour()),
            "minute" => Value::from(self.at.minute()),
            "second" => Value::from(self.at.second()),
            _ => return None,
        })
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, arguments: &[Value]) -> Result<Value, Error> {
        match method {
            "strftime" => Ok(Value::from(self.format(arguments.first().and_then(Value::as_str).unwrap_or_default())?)),
            "isoformat" => Ok(Value::from(self.iso("T"))),
            "timestamp" => Ok(Value::from(self.at.and_utc().timestamp_micros() as f64 / 1e6)),
            "date" => Ok(Value::from_object(Moment { at: self.at, is_date: true })),
            other => Err(unknown(other)),
        }
    }
}
