//! What each endpoint does.

use super::App;
use super::endpoints::{Answer, ENDPOINTS, Operation};
use crate::access::{Role, Who};
use crate::folder::Deployment;
use crate::host::Reason;
use crate::host::swapping::Swap;
use crate::http::{self, Answer as Response};
use crate::refusal::{Refusal, Why};
use crate::swaps::Order;
use crate::versions::Asked;
use crate::{metrics, names, status};
use pelton_runtime::clock;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Entries of a log that come back where nobody says how many.
const ENTRIES: u64 = 200;
/// Entries at most.
const MAX_ENTRIES: u64 = 5_000;
/// Seconds that a request may wait for an entry.
const MAX_WAIT: u64 = 30;

/// A request that may be carried out.
pub struct Call {
    /// What all share.
    pub app: Arc<App>,
    /// Who asks.
    pub who: Who,
    /// Of the path.
    pub parameters: HashMap<String, String>,
    /// After `?`.
    pub query: HashMap<String, u64>,
    /// An object.
    pub body: Value,
    /// Digest and size of a component that has arrived.
    pub upload: Option<(String, u64)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwapBody {
    changes: Vec<Asked>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    irreversible: bool,
    #[serde(default)]
    watch: Option<u64>,
    #[serde(default)]
    allow_downgrade: bool,
    #[serde(default)]
    note: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwapBack {
    transform: String,
    #[serde(default)]
    note: Option<String>,
}

/// What the audit log says besides.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Name of the pipeline.
    pub pipeline: Option<String>,
    /// Its version.
    pub version: Option<u64>,
    /// Why it was done, and then taken back.
    pub taken_back: Option<String>,
}

/// An answer.
pub struct Done {
    kind: &'static str,
    ready: bool,
    text: String,
    /// For the audit log.
    pub about: About,
}

impl Done {
    fn json(value: &impl serde::Serialize) -> Done {
        let text = serde_json::to_string(value).expect("an answer is plain data");
        Done { kind: "application/json", ready: true, text, about: About::default() }
    }

    fn text(operation: Operation, text: String) -> Done {
        let answer = ENDPOINTS.iter().find(|endpoint| endpoint.operation == operation).map(|endpoint| endpoint.answer);
        let kind = if let Some(Answer::Text(kind)) = answer { kind } else { "text/plain" };
        Done { kind, ready: true, text, about: About::default() }
    }

    /// As HTTP has it.
    pub fn answer(self) -> Response {
        Response { status: if self.ready { 200 } else { 503 }, kind: self.kind, body: self.text }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

/// What is sent to deploy besides the deployment.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deploy {
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    allow_downgrade: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stop {
    #[serde(default)]
    savepoint: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Savepoint {
    #[serde(default)]
    place: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rollback {
    #[serde(default)]
    version: Option<u64>,
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

impl Call {
    /// A parameter of the path.
    pub fn parameter(&self, name: &str) -> Result<&str, Refusal> {
        let found = self.parameters.get(name).map(String::as_str);
        found.ok_or_else(|| Refusal::new(Why::Malformed, format!("the path has no `{name}`")))
    }

    /// The name of the pipeline that it is about.
    fn name(&self) -> Result<&str, Refusal> {
        names::name(self.parameter("name")?)
    }

    fn body<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        understand(&self.body, |_| true)
    }

    /// Digests of plugins that it is about, for the audit log.
    pub fn digests(&self) -> Vec<String> {
        let sent = self.body.get("plugins").and_then(Value::as_object).into_iter().flatten();
        let sent = sent.filter_map(|(_, digest)| digest.as_str()).filter(|digest| names::digest(digest).is_ok()).map(str::to_string);
        let named = self.parameters.get("digest").filter(|digest| names::digest(digest).is_ok());
        let changes = self.body.get("changes").and_then(Value::as_array).into_iter().flatten();
        let swapped = changes.filter_map(|change| change.get("plugin")?.as_str()).filter(|digest| names::digest(digest).is_ok());
        sent.chain(swapped.map(str::to_string)).chain(named.cloned()).collect()
    }

    fn limit(&self) -> usize {
        self.query.get("limit").copied().unwrap_or(ENTRIES).min(MAX_ENTRIES) as usize
    }

    /// Where a savepoint goes: below the pipeline's folder, or where an admin says.
    fn place(&self, wanted: Option<String>) -> Result<String, Refusal> {
        let folder = self.app.host.folder.pipeline(self.name()?).join("savepoints");
        let inside = |name: &str| folder.join(name).display().to_string();
        match wanted {
            None => Ok(inside(&clock::now().micros().to_string())),
            Some(name) if names::is_name(&name) => Ok(inside(&name)),
            Some(place) if self.who.role == Role::Admin => Ok(place),
            Some(_) => {
                Err(Refusal::new(Why::Forbidden, "an operator's savepoint has a name, without a path; an admin may give a path or a URL"))
            }
        }
    }

    fn about(&self, version: Option<u64>) -> About {
        About { pipeline: self.parameters.get("name").cloned(), version, taken_back: None }
    }

    /// Why something is done, as far as somebody has said so.
    fn reason(&self, note: Option<String>) -> Reason {
        Reason { who: self.who.name.clone(), note, rollback_of: None }
    }

    /// What came of a swap or of a candidate.
    fn swapped(&self, (version, told): (Option<u64>, Value)) -> Done {
        let taken_back = told["rolled_back"].as_str().map(str::to_string);
        let mut answer = told;
        answer["version"] = version.into();
        Done { about: About { taken_back, ..self.about(version) }, ..Done::json(&answer) }
    }
}

/// Takes a component in.
pub async fn receive(app: &App, digest: String, body: &mut http::Body<'_>, patience: Duration) -> Result<(String, u64), Refusal> {
    let mut incoming = app.host.components.receive(&digest)?;
    let all = async {
        let broken = |error| Refusal::new(Why::Malformed, format!("the plugin did not arrive whole: {error}"));
        while let Some(bytes) = body.next().await.map_err(broken)? {
            incoming.write(&bytes)?;
        }
        incoming.keep()
    };
    let slow = |_| Refusal::new(Why::Slow, format!("the plugin did not arrive within {} s", patience.as_secs()));
    Ok((digest, tokio::time::timeout(patience, all).await.map_err(slow)??))
}

/// Does what is asked.
pub async fn carry_out(operation: Operation, call: Call) -> Result<Done, Refusal> {
    let host = &call.app.host;
    Ok(match operation {
        Operation::Health => Done::text(operation, "ok\n".into()),
        Operation::Readiness => match host.is_ready() {
            true => Done::text(operation, "ready\n".into()),
            false => Done { ready: false, ..Done::text(operation, "pipelines are being started or stopped\n".into()) },
        },
        Operation::Metrics => Done::text(operation, metrics::text(host, &call.app.requests)),
        Operation::OpenApi => Done::json(&super::openapi::document()),
        Operation::Host => Done::json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "who": call.who.name,
            "role": call.who.role.name(),
            "uptime_seconds": host.began.elapsed().as_secs_f64(),
            "ready": host.is_ready(),
            "resident_bytes": metrics::resident_bytes().map(|bytes| bytes as u64),
        })),
        Operation::List => {
            // One that was removed meanwhile is not there any more.
            let all: Vec<_> = host.pipelines().iter().filter_map(|hosted| status::summary(host, hosted).ok()).collect();
            Done::json(&all)
        }
        Operation::Status => Done::json(&status::status(host, &*host.pipeline(call.name()?)?)?),
        Operation::Logs => logs(&call).await?,
        Operation::History => Done::json(&host.history(call.name()?)?),
        Operation::Swaps => Done::json(&host.swaps(call.name()?).await?),
        Operation::Version => {
            host.pipeline(call.name()?)?;
            let number = call.parameter("version")?.parse();
            let number = number.map_err(|_| Refusal::new(Why::Malformed, "a version is a number"))?;
            Done::json(&host.folder.version(call.name()?, number)?)
        }
        Operation::Graph => match host.pipeline(call.name()?)?.life().drawing {
            drawing if drawing.is_empty() => {
                return Err(Refusal::new(Why::Conflict, "the pipeline has not run since the host was started"));
            }
            drawing => Done::text(operation, drawing),
        },
        Operation::Plugins => {
            let all: Vec<_> = host.components.all().into_iter().map(|(digest, bytes)| json!({"digest": digest, "bytes": bytes})).collect();
            Done::json(&all)
        }
        Operation::Audit => match host.audit.tail(call.limit()) {
            Ok(entries) => Done::json(&entries),
            Err(error) => return Err(Refusal::new(Why::Broken, format!("the audit log cannot be read: {error}"))),
        },
        Operation::Upload => {
            let (digest, bytes) = call.upload.clone().ok_or_else(|| Refusal::new(Why::Broken, "nothing has arrived"))?;
            Done::json(&json!({"digest": digest, "bytes": bytes}))
        }
        Operation::Sign => {
            let digest = call.parameter("digest")?;
            let signatures = host.components.sign(digest, call.body()?)?;
            Done::json(&json!({"digest": digest, "signatures": signatures}))
        }
        _ => change(operation, &call).await?,
    })
}

/// The endpoints that change a pipeline.
async fn change(operation: Operation, call: &Call) -> Result<Done, Refusal> {
    let host = &call.app.host;
    if !matches!(operation, Operation::Deploy) {
        host.pipeline(call.name()?)?;
    }
    let done = match operation {
        Operation::Deploy => return deploy(call).await,
        Operation::Rollback => {
            let Rollback { version, note, dry_run } = call.body()?;
            let deployed = host.roll_back(call.name()?, version, call.reason(note), dry_run).await?;
            return Ok(Done { about: call.about(deployed.version), ..Done::json(&deployed) });
        }
        Operation::Swap => {
            let SwapBody { changes, dry_run, irreversible, watch, allow_downgrade, note } = call.body()?;
            let order = Order { changes, dry_run, irreversible };
            let swap = Swap { order, watch: watch.map(Duration::from_secs), older: allow_downgrade };
            return Ok(call.swapped(host.swap(call.name()?, swap, call.reason(note)).await?));
        }
        Operation::SwapBack => {
            let SwapBack { transform, note } = call.body()?;
            return Ok(call.swapped(host.swap_back(call.name()?, &transform, call.reason(note)).await?));
        }
        Operation::Candidate => return Ok(call.swapped(host.beside(call.name()?, call.body()?, call.reason(None)).await?)),
        Operation::Stop => {
            let Stop { savepoint } = call.body()?;
            let place = savepoint.map(|place| call.place(Some(place))).transpose()?;
            Done::json(&json!({"savepoint": host.stop(call.name()?, place).await?}))
        }
        Operation::Savepoint => {
            let Savepoint { place } = call.body()?;
            Done::json(&host.savepoint(call.name()?, call.place(place)?).await?)
        }
        Operation::Remove => {
            host.remove(call.name()?).await?;
            Done::json(&json!({"done": true}))
        }
        Operation::Pause | Operation::Resume | Operation::Drain => {
            let Empty {} = call.body()?;
            let name = call.name()?;
            match operation {
                Operation::Pause => host.pause(name).await?,
                Operation::Resume => host.resume(name).await?,
                _ => host.drain(name).await?,
            }
            Done::json(&status::summary(host, &*host.pipeline(name)?)?)
        }
        other => return Err(Refusal::new(Why::Broken, format!("`{}` changes nothing", other.name()))),
    };
    let version = host.folder.desired(call.name()?).ok().map(|desired| desired.version);
    Ok(Done { about: call.about(version), ..done })
}

/// What is a user's own, and may have nulls that mean something.
const FREE: [&str; 2] = ["variables", "config"];

/// What may be missing may be null.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            entries.retain(|_, value| !value.is_null());
            entries.iter_mut().filter(|(key, _)| !FREE.contains(&key.as_str())).for_each(|(_, value)| drop_nulls(value));
        }
        Value::Array(values) => values.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Reads those keys of a body that are wanted.
fn understand<T: DeserializeOwned>(body: &Value, wanted: impl Fn(&str) -> bool) -> Result<T, Refusal> {
    let mut body = body.clone();
    drop_nulls(&mut body);
    if let Some(body) = body.as_object_mut() {
        body.retain(|key, _| wanted(key));
    }
    serde_json::from_value(body).map_err(|error| Refusal::new(Why::Malformed, format!("this is not what is wanted here: {error}")))
}

fn deployment(body: &Value) -> Result<(Deploy, Deployment), Refusal> {
    let besides = |key: &str| ["note", "dry_run", "allow_downgrade"].contains(&key);
    Ok((understand(body, besides)?, understand(body, |key| !besides(key))?))
}

/// Whether a body is what a schema of the OpenAPI document says, for those who send.
#[cfg(test)]
pub fn is_understood(schema: &str, body: &Value) -> bool {
    super::openapi::list_for_object(schema, body).is_none() && is_read(schema, body)
}

#[cfg(test)]
fn is_read(schema: &str, body: &Value) -> bool {
    fn is<T: DeserializeOwned>(body: &Value) -> bool {
        understand::<T>(body, |_| true).is_ok()
    }
    match schema {
        "Deploy" => deployment(body).is_ok(),
        "Empty" => is::<Empty>(body),
        "Stop" => is::<Stop>(body),
        "Savepoint" => is::<Savepoint>(body),
        "Rollback" => is::<Rollback>(body),
        "Swap" => is::<SwapBody>(body),
        "SwapBack" => is::<SwapBack>(body),
        "Candidate" => is::<crate::swaps::Beside>(body),
        "Signatures" => is::<pelton_registry::SignatureFile>(body),
        other => panic!("{other} is read nowhere"),
    }
}

async fn deploy(call: &Call) -> Result<Done, Refusal> {
    let (Deploy { note, dry_run, allow_downgrade }, deployment) = deployment(&call.body)?;
    let deployed = call.app.host.deploy(deployment, call.reason(note), dry_run, allow_downgrade).await?;
    let about = About { pipeline: Some(deployed.pipeline.clone()), version: deployed.version, taken_back: None };
    Ok(Done { about, ..Done::json(&deployed) })
}

async fn logs(call: &Call) -> Result<Done, Refusal> {
    let log = call.app.host.pipeline(call.name()?)?.log.clone();
    let after = call.query.get("after").copied();
    if let (Some(after), Some(wait)) = (after, call.query.get("wait")) {
        let _ = tokio::time::timeout(Duration::from_secs(*wait.min(&MAX_WAIT)), log.wait(after)).await;
    }
    Ok(Done::json(&log.entries(after, call.limit())))
}
