//! One shard of a sink of files.
//!
//! Bounded input: one file, published at the end. Unbounded input: parts, each published when it is large or old enough; where
//! the input has fixed windows, each window has parts of its own. A part that is not published is not visible, so a reader of
//! the final names never meets half a file. With checkpoints a shard is an [`EpochSink`] instead, unless it writes into a pipe or a device.

use super::epochs::EpochSink;
use super::open_part::MakeEncode;
use super::part::{Part, on};
use super::publish::{Disposition, Naming};
use crate::ConnectError;
use crate::commit::Staged;
use crate::sink::{Sink, SinkContext, SinkSummary};
use async_trait::async_trait;
use pelton_core::{Batch, Duration, Epoch, Instant, RowError, Window, WindowFn};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Parts that are open at once, each with a file and two buffers: enough for late rows of some windows.
pub(super) const MAX_OPEN_PARTS: usize = 16;
/// Numbers that are tried to find a free name; beyond it the directory is not in order.
pub(super) const MAX_NAMES_TRIED: u32 = 100_000;

/// What the config of a file sink says, whatever the format.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// Beginning of the names.
    pub path: String,
    /// What happens to earlier files; `None`: truncate for bounded input, append for unbounded.
    pub disposition: Option<Disposition>,
    /// An unbounded part is published at this size.
    pub roll_bytes: u64,
    /// And at this age.
    pub roll_interval: Duration,
}

/// One shard.
pub struct FileSink {
    ctx: SinkContext,
    options: FileOptions,
    disposition: Disposition,
    naming: Naming,
    /// The path is a pipe or a device.
    stream: bool,
    make_encode: MakeEncode,
    /// Open parts by window; `None` where windows do not matter.
    parts: BTreeMap<Option<Instant>, Part>,
    /// Files to remove at the first publication.
    earlier: Vec<PathBuf>,
    now: Instant,
    summary: SinkSummary,
}

/// Opens a shard; nothing becomes visible, unless it is written into a pipe or a device.
pub async fn open(options: FileOptions, make_encode: MakeEncode, ctx: SinkContext) -> Result<Box<dyn Sink>, ConnectError> {
    let path = super::find::absolute(&ctx.base_dir, &options.path)?;
    if path.is_dir() {
        return Err(ConnectError::user(
            format!("cannot write {}: it is a directory", path.display()),
            format!("give the beginning of the files' names, such as {}/part", path.display()),
        ));
    }
    let naming = Naming { path, shard: ctx.shard, shards: ctx.shards };
    let stream = naming.is_stream();
    if stream && ctx.shards > 1 {
        return Err(ConnectError::user(
            format!("{} is no file, and cannot have {} shards", naming.path.display(), ctx.shards),
            "leave out `num_shards`",
        ));
    }
    match ctx.exactly_once.clone() {
        Some(once) if !stream => Ok(Box::new(EpochSink::open(options, make_encode, naming, ctx, &once).await?)),
        _ => Ok(Box::new(FileSink::open(options, make_encode, naming, stream, ctx).await?)),
    }
}

impl FileSink {
    async fn open(
        options: FileOptions,
        make_encode: MakeEncode,
        naming: Naming,
        stream: bool,
        ctx: SinkContext,
    ) -> Result<FileSink, ConnectError> {
        let disposition = options.disposition.unwrap_or(if ctx.unbounded { Disposition::Append } else { Disposition::Truncate });
        let looking = naming.clone();
        let mut earlier = on(&ctx.io, move || looking.earlier()).await?;
        if let (Disposition::FailIfExists, Some(existing)) = (disposition, earlier.first()) {
            return Err(ConnectError::user(
                format!("{} exists, and `write_disposition` is fail-if-exists", existing.display()),
                "remove it, choose another `path`, or write with append or truncate",
            ));
        }
        // One shard clears up for all of them; the names of this run are written over, not removed.
        let this_run = |path: &PathBuf| (0..ctx.shards).any(|shard| Naming { shard, ..naming.clone() }.shard_name(None) == *path);
        match disposition {
            Disposition::Truncate if ctx.shard == 0 => earlier.retain(|path| ctx.unbounded || !this_run(path)),
            _ => earlier.clear(),
        }
        let now = wall_clock();
        let summary = SinkSummary::default();
        let mut sink = FileSink { ctx, options, disposition, naming, stream, make_encode, parts: BTreeMap::new(), earlier, now, summary };
        if !sink.ctx.unbounded && !sink.stream {
            // An empty input has its file too, with a header where the format has one.
            sink.part(None).await?;
        }
        Ok(sink)
    }

    async fn part(&mut self, window: Option<Instant>) -> Result<&mut Part, ConnectError> {
        if !self.parts.contains_key(&window) {
            if self.parts.len() >= MAX_OPEN_PARTS {
                self.publish_oldest().await?;
            }
            let encode = (self.make_encode)(&self.ctx.schema).map_err(|message| cannot_write(&self.ctx, &message))?;
            let part = if self.stream {
                Part::into_stream(self.ctx.io.clone(), self.naming.path.clone(), encode, self.now).await?
            } else {
                Part::create(self.ctx.io.clone(), self.naming.temporary(), encode, self.now).await?
            };
            self.parts.insert(window, part);
        }
        self.parts.get_mut(&window).ok_or_else(|| ConnectError::internal("a part vanished"))
    }

    async fn publish_oldest(&mut self) -> Result<(), ConnectError> {
        let oldest = self.parts.iter().min_by_key(|(_, part)| part.begun).map(|(window, _)| *window);
        match oldest {
            Some(window) => self.publish(window).await,
            None => Ok(()),
        }
    }

    async fn publish(&mut self, window: Option<Instant>) -> Result<(), ConnectError> {
        let Some(part) = self.parts.remove(&window) else { return Ok(()) };
        if self.stream {
            self.summary.rows += part.rows;
            self.summary.bytes += part.bytes();
            self.summary.files.push(self.naming.path.to_string_lossy().into_owned());
            return part.publish(self.naming.path.clone()).await;
        }
        let (naming, unbounded, append) = (self.naming.clone(), self.ctx.unbounded, self.disposition == Disposition::Append);
        let stamp = window.unwrap_or(part.begun);
        let name = on(&self.ctx.io, move || {
            let names = (0..MAX_NAMES_TRIED).map(|number| match (unbounded, append) {
                (true, _) => naming.part_name(stamp, number),
                (false, true) if number > 0 => naming.shard_name(Some(number)),
                (false, _) => naming.shard_name(None),
            });
            let free = names.into_iter().find(|name| (!unbounded && !append) || !name.exists());
            free.ok_or_else(|| ConnectError::user(format!("{} has too many parts", naming.path.display()), "choose another `path`"))
        })
        .await?;
        let (rows, file) = (part.rows, name.clone());
        part.publish(name).await?;
        let published = file.clone();
        let earlier = std::mem::take(&mut self.earlier);
        let bytes = on(&self.ctx.io, move || {
            for path in earlier {
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(ConnectError::of_file("remove", &path, &error));
                    }
                    _ => {}
                }
            }
            Ok(std::fs::metadata(&published).map_or(0, |metadata| metadata.len()))
        })
        .await?;
        self.summary.rows += rows;
        self.summary.bytes += bytes;
        self.summary.files.push(file.to_string_lossy().into_owned());
        Ok(())
    }

    fn by_part(&self, batch: &Batch) -> BTreeMap<Option<Instant>, Vec<u32>> {
        match self.stream {
            true => BTreeMap::from([(None, (0..batch.num_rows() as u32).collect())]),
            false => by_part(&self.ctx, batch),
        }
    }
}

#[async_trait]
impl Sink for FileSink {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<RowError>, ConnectError> {
        let mut errors = Vec::new();
        if batch.num_rows() == 0 {
            return Ok(errors);
        }
        for (window, picked) in self.by_part(batch) {
            let roll_bytes = self.options.roll_bytes;
            let part = self.part(window).await?;
            errors.extend(part.write(&batch.rows, &picked).await?);
            if self.ctx.unbounded && !self.stream && self.parts.get(&window).is_some_and(|part| part.is_at_least(roll_bytes)) {
                self.publish(window).await?;
            }
        }
        errors.sort_by_key(|error| error.row);
        Ok(errors)
    }

    async fn tick(&mut self, now: Instant) -> Result<(), ConnectError> {
        self.now = now;
        if !self.ctx.unbounded || self.stream {
            return Ok(());
        }
        let due = |part: &Part| part.begun.saturating_add(self.options.roll_interval) <= now;
        let due: Vec<Option<Instant>> = self.parts.iter().filter(|(_, part)| due(part)).map(|(window, _)| *window).collect();
        for window in due {
            self.publish(window).await?;
        }
        Ok(())
    }

    /// Rows go into a pipe or a device at least once: at a barrier those before it have arrived there.
    async fn prepare(&mut self, _epoch: Epoch, last: bool) -> Result<Staged, ConnectError> {
        for part in self.parts.values_mut() {
            part.flush().await?;
        }
        let windows: Vec<Option<Instant>> = self.parts.keys().copied().filter(|_| last).collect();
        for window in windows {
            self.publish(window).await?;
        }
        Ok(Staged::default())
    }

    fn written(&self) -> SinkSummary {
        self.summary.clone()
    }

    async fn finish(mut self: Box<Self>) -> Result<SinkSummary, ConnectError> {
        let windows: Vec<Option<Instant>> = self.parts.keys().copied().collect();
        for window in windows {
            self.publish(window).await?;
        }
        Ok(self.summary)
    }

    async fn abort(mut self: Box<Self>) {
        for part in std::mem::take(&mut self.parts).into_values() {
            part.remove().await;
        }
    }
}

/// The rows of each part. Windows are kept apart in unbounded input only: a bounded run has one file a shard.
pub(super) fn by_part(ctx: &SinkContext, batch: &Batch) -> BTreeMap<Option<Instant>, Vec<u32>> {
    let rows = batch.num_rows() as u32;
    if !ctx.unbounded || ctx.window == WindowFn::Global {
        return BTreeMap::from([(None, (0..rows).collect())]);
    }
    let mut parts: BTreeMap<Option<Instant>, Vec<u32>> = BTreeMap::new();
    for row in 0..rows {
        let window: Window = match &batch.windows {
            Some(windows) => windows.table[windows.index[row as usize] as usize],
            None => ctx.window.assign(Instant::from_micros_saturating(batch.times[row as usize])),
        };
        parts.entry(Some(window.start)).or_default().push(row);
    }
    parts
}

/// A column that the format has no form for.
pub(super) fn cannot_write(ctx: &SinkContext, message: &str) -> ConnectError {
    ConnectError::user(format!("{}: {message}", ctx.transform), "map the field to another type, or drop it")
}

/// The time that the first parts are named after; later ones have that of the last tick.
#[allow(clippy::disallowed_methods, reason = "the connector is at the edge, where processing time comes in")]
pub(super) fn wall_clock() -> Instant {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Instant::from_micros_saturating(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
