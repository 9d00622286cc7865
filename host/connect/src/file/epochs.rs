//! One shard of a sink of files whose rows become visible by epochs.
//!
//! A barrier makes the rows of open parts durable under hidden names. A part is closed when it is large or old enough (unbounded input) or at
//! the last barrier (bounded input), and gets its name from the [committer](super::committer) once its epoch is decided. Names follow
//! from what is staged: the parts of a shard are counted, and the clock is asked only when a part is begun.

use super::disk;
use super::open_part::{Closing, MakeEncode, OpenPart, Place, open_rows};
use super::part::on;
use super::publish::{Disposition, Naming};
use super::sink::{FileOptions, MAX_NAMES_TRIED, MAX_OPEN_PARTS, by_part, cannot_write, wall_clock};
use super::staging::{EarlierFile, OpenFile, ShardStaged, Staging};
use crate::ConnectError;
use crate::commit::{ExactlyOnce, Staged};
use crate::sink::{Sink, SinkContext, SinkSummary};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use pelton_core::{Batch, Epoch, Instant, RowError, failpoint};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio::runtime::Handle;

/// One shard.
pub struct EpochSink {
    ctx: SinkContext,
    options: FileOptions,
    naming: Naming,
    staging: Staging,
    make_encode: MakeEncode,
    /// Open parts by window; `None` where windows do not matter.
    parts: BTreeMap<Option<Instant>, OpenPart>,
    /// Parts that were closed since the last barrier.
    closing: Vec<Closing>,
    /// What the next barrier stages besides parts.
    staged: ShardStaged,
    /// The name of this run's file is taken by an earlier run's, which it replaces.
    replaces: bool,
    /// Number of the next hidden file.
    hidden: u64,
    /// Hidden files that have come into being since the last barrier.
    unstaged: Vec<String>,
    now: Instant,
    summary: SinkSummary,
}

impl EpochSink {
    /// Opens the shard; nothing becomes visible.
    pub async fn open(
        options: FileOptions,
        make_encode: MakeEncode,
        naming: Naming,
        ctx: SinkContext,
        once: &ExactlyOnce,
    ) -> Result<EpochSink, ConnectError> {
        let staging = Staging::new(naming.clone(), &once.identity, &once.uid);
        let restored = once.restored.as_ref().map(ShardStaged::of).transpose()?.flatten();
        // What another pipeline had staged, from which this one is a fork, is its own.
        let restored = restored.filter(|restored| restored.pipeline == staging.pipeline);
        let mut sink = EpochSink {
            staged: ShardStaged::new(&staging),
            parts: BTreeMap::new(),
            closing: Vec::new(),
            replaces: false,
            hidden: 0,
            unstaged: Vec::new(),
            now: wall_clock(),
            summary: SinkSummary::default(),
            ctx,
            options,
            naming,
            staging,
            make_encode,
        };
        let directory = sink.naming.directory().to_path_buf();
        on(&sink.ctx.io, move || disk::create_directory(&directory)).await?;
        match restored {
            Some(restored) => sink.resume(restored).await?,
            None => sink.begin().await?,
        }
        Ok(sink)
    }

    /// The first life.
    async fn begin(&mut self) -> Result<(), ConnectError> {
        let default = if self.ctx.unbounded { Disposition::Append } else { Disposition::Truncate };
        let disposition = self.options.disposition.unwrap_or(default);
        let naming = self.naming.clone();
        let earlier = on(&self.ctx.io, move || {
            let mut earlier = Vec::new();
            for path in naming.earlier()? {
                if let Some(metadata) = disk::look(&path)? {
                    earlier.push((path, metadata));
                }
            }
            Ok(earlier)
        })
        .await?;
        if let (Disposition::FailIfExists | Disposition::Append, Some((existing, _))) = (disposition, earlier.first()) {
            return Err(refuse_foreign(existing, disposition));
        }
        // One shard clears up for all of them; the names of this run are written over, not removed.
        let this_run = |path: &PathBuf| {
            !self.ctx.unbounded && (0..self.ctx.shards).any(|shard| Naming { shard, ..self.naming.clone() }.shard_name(None) == *path)
        };
        let own = self.naming.shard_name(None);
        self.replaces = !self.ctx.unbounded && earlier.iter().any(|(path, _)| *path == own);
        if self.ctx.shard == 0 {
            let others = earlier.iter().filter(|(path, _)| !this_run(path));
            self.staged.earlier = others.map(|(path, metadata)| EarlierFile::of(file_name(path), metadata)).collect();
        }
        if !self.ctx.unbounded {
            // An empty input has its file too, with a header where the format has one.
            self.part(None).await?;
        }
        Ok(())
    }

    /// A later life.
    async fn resume(&mut self, restored: ShardStaged) -> Result<(), ConnectError> {
        self.staged.next = restored.next;
        self.replaces = restored.replaces;
        if restored.closed.is_empty() {
            self.staged.earlier = restored.earlier;
        }
        for from in &restored.open {
            let schema = schema_of(&self.ctx.io, &self.staging, from, &self.ctx.schema).await?;
            let number = self.hidden();
            let encode = (self.make_encode)(&schema).map_err(|message| cannot_write(&self.ctx, &message))?;
            let place = Place { io: &self.ctx.io, staging: &self.staging, number };
            let part = OpenPart::resume(place, encode, &schema, from).await?;
            self.summary.rows += part.rows;
            let continues = part.has_columns(&self.ctx.schema);
            self.parts.insert(from.window(), part);
            // Rows with other columns go into a file of their own.
            if !continues {
                self.close(from.window()).await?;
            }
        }
        Ok(())
    }

    fn hidden(&mut self) -> u64 {
        let (file, beside) = self.staging.hidden(self.hidden);
        self.unstaged.extend([file, beside]);
        self.hidden += 1;
        self.hidden - 1
    }

    async fn part(&mut self, window: Option<Instant>) -> Result<&mut OpenPart, ConnectError> {
        if !self.parts.contains_key(&window) {
            if self.parts.len() >= MAX_OPEN_PARTS {
                let oldest = self.parts.iter().min_by_key(|(_, part)| part.begun).map(|(window, _)| *window);
                self.close(oldest.flatten()).await?;
            }
            let number = self.hidden();
            let encode = (self.make_encode)(&self.ctx.schema).map_err(|message| cannot_write(&self.ctx, &message))?;
            let place = Place { io: &self.ctx.io, staging: &self.staging, number };
            let part = OpenPart::create(place, encode, &self.ctx.schema, self.now).await?;
            self.parts.insert(window, part);
        }
        self.parts.get_mut(&window).ok_or_else(|| ConnectError::internal("a part vanished"))
    }

    /// Completes a part; its epoch makes it visible.
    async fn close(&mut self, window: Option<Instant>) -> Result<(), ConnectError> {
        let Some(part) = self.parts.remove(&window) else { return Ok(()) };
        let (naming, first, unbounded, replaces) = (self.naming.clone(), self.staged.next, self.ctx.unbounded, self.replaces);
        let stamp = window.unwrap_or(part.begun);
        let (name, next, replaces) = on(&self.ctx.io, move || {
            for number in first..first.saturating_add(MAX_NAMES_TRIED) {
                let name = match (unbounded, number) {
                    (true, _) => naming.part_name(stamp, number),
                    (false, 0) => naming.shard_name(None),
                    (false, _) => naming.shard_name(Some(number)),
                };
                let replaces = replaces && number == 0;
                if replaces || disk::look(&name)?.is_none() {
                    return Ok((file_name(&name), number + 1, replaces));
                }
            }
            Err(ConnectError::user(format!("{} has too many parts", naming.path.display()), "choose another `path`"))
        })
        .await?;
        self.staged.next = next;
        self.summary.bytes += part.bytes();
        self.summary.files.push(self.staging.path(&name).to_string_lossy().into_owned());
        let number = self.hidden();
        let place = Place { io: &self.ctx.io, staging: &self.staging, number };
        let (closing, unneeded) = part.close(place, name, replaces).await?;
        self.staged.unneeded.extend(unneeded);
        if self.closing.len() >= MAX_OPEN_PARTS {
            let settled = self.closing.remove(0).settle().await?;
            self.staged.closed.push(settled);
        }
        self.closing.push(closing);
        Ok(())
    }
}

/// The columns of a part that is gone on with: those of the rows beside it, where there are any.
async fn schema_of(io: &Handle, staging: &Staging, from: &OpenFile, now: &SchemaRef) -> Result<SchemaRef, ConnectError> {
    match from.pieces.first() {
        Some(piece) if piece.file.ends_with(".rows") => {
            let (path, length) = (staging.path(&piece.file), piece.length);
            on(io, move || Ok(open_rows(&path, length)?.schema())).await
        }
        _ => Ok(now.clone()),
    }
}

fn file_name(path: &std::path::Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn refuse_foreign(existing: &std::path::Path, disposition: Disposition) -> ConnectError {
    match disposition {
        Disposition::FailIfExists => ConnectError::user(
            format!("{} exists, and `write_disposition` is fail-if-exists", existing.display()),
            "remove it, choose another `path`, or write with truncate",
        ),
        _ => ConnectError::user(
            format!("{} was not written by this pipeline, so nobody knows which of its rows are there already", existing.display()),
            "with checkpoints a sink appends only to its own files: choose another `path`, move the files away, or write with `write_disposition: truncate`",
        ),
    }
}

#[async_trait]
impl Sink for EpochSink {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<RowError>, ConnectError> {
        let mut errors = Vec::new();
        if batch.num_rows() == 0 {
            return Ok(errors);
        }
        for (window, picked) in by_part(&self.ctx, batch) {
            let part = self.part(window).await?;
            let refused = part.write(&batch.rows, &picked).await?;
            let bytes = part.bytes();
            self.summary.rows += (picked.len() - refused.len()) as u64;
            errors.extend(refused);
            if self.ctx.unbounded && bytes >= self.options.roll_bytes {
                self.close(window).await?;
            }
        }
        errors.sort_by_key(|error| error.row);
        Ok(errors)
    }

    async fn tick(&mut self, now: Instant) -> Result<(), ConnectError> {
        self.now = now;
        if !self.ctx.unbounded {
            return Ok(());
        }
        // A part of the future is that of a life before, and the clock was set back since.
        let due = |part: &OpenPart| part.begun.saturating_add(self.options.roll_interval) <= now || part.begun > now;
        let due: Vec<Option<Instant>> = self.parts.iter().filter(|(_, part)| due(part)).map(|(window, _)| *window).collect();
        for window in due {
            self.close(window).await?;
        }
        Ok(())
    }

    async fn prepare(&mut self, epoch: Epoch, last: bool) -> Result<Staged, ConnectError> {
        if last {
            let windows: Vec<Option<Instant>> = self.parts.keys().copied().collect();
            for window in windows {
                self.close(window).await?;
            }
        }
        for part in self.parts.values_mut() {
            part.begin_sync().await?;
        }
        for closing in std::mem::take(&mut self.closing) {
            self.staged.closed.push(closing.settle().await?);
        }
        self.staged.open.clear();
        for (window, part) in &mut self.parts {
            self.staged.open.push(part.staged(*window).await?);
        }
        if !self.unstaged.is_empty() {
            let directory = self.naming.directory().to_path_buf();
            on(&self.ctx.io, move || disk::sync_directory(&directory)).await?;
        }
        (self.staged.epoch, self.staged.replaces) = (epoch, self.replaces);
        let staged = self.staged.to_staged();
        failpoint::hit("files.staged");
        if !self.staged.closed.is_empty() {
            self.staged.earlier.clear();
            self.staged.closed.clear();
        }
        self.staged.unneeded.clear();
        self.unstaged.clear();
        Ok(staged)
    }

    fn written(&self) -> SinkSummary {
        self.summary.clone()
    }

    async fn finish(self: Box<Self>) -> Result<SinkSummary, ConnectError> {
        match self.parts.is_empty() && self.closing.is_empty() {
            true => Ok(self.summary),
            false => Err(ConnectError::internal("a sink of epochs ends with its last barrier")),
        }
    }

    /// What was staged is the next life's.
    async fn abort(self: Box<Self>) {
        let paths: Vec<PathBuf> = self.unstaged.iter().map(|file| self.staging.path(file)).collect();
        // What cannot be removed now, the next life removes.
        let _ = on(&self.ctx.io, move || paths.iter().try_for_each(|path| disk::remove(path))).await;
    }
}
