//! The control API: HTTP and JSON.
//!
//! - [`endpoints`]: what there is, and who may use it. [`openapi`]: the same as a document.
//! - [`operations`]: what each endpoint does.
//!
//! Every request goes one way: where it comes from, who asks, whether they may, what is sent, and only then what is wanted. A change is
//! written to the audit log before and after, and goes on when whoever asked is gone.

pub mod endpoints;
pub mod openapi;
pub(crate) mod operations;

use crate::access::{Role, Tokens, Who};
use crate::audit::Entry;
use crate::host::Host;
use crate::http::{self, Answer, Head};
use crate::metrics::Requests;
use crate::origin::{self, Arrival, Facts};
use crate::refusal::{Refusal, Why};
use endpoints::{Body, ENDPOINTS, Endpoint};
use operations::{About, Call, Done};
use pelton_core::release::MAX_COMPONENT_BYTES;
use pelton_runtime::clock;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// JSON that is sent: a pipeline file with what it includes.
const MAX_JSON_BYTES: usize = 4 << 20;
/// For all of a body to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(20);
/// For all of a component to arrive.
const COMPONENT_PATIENCE: Duration = Duration::from_secs(600);
/// Requests that are worked on at once; others wait.
const MAX_WORKING: usize = 64;
/// Components that arrive at once.
const MAX_UPLOADS: usize = 4;

/// Who may use the API at all.
#[derive(Debug)]
pub enum Access {
    /// Whoever has a token, on TCP. On the Unix socket everybody is an admin: only its owner can connect.
    Tokens(Tokens),
    /// Everybody is an admin.
    Everybody,
}

/// Where a request has arrived, and from whom.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// At which kind of address.
    pub arrival: Arrival,
    /// On the Unix socket: whose process it is.
    pub uid: Option<u32>,
}

/// What all requests share.
pub struct App {
    /// The host.
    pub host: Arc<Host>,
    /// Who may use it.
    pub access: Access,
    /// How requests ended.
    pub requests: Requests,
    working: Semaphore,
    uploads: Semaphore,
}

impl App {
    /// For this host.
    pub fn new(host: Arc<Host>, access: Access) -> Arc<App> {
        let (working, uploads) = (Semaphore::new(MAX_WORKING), Semaphore::new(MAX_UPLOADS));
        Arc::new(App { host, access, requests: Requests::default(), working, uploads })
    }

    fn who(&self, head: &Head, peer: Peer) -> Result<Who, Refusal> {
        if let (Arrival::Socket, Some(uid)) = (peer.arrival, peer.uid) {
            return Ok(Who { name: format!("uid {uid}"), role: Role::Admin });
        }
        let tokens = match &self.access {
            Access::Tokens(tokens) => tokens,
            Access::Everybody => return Ok(Who { name: "anybody".into(), role: Role::Admin }),
        };
        let token = head
            .header("authorization")
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, token)) = token else {
            let message = "this host wants a token: send `Authorization: Bearer TOKEN`, or set PELTON_TOKEN for the command line";
            return Err(Refusal::new(Why::Unauthenticated, message));
        };
        let known = tokens.of(token.trim()).cloned();
        known.ok_or_else(|| Refusal::new(Why::Unauthenticated, "this token is none of this host's"))
    }
}

/// Answers one request.
pub async fn handle(app: &Arc<App>, peer: Peer, head: &Head, body: http::Body<'_>) -> Answer {
    let answer = respond(app, peer, head, body).await.unwrap_or_else(refuse);
    app.requests.count(answer.status);
    answer
}

async fn respond(app: &Arc<App>, peer: Peer, head: &Head, mut body: http::Body<'_>) -> Result<Answer, Refusal> {
    let (endpoint, parameters) = find(head)?;
    let mut call = admit(app, peer, endpoint, parameters, head)?;
    match endpoint.body {
        Body::None => {}
        Body::Optional(schema) | Body::Json(schema) => {
            call.body = json_of(&mut body, matches!(endpoint.body, Body::Optional(_))).await?;
            if let Some(at) = openapi::list_for_object(schema, &call.body) {
                return Err(Refusal::new(Why::Malformed, format!("`{at}` is a list; an object is wanted there")));
            }
        }
        Body::Component => {
            let _place = app.uploads.acquire().await;
            let digest = call.parameter("digest")?.to_string();
            call.upload = Some(operations::receive(app, digest, &mut body, COMPONENT_PATIENCE).await?);
        }
    }
    let done = if endpoint.changes() { change(endpoint, call).await? } else { ask(endpoint, call).await? };
    Ok(done.answer())
}

/// The endpoint of a request, and the parameters of its path.
fn find(head: &Head) -> Result<(&'static Endpoint, HashMap<String, String>), Refusal> {
    let mut elsewhere = false;
    for endpoint in &ENDPOINTS {
        let parts: Vec<&str> = endpoint.path.split('/').skip(1).collect();
        let fits = |(own, given): (&&str, &String)| own.starts_with('{') || own == given;
        if parts.len() != head.path.len() || !parts.iter().zip(&head.path).all(fits) {
            continue;
        }
        if endpoint.method != head.method {
            elsewhere = true;
            continue;
        }
        let named = parts.iter().zip(&head.path).filter(|(own, _)| own.starts_with('{'));
        return Ok((endpoint, named.map(|(own, given)| (own.trim_matches(['{', '}']).to_string(), given.clone())).collect()));
    }
    Err(match elsewhere {
        true => Refusal::new(Why::NoMethod, "this endpoint has no such method; /openapi.json lists all"),
        false => Refusal::new(Why::Absent, "there is no such endpoint; /openapi.json lists all"),
    })
}

/// All that is checked before anything of the body is read.
fn admit(app: &Arc<App>, peer: Peer, endpoint: &Endpoint, parameters: HashMap<String, String>, head: &Head) -> Result<Call, Refusal> {
    let facts = Facts { host: head.header("host"), origin: head.header("origin"), site: head.header("sec-fetch-site") };
    if let Some(why) = origin::refused(facts, peer.arrival) {
        return Err(Refusal::new(Why::Forbidden, why));
    }
    let who = match endpoint.role {
        None => Who { name: String::new(), role: Role::Viewer },
        Some(role) => {
            let who = app.who(head, peer)?;
            if who.role < role {
                return Err(not_allowed(app, endpoint, &who, role, &parameters));
            }
            who
        }
    };
    match endpoint.body {
        Body::Component => {
            wants_type(head, "application/wasm")?;
            if head.claimed().is_some_and(|length| length > MAX_COMPONENT_BYTES) {
                return Err(Refusal::new(Why::TooLarge, format!("a plugin may have {MAX_COMPONENT_BYTES} bytes at most")));
            }
        }
        // Also where nothing is sent: one rule for all changes is easier to trust.
        _ if endpoint.changes() => wants_type(head, "application/json")?,
        _ => {}
    }
    let query = query(head)?;
    Ok(Call { app: app.clone(), who, parameters, query, body: Value::Object(Map::new()), upload: None })
}

/// Somebody we know may not do this; that is worth a line.
fn not_allowed(app: &Arc<App>, endpoint: &Endpoint, who: &Who, role: Role, parameters: &HashMap<String, String>) -> Refusal {
    let refusal = Refusal::new(Why::Forbidden, format!("`{}` is {}; this needs {}", who.name, who.role.name(), role.name()));
    if endpoint.changes() {
        let record = Record::new(app.clone(), endpoint, who.clone(), parameters.get("name").cloned(), Vec::new());
        if let Err(unwritten) = record.done(&Err(refusal.clone())) {
            tracing::error!("{unwritten}");
        }
    }
    refusal
}

async fn ask(endpoint: &'static Endpoint, call: Call) -> Result<Done, Refusal> {
    // Whoever follows a log waits and does nothing.
    let app = call.app.clone();
    let _place = match endpoint.operation {
        endpoints::Operation::Logs => None,
        _ => Some(app.working.acquire().await),
    };
    operations::carry_out(endpoint.operation, call).await
}

/// Does it in a task of its own, so that it is done whole also when nobody waits any more.
async fn change(endpoint: &'static Endpoint, call: Call) -> Result<Done, Refusal> {
    let done = tokio::spawn(async move {
        let app = call.app.clone();
        let _place = app.working.acquire().await;
        let record = Record::new(app.clone(), endpoint, call.who.clone(), call.parameters.get("name").cloned(), call.digests());
        record.begun()?;
        let done = operations::carry_out(endpoint.operation, call).await;
        record.done(&done)?;
        done
    });
    done.await.unwrap_or_else(|panic| Err(Refusal::new(Why::Broken, format!("internal error: {panic}; please report it"))))
}

/// What the audit log says of one change.
struct Record {
    app: Arc<App>,
    id: String,
    who: Who,
    action: String,
    pipeline: Option<String>,
    digests: Vec<String>,
}

impl Record {
    fn new(app: Arc<App>, endpoint: &Endpoint, who: Who, pipeline: Option<String>, digests: Vec<String>) -> Record {
        let id = app.host.audit.id();
        Record { app, id, who, action: endpoint.operation.name(), pipeline, digests }
    }

    /// Before anything is done.
    fn begun(&self) -> Result<(), Refusal> {
        self.write("begun", &About::default(), None, None)
    }

    /// What came of it.
    fn done(&self, done: &Result<Done, Refusal>) -> Result<(), Refusal> {
        match done {
            Ok(done) => match &done.about.taken_back {
                None => self.write("done", &done.about, Some("ok"), None),
                Some(why) => self.write("done", &done.about, Some("taken back"), Some(why)),
            },
            Err(refusal) => {
                let result = if refusal.why == Why::Broken { "failed" } else { "refused" };
                self.write("done", &About::default(), Some(result), Some(&refusal.message))
            }
        }
    }

    fn write(&self, phase: &'static str, about: &About, result: Option<&'static str>, why: Option<&str>) -> Result<(), Refusal> {
        let entry = Entry {
            at: clock::now().to_string(),
            id: &self.id,
            phase,
            who: &self.who.name,
            role: self.who.role.name(),
            action: &self.action,
            pipeline: about.pipeline.as_deref().or(self.pipeline.as_deref()),
            version: about.version,
            digests: &self.digests,
            result,
            why,
        };
        let unwritten = |error| Refusal::new(Why::Broken, format!("the audit log cannot be written: {error}"));
        self.app.host.audit.write(&entry).map_err(unwritten)
    }
}

fn wants_type(head: &Head, wanted: &str) -> Result<(), Refusal> {
    let kind = head.header("content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    match kind.eq_ignore_ascii_case(wanted) {
        true => Ok(()),
        false => Err(Refusal::new(Why::Unsupported, format!("send this with `Content-Type: {wanted}`"))),
    }
}

fn query(head: &Head) -> Result<HashMap<String, u64>, Refusal> {
    let pairs = head.query.split('&').filter(|pair| !pair.is_empty());
    let number = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((name.to_string(), value.parse().ok()?))
    };
    let malformed =
        |pair: &str| Refusal::new(Why::Malformed, format!("`{}`: parameters are numbers, such as limit=20", pair.escape_debug()));
    pairs.map(|pair| number(pair).ok_or_else(|| malformed(pair))).collect()
}

async fn json_of(body: &mut http::Body<'_>, may_be_empty: bool) -> Result<Value, Refusal> {
    let read = tokio::time::timeout(BODY_PATIENCE, body.all(MAX_JSON_BYTES)).await;
    let slow = |_| Refusal::new(Why::Slow, format!("the request did not arrive within {} s", BODY_PATIENCE.as_secs()));
    let broken = |error| Refusal::new(Why::Malformed, format!("the request did not arrive whole: {error}"));
    let bytes = read.map_err(slow)?.map_err(broken)?;
    let bytes = bytes.ok_or_else(|| Refusal::new(Why::TooLarge, format!("a request may have {MAX_JSON_BYTES} bytes at most")))?;
    if bytes.is_empty() && may_be_empty {
        return Ok(Value::Object(Map::new()));
    }
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| Refusal::new(Why::Malformed, format!("this is no JSON: {error}")))?;
    match value.is_object() {
        true => Ok(value),
        false => Err(Refusal::new(Why::Malformed, "send a JSON object")),
    }
}

fn status(why: Why) -> u16 {
    match why {
        Why::Malformed => 400,
        Why::Unauthenticated => 401,
        Why::Forbidden => 403,
        Why::Absent => 404,
        Why::NoMethod => 405,
        Why::Slow => 408,
        Why::Conflict => 409,
        Why::TooLarge => 413,
        Why::Unsupported => 415,
        Why::Invalid => 422,
        Why::Broken => 500,
        Why::Busy => 503,
    }
}

/// The answer to what is not done.
pub fn refuse(refusal: Refusal) -> Answer {
    let mut body = json!({"error": refusal.message});
    if let Some(details) = refusal.details {
        body["details"] = details;
    }
    Answer { status: status(refusal.why), kind: "application/json", body: body.to_string() }
}
