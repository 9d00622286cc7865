//! What a running pipeline is told from outside: a Unix socket in its state folder, one JSON object a line each way.
//!
//! ```text
//! {"do": "savepoint", "place": "FOLDER or URL"}                     -> {"epoch": 12}
//! {"do": "stop", "drain": false, "savepoint": null}                 -> {"stopping": true}, at once
//! {"do": "stop", "drain": false, "savepoint": "PLACE"}              -> {"epoch": 12}, when it has stopped and the copy is there
//! {"do": "swap", "changes": [{"transform": "T", "plugin": "FILE or sha256:…", "config": {…}}],
//!  "dry_run": false, "irreversible": false, "watch": null or SECONDS}  -> a `Swapped`
//! {"do": "beside", "kind": "canary" or "shadow", …}                 -> what was seen
//! {"do": "rollback", "transform": "T"}                              -> a `Swapped`
//! {"do": "record", "transform": "T", "rows": 1000, "seconds": 30, "file": "FILE"}  -> a `Taken`
//! anything that cannot be done                                     -> {"error": "why"}
//! ```
//!
//! Whoever may write the folder may connect: the socket has the mode 0600.
//!
//! Another process may take the pipeline over, and then listens at the same path. So a run begins to listen when the pipeline is its own, needs no path to
//! stop listening, and removes no socket but its own.

use crate::ServerError;
use crate::folder::is_a_pipelines;
use crate::lives::Lives;
use crate::state::unusable;
use crate::swaps::{self, Beside, Order};
use crate::versions::Asked;
use pelton_core::Epoch;
use pelton_runtime::StopMode;
use pelton_runtime::recording::take::Order as RecordOrder;
use pelton_runtime::swap::Refused;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The socket in a state folder.
const SOCKET: &str = "control.sock";
/// A request is a short line.
const MAX_REQUEST_BYTES: u64 = 1 << 20;
/// Whoever connects has it ready.
const PATIENCE: Duration = Duration::from_secs(5);

/// What can be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Copy the state as of now to a place.
    Savepoint { place: String },
    /// Stop after a last epoch, and copy that one.
    Stop { drain: bool, savepoint: Option<String> },
    /// Make transforms other versions of themselves; go back if they fare worse for so many seconds.
    Swap { changes: Vec<Asked>, dry_run: bool, irreversible: bool, watch: Option<u64> },
    /// Put candidates beside transforms.
    Beside(Beside),
    /// Make a transform what it was before.
    Rollback { transform: String },
    /// Record what comes to a transform and what it gives, into a file; wait for the rows for so many seconds.
    Record { transform: String, rows: usize, seconds: u64, file: PathBuf },
}

/// What a supervised pipeline is told: by its socket, by signals, by a host.
pub struct Orders {
    /// What is told to one of its lives.
    pub lives: Lives,
    stop: watch::Sender<StopMode>,
    last: Mutex<Last>,
    /// What came of the last savepoint, once that is known.
    copied: watch::Sender<Option<Result<Epoch, String>>>,
}

/// The copy of the last epoch that is made when the pipeline has stopped.
#[derive(Default)]
struct Last {
    /// Where to.
    place: Option<String>,
    /// It is too late to ask for one.
    begun: bool,
}

/// The listening side of a run.
pub struct Control {
    path: PathBuf,
    orders: Arc<Orders>,
    listening: Mutex<Option<Listening>>,
    /// Becomes true when the run is over.
    over: watch::Sender<bool>,
}

struct Listening {
    serving: JoinHandle<()>,
    /// Device and inode of the socket.
    socket: Option<(u64, u64)>,
}

impl Control {
    /// Of a state folder. Nobody listens yet.
    pub fn new(folder: &Path, orders: Arc<Orders>) -> Control {
        Control { path: folder.join(SOCKET), orders, listening: Mutex::new(None), over: watch::Sender::new(false) }
    }

    /// A life of the pipeline has begun.
    pub fn begins(&self) -> Result<(), ServerError> {
        let mut listening = self.listening.lock().expect("no holder of this lock panics");
        if listening.is_none() {
            *listening = Some(self.listen().map_err(|error| unusable("listen at", &self.path, &error))?);
        }
        Ok(())
    }

    fn listen(&self) -> std::io::Result<Listening> {
        // Left by a process that died, or that was overtaken.
        let _ = std::fs::remove_file(&self.path);
        let listener = UnixListener::bind(&self.path)?;
        std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(0o600))?;
        let serving = tokio::spawn(serve(listener, self.orders.clone(), self.over.subscribe()));
        Ok(Listening { serving, socket: socket(&self.path) })
    }

    /// The run is over: whoever has asked gets the answer, and nobody can ask any more.
    pub async fn end(self) {
        let listening = self.listening.lock().expect("no holder of this lock panics").take();
        let Some(listening) = listening else { return };
        let _ = self.over.send(true);
        let _ = tokio::time::timeout(PATIENCE, listening.serving).await;
        if socket(&self.path) == listening.socket {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Tells a socket from others at the same path.
fn socket(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

async fn serve(listener: UnixListener, orders: Arc<Orders>, mut over: watch::Receiver<bool>) {
    let mut answering = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = answering.join_next() => continue,
            _ = over.wait_for(|over| *over) => break,
        };
        let Ok((stream, _)) = accepted else { break };
        let orders = orders.clone();
        answering.spawn(async move {
            if let Err(error) = answer(stream, &orders).await {
                tracing::debug!(%error, "a request on the control socket was not answered");
            }
        });
    }
    // Whoever has asked gets the answer.
    while answering.join_next().await.is_some() {}
}

async fn answer(mut stream: tokio::net::UnixStream, orders: &Orders) -> std::io::Result<()> {
    let (reading, mut writing) = stream.split();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(reading.take(MAX_REQUEST_BYTES));
    tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await??;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => orders.carry_out(request).await,
        Err(error) => json!({"error": format!("not a request: {error}")}),
    };
    writing.write_all(format!("{reply}\n").as_bytes()).await?;
    Ok(())
}

impl Orders {
    /// None yet.
    pub fn new() -> Arc<Orders> {
        let (stop, copied) = (watch::Sender::new(StopMode::Run), watch::Sender::new(None));
        Arc::new(Orders { lives: Lives::new(), stop, last: Mutex::default(), copied })
    }

    /// Stop, or go on draining.
    pub fn stop(&self, mode: StopMode) {
        let _ = self.stop.send_replace(mode);
    }

    /// Whether the pipeline is to go on.
    pub fn wanted(&self) -> watch::Receiver<StopMode> {
        self.stop.subscribe()
    }

    /// Stop, or go on draining, and then copy the last epoch to this place.
    pub fn stop_with_savepoint(&self, mode: StopMode, place: String) -> Result<(), String> {
        let mut last = self.last.lock().expect("no holder of this lock panics");
        match &last.place {
            _ if last.begun => return Err("the pipeline has just stopped\n  next: ask for a savepoint of its last checkpoint".into()),
            Some(other) if *other != place => return Err(format!("the pipeline stops already, with a savepoint at {other}")),
            _ => last.place = Some(place),
        }
        drop(last);
        self.stop(mode);
        Ok(())
    }

    /// The pipeline has ended: where somebody wants the last epoch to be copied to. Nobody can ask for it any more.
    pub fn last_savepoint(&self) -> Option<String> {
        let mut last = self.last.lock().expect("no holder of this lock panics");
        last.begun = true;
        last.place.clone()
    }

    /// Tells whoever waits for that copy.
    pub fn copied(&self, copied: Result<Epoch, String>) {
        let _ = self.copied.send_replace(Some(copied));
    }

    /// Does what is asked; the reply is what the module's header shows.
    pub async fn carry_out(&self, request: Request) -> Value {
        match request {
            Request::Savepoint { place } => {
                let Some(life) = self.lives.now() else { return between_lives() };
                let Some(checkpoints) = &life.progress.checkpoints else { return json!({"error": "the pipeline takes no checkpoints"}) };
                match checkpoints.checkpoint(Some(place)).await {
                    Ok(epoch) => json!({"epoch": epoch}),
                    Err(error) => json!({"error": error}),
                }
            }
            Request::Swap { changes, dry_run, irreversible, watch } => {
                let order = Order { changes, dry_run, irreversible };
                reply(swaps::swap_and_watch(&self.lives, order, watch.map(Duration::from_secs)).await)
            }
            Request::Beside(wanted) => reply(swaps::beside(&self.lives, wanted).await),
            Request::Rollback { transform } => reply(swaps::roll_back(&self.lives, &transform).await.map(|swapped| json!(swapped))),
            Request::Record { transform, rows, seconds, file } => {
                let Some(life) = self.lives.now() else { return between_lives() };
                let order = RecordOrder { transform, rows, patience: Duration::from_secs(seconds), file };
                reply(swaps::record(&life, order).await.map(|taken| json!(taken)))
            }
            Request::Stop { drain, savepoint } => {
                let mode = if drain { StopMode::Drain } else { StopMode::Stop };
                let Some(place) = savepoint else {
                    self.stop(mode);
                    return json!({"stopping": true});
                };
                match self.stop_with_savepoint(mode, place) {
                    Ok(()) => self.when_copied().await,
                    Err(error) => json!({"error": error}),
                }
            }
        }
    }

    async fn when_copied(&self) -> Value {
        let mut copied = self.copied.subscribe();
        match copied.wait_for(Option::is_some).await.map(|copied| copied.clone()) {
            Ok(Some(Ok(epoch))) => json!({"epoch": epoch}),
            Ok(Some(Err(error))) => json!({"error": error}),
            // Its other end is in `self`.
            Ok(None) | Err(_) => json!({"error": "the pipeline is gone"}),
        }
    }
}

fn between_lives() -> Value {
    json!({"error": "the pipeline is between two lives; try again"})
}

fn reply(told: Result<Value, Refused>) -> Value {
    told.unwrap_or_else(|refused| json!({"error": refused.to_string()}))
}

/// Why a pipeline that was asked has not done it.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens: the pipeline does not run, or has just ended.
    #[error("{0}")]
    Nobody(String),
    /// It cannot be done.
    #[error("{0}")]
    Refused(String),
}

impl From<std::io::Error> for AskError {
    fn from(error: std::io::Error) -> AskError {
        AskError::Nobody(error.to_string())
    }
}

/// Why nobody listens in a folder, and what to do.
fn nobody(folder: &Path, socket: &Path, error: &std::io::Error) -> String {
    let shown = folder.display();
    if let Some(name) = hosted_in(folder) {
        return format!(
            "{shown} is the state of a host's pipeline\n  next: ask its host, by the pipeline's name: `{name}` in place of the folder"
        );
    }
    if !folder.join("checkpoints").exists() {
        let what = if folder.exists() { "is no state folder: there are no checkpoints in it" } else { "does not exist" };
        return format!("{shown} {what}\n  next: name the folder that `pelton run --state` was given, or the name of a pipeline on a host");
    }
    match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            format!(
                "no pipeline runs with the state folder {shown}\n  next: start it with `pelton run FILE --state {shown}`, which goes on where it was"
            )
        }
        _ => format!("cannot ask the pipeline of {shown}: {}: {error}", socket.display()),
    }
}

/// The name of the pipeline whose state a host keeps in this folder.
fn hosted_in(folder: &Path) -> Option<String> {
    let folder = std::fs::canonicalize(folder).ok()?;
    let pipeline = [folder.as_path(), folder.parent()?].into_iter().find(|one| is_a_pipelines(one))?;
    Some(pipeline.file_name()?.to_string_lossy().into_owned())
}

/// Asks the run of a state folder.
pub fn ask(folder: &Path, request: &Request) -> Result<Value, AskError> {
    let path = folder.join(SOCKET);
    let mut stream = UnixStream::connect(&path).map_err(|error| AskError::Nobody(nobody(folder, &path, &error)))?;
    let request = serde_json::to_string(request).expect("a request is JSON");
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let ended = |error: serde_json::Error| AskError::Refused(format!("the pipeline ended before it answered: {error}"));
    let reply: Value = serde_json::from_str(&line).map_err(ended)?;
    match reply.get("error").and_then(Value::as_str) {
        Some(error) => Err(AskError::Refused(error.into())),
        None => Ok(reply),
    }
}
