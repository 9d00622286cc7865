//! What each pipeline logs: a ring in memory for those who look, and a file in its folder.
//!
//! Events find their pipeline by the span `pipeline` that its threads are in; [`LogLayer`] hands them over. Bounds: so many entries in
//! memory, so many bytes of a file, of which there are two, and a longest message.

use pelton_runtime::clock;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tracing::field::{Field, Visit};
use tracing::span::Attributes;
use tracing::{Event, Id, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Entries of one pipeline in memory.
const MAX_ENTRIES: usize = 5_000;
/// A file is put aside when it is larger.
const MAX_FILE_BYTES: u64 = 8 << 20;
/// A longer text is cut.
const MAX_TEXT: usize = 8 << 10;
/// The span that the threads of a pipeline are in.
pub const SPAN: &str = "pipeline";

/// One event.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Ascends by one; begins with 1 at the start of the host.
    pub number: u64,
    /// When, RFC 3339.
    pub at: String,
    /// `ERROR`, `WARN`, `INFO`, …
    pub level: &'static str,
    /// What.
    pub message: String,
    /// The rest of it.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
}

/// The log of one pipeline.
#[derive(Debug)]
pub struct Log {
    inner: Mutex<Inner>,
    /// Number of the last entry.
    last: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    entries: VecDeque<Entry>,
    path: PathBuf,
    file: Option<(File, u64)>,
}

impl Log {
    fn open(folder: &Path) -> Log {
        let path = folder.join("log.jsonl");
        Log { inner: Mutex::new(Inner { entries: VecDeque::new(), path, file: None }), last: watch::Sender::new(0) }
    }

    fn add(&self, level: &'static str, message: String, fields: Map<String, Value>) {
        let mut inner = self.inner.lock().expect("no holder of this lock panics");
        let number = *self.last.borrow() + 1;
        let entry = Entry { number, at: clock::now().to_string(), level, message, fields };
        inner.write(&entry);
        if inner.entries.len() == MAX_ENTRIES {
            inner.entries.pop_front();
        }
        inner.entries.push_back(entry);
        self.last.send_replace(number);
    }

    /// At most so many entries: those after a number, or the last ones.
    pub fn entries(&self, after: Option<u64>, most: usize) -> Vec<Entry> {
        let inner = self.inner.lock().expect("no holder of this lock panics");
        match after {
            Some(after) => inner.entries.iter().filter(|entry| entry.number > after).take(most).cloned().collect(),
            None => inner.entries.iter().skip(inner.entries.len().saturating_sub(most)).cloned().collect(),
        }
    }

    /// Until there is an entry after this one.
    pub async fn wait(&self, after: u64) {
        let mut last = self.last.subscribe();
        let _ = last.wait_for(|last| *last > after).await;
    }
}

impl Inner {
    /// A log that cannot be written loses lines; the pipeline goes on.
    fn write(&mut self, entry: &Entry) {
        if self.file.as_ref().is_some_and(|(_, bytes)| *bytes > MAX_FILE_BYTES) {
            self.file = None;
            let _ = std::fs::rename(&self.path, self.path.with_extension("1.jsonl"));
        }
        if self.file.is_none() {
            let file = OpenOptions::new().create(true).append(true).open(&self.path);
            self.file = file.and_then(|file| file.metadata().map(|metadata| (file, metadata.len()))).ok();
        }
        if let Some((file, bytes)) = &mut self.file
            && let Ok(mut line) = serde_json::to_vec(entry)
        {
            line.push(b'\n');
            *bytes += line.len() as u64;
            let _ = file.write_all(&line);
        }
    }
}

/// The logs of all pipelines.
#[derive(Clone, Debug, Default)]
pub struct Logs(Arc<Mutex<HashMap<String, Arc<Log>>>>);

impl Logs {
    /// The log of a pipeline, which lies in its folder.
    pub fn open(&self, name: &str, folder: &Path) -> Arc<Log> {
        self.0.lock().expect("no holder of this lock panics").entry(name.into()).or_insert_with(|| Arc::new(Log::open(folder))).clone()
    }

    /// Of a pipeline that is no more.
    pub fn forget(&self, name: &str) {
        self.0.lock().expect("no holder of this lock panics").remove(name);
    }

    fn find(&self, name: &str) -> Option<Arc<Log>> {
        self.0.lock().expect("no holder of this lock panics").get(name).cloned()
    }

    /// To be given to the subscriber.
    pub fn layer(&self) -> LogLayer {
        LogLayer(self.clone())
    }
}

/// Hands events to the log of their pipeline.
pub struct LogLayer(Logs);

/// Kept with a span.
struct Pipeline(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        if attributes.metadata().name() != SPAN {
            return;
        }
        let mut texts = Texts::default();
        attributes.record(&mut texts);
        if let (Some(span), Some(Value::String(name))) = (ctx.span(id), texts.fields.remove("name")) {
            span.extensions_mut().insert(Pipeline(name));
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let Some(mut scope) = ctx.event_scope(event) else { return };
        let name = scope.find_map(|span| span.extensions().get::<Pipeline>().map(|pipeline| pipeline.0.clone()));
        let Some(log) = name.and_then(|name| self.0.find(&name)) else { return };
        let mut texts = Texts::default();
        event.record(&mut texts);
        log.add(event.metadata().level().as_str(), texts.message, texts.fields);
    }
}

/// The values of an event.
#[derive(Default)]
struct Texts {
    message: String,
    fields: Map<String, Value>,
}

impl Texts {
    fn text(&mut self, field: &Field, mut text: String) {
        if text.len() > MAX_TEXT {
            let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
        match field.name() {
            "message" => self.message = text,
            name => drop(self.fields.insert(name.into(), text.into())),
        }
    }
}

impl Visit for Texts {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.insert(field.name().into(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn events_find_their_pipeline_also_from_other_threads() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::default();
        let (a, b) = (logs.open("a", folder.path()), logs.open("b", folder.path()));
        let subscriber = tracing_subscriber::registry().with(logs.layer());
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("pipeline", name = "a");
            span.in_scope(|| tracing::warn!(rows = 3, "late"));
            tracing::info!("of nobody");
            let dispatch = tracing::dispatcher::get_default(Clone::clone);
            std::thread::scope(|scope| {
                scope.spawn(|| tracing::dispatcher::with_default(&dispatch, || span.in_scope(|| tracing::info!("elsewhere"))));
            });
        });
        let shown: Vec<_> = a.entries(None, 10).into_iter().map(|entry| (entry.number, entry.level, entry.message)).collect();
        assert_eq!(shown, [(1, "WARN", "late".into()), (2, "INFO", "elsewhere".into())]);
        assert_eq!(a.entries(Some(1), 10).len(), 1);
        assert!(b.entries(None, 10).is_empty());
    }

    #[test]
    fn the_ring_keeps_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path());
        for number in 0..MAX_ENTRIES + 7 {
            log.add("INFO", number.to_string(), Map::new());
        }
        let all = log.entries(None, usize::MAX);
        assert_eq!((all.len(), all[0].message.as_str()), (MAX_ENTRIES, "7"));
        assert_eq!(log.entries(None, 1)[0].number, MAX_ENTRIES as u64 + 7);
    }
}
