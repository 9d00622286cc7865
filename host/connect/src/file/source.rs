//! A source of files: chunks in a shared queue, and readers that claim them.

use super::blocks::{Piece, read_bytes, read_lines};
use super::chunk::{Chunk, ChunkQueue, Layout};
use super::decode::Decode;
use super::restart::{Place, Plan, Progress, Reached};
use crate::ConnectError;
use crate::source::{Reader, Source, SourceBatch, SourceContext};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use pelton_core::catalog::KeySpec;
use pelton_core::{Split, SplitPosition};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Pieces between the thread that reads and the worker that decodes: one to work on while the next is read, and one in hand.
const MAX_PIECES: usize = 2;

/// The key that every reader of lines and records has.
pub const PATH: KeySpec =
    KeySpec { name: "path", required: true, doc: "Path or glob of the files; relative paths start at the working directory." };
/// The same of files that may be compressed.
pub const COMPRESSION: KeySpec = KeySpec {
    name: "compression",
    required: false,
    doc: "`auto` (default: by the extensions .gz, .gzip, .zst, .zstd), `none`, `gzip` or `zstd`.",
};

/// Makes a decoder of the wanted columns; `None` wants all of them.
pub type MakeDecode = Box<dyn Fn(Option<&[String]>) -> Result<Box<dyn Decode>, String> + Send>;

/// Files that were found, in chunks.
pub struct FileSource {
    /// Where it reads and when it stops.
    pub ctx: SourceContext,
    /// Every column.
    pub schema: SchemaRef,
    /// How files are cut and opened.
    pub layout: Layout,
    /// All of the work.
    pub plan: Plan,
    /// What of it an earlier life has done.
    pub reached: Reached,
    /// Pieces end where lines end.
    pub in_lines: bool,
    /// Its decoders.
    pub make_decode: MakeDecode,
    /// Columns that are wanted.
    pub projection: Option<Vec<String>>,
}

impl Source for FileSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn bounded(&self) -> bool {
        true
    }

    fn splits(&self) -> Vec<Arc<Split>> {
        self.layout.chunks(&self.plan, &self.reached).into_iter().map(|chunk| chunk.split).collect()
    }

    fn project(&mut self, columns: &[String]) {
        self.projection = Some(columns.to_vec());
    }

    fn plan(&self) -> Vec<u8> {
        self.plan.to_bytes()
    }

    fn restore(&mut self, plan: &[u8], positions: Vec<SplitPosition>) -> Result<(), ConnectError> {
        let plan = Plan::from_bytes(plan)?;
        if let (Some(then), Some(now)) = (&plan.columns, &self.plan.columns)
            && then != now
        {
            return Err(ConnectError::user(
                format!("{}: the columns that the files show are {now}; when the pipeline began they were {then}", self.ctx.transform),
                "give `schema` with the columns as they were",
            ));
        }
        let reached = Reached::of(&positions)?;
        plan.check(&reached)?;
        (self.plan, self.reached) = (plan, reached);
        Ok(())
    }

    fn readers(self: Box<Self>, count: usize) -> Result<Vec<Box<dyn Reader>>, ConnectError> {
        let queue = Arc::new(ChunkQueue::new(self.layout.chunks(&self.plan, &self.reached)));
        let mut readers: Vec<Box<dyn Reader>> = Vec::with_capacity(count);
        for number in 0..count {
            let decode = (self.make_decode)(self.projection.as_deref())
                .map_err(|message| ConnectError::user(format!("{}: {message}", self.ctx.transform), "change the types in `schema`"))?;
            readers.push(Box::new(FileReader {
                io: self.ctx.io.clone(),
                stop: self.ctx.stop.clone(),
                queue: queue.clone(),
                in_lines: self.in_lines,
                decode,
                current: None,
                progress: Progress::new(number, &self.reached),
            }));
        }
        Ok(readers)
    }
}

/// Claims chunks, one after the other.
struct FileReader {
    io: tokio::runtime::Handle,
    stop: watch::Receiver<bool>,
    queue: Arc<ChunkQueue>,
    in_lines: bool,
    decode: Box<dyn Decode>,
    current: Option<Claim>,
    progress: Progress,
}

/// A chunk that is being read.
struct Claim {
    number: usize,
    split: Arc<Split>,
    /// Everything before this offset is decoded.
    at: u64,
    pieces: mpsc::Receiver<Result<Piece, ConnectError>>,
    piece: Option<(Piece, usize)>,
    bytes: usize,
    ended: bool,
}

#[async_trait]
impl Reader for FileReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>, ConnectError> {
        loop {
            if *self.stop.borrow() {
                // Dropping the channel ends the thread that reads.
                self.current = None;
                return Ok(None);
            }
            let Some(claim) = &mut self.current else {
                match self.queue.claim() {
                    Some(chunk) => self.begin(chunk),
                    None => return Ok(None),
                }
                continue;
            };
            if let Some((piece, at)) = &mut claim.piece {
                let next = self.decode.feed(piece, *at)?;
                claim.bytes += next - *at;
                *at = next;
                claim.at = piece.offset(next);
                if piece.len() <= next {
                    claim.piece = None;
                }
                if self.decode.is_full() {
                    return Ok(Some(self.emit()));
                }
                continue;
            }
            if claim.ended {
                let last = self.emit();
                self.current = None;
                return Ok(Some(last));
            }
            let received = tokio::select! {
                biased;
                () = stopped(&mut self.stop) => continue,
                received = claim.pieces.recv() => received,
            };
            match received {
                Some(piece) => claim.piece = Some((piece?, 0)),
                None => {
                    self.decode.end()?;
                    claim.ended = true;
                }
            }
        }
    }

    fn positions(&self) -> Vec<SplitPosition> {
        self.progress.positions()
    }

    fn unclaimed(&self) -> bool {
        !self.queue.is_empty()
    }
}

/// Returns when reading is to stop; never, if nobody is left who could say so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The guard that `wait_for` returns must not live on in a future that moves between threads.
    let told = stop.wait_for(|stop| *stop).await.is_ok();
    if !told {
        std::future::pending::<()>().await;
    }
}

impl FileReader {
    fn begin(&mut self, chunk: Chunk) {
        let (sender, pieces) = mpsc::channel(MAX_PIECES);
        self.decode.begin(chunk.path.clone());
        self.current = Some(Claim { number: chunk.number, split: chunk.split.clone(), at: 0, pieces, piece: None, bytes: 0, ended: false });
        let in_lines = self.in_lines;
        self.io.spawn_blocking(move || {
            let mut send = |piece| sender.blocking_send(Ok(piece)).is_ok();
            let read = if in_lines { read_lines(&chunk, &mut send) } else { read_bytes(&chunk, &mut send) };
            if let Err(error) = read {
                // Nobody listens when the pipeline has stopped: then the error concerns nobody either.
                let _ = sender.blocking_send(Err(read_error(&chunk, &error)));
            }
        });
    }

    fn emit(&mut self) -> SourceBatch {
        let decoded = self.decode.take();
        let claim = self.current.as_mut().expect("only a claimed chunk gives batches");
        let split_ended = claim.ended && claim.piece.is_none();
        match split_ended {
            true => self.progress.finish(claim.number),
            false => self.progress.at(claim.number, Place { at: claim.at, header: self.decode.header_end() }),
        }
        SourceBatch {
            errors: decoded.errors,
            bytes: std::mem::take(&mut claim.bytes),
            split_ended,
            ..SourceBatch::new(decoded.rows, claim.split.clone(), decoded.offsets.into())
        }
    }
}

fn read_error(chunk: &Chunk, error: &std::io::Error) -> ConnectError {
    use super::compression::Compression;
    match chunk.compression {
        Compression::None => ConnectError::of_file("read", &chunk.path, error),
        _ => ConnectError::user(
            format!("cannot decompress {}: {error}", chunk.path.display()),
            "check that the file is whole, and that `compression` or its extension says how it was compressed",
        ),
    }
}
