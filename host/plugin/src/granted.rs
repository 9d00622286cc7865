//! What a plugin is granted, ready to be used: the host's side of the imports `http`, `env`, `wall-clock`, `monotonic-clock` and `random`.
//!
//! Whether a plugin may be loaded with its imports is judged before ([`crate::Plugin::granted`]); here each call asks its grant once more, so
//! that nothing is given to an instance that has no grants, such as the one that describes the plugin.

use crate::contract::http::{self, ErrorKind, Header, Request, Response};
use crate::contract::{env, monotonic_clock, random, wall_clock};
use crate::sandbox::{Sandbox, Stopped};
use pelton_core::grants::{Grants, Random};
use pelton_fetch::{Client, Failed, FailedKind, Secrets};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use wasmtime::{Error, Result};

/// Random bytes of one call, at most.
const MAX_RANDOM_BYTES: u32 = 64 * 1024;

/// Grants with their values.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    pub(crate) grants: Grants,
    /// For a run in which effects are refused: then what is missing is not looked at.
    pub(crate) effects: Effects,
    env: BTreeMap<String, String>,
    secrets: Arc<Secrets>,
}

/// Whether calls may change something outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effects {
    /// As granted.
    #[default]
    Granted,
    /// They are refused, in words that follow "effects are refused in".
    Refused(&'static str),
}

/// What calls of an instance have left behind.
pub(crate) struct Progress {
    /// Blocks of a seed's bytes that were given.
    blocks: u64,
    /// What is left of the last one.
    rest: Vec<u8>,
    /// Calls of a clock that is not granted, in a language runtime.
    pub(crate) asked: u64,
    started: Instant,
}

impl Granted {
    /// Reads values and secrets.
    pub(crate) fn read(grants: &Grants, env: &dyn Fn(&str) -> Option<String>) -> std::result::Result<Granted, String> {
        let secrets = Arc::new(Secrets::read(&grants.http, env)?);
        let values = grants.env.iter().filter_map(|name| Some((name.clone(), env(name)?))).collect();
        Ok(Granted { grants: grants.clone(), effects: Effects::Granted, env: values, secrets })
    }

    /// Without effects: clocks, and the same random bytes each time, but no values, requests or secrets.
    pub(crate) fn harmless(run: &'static str) -> Granted {
        let grants = Grants { wall_clock: true, monotonic_clock: true, random: Some(Random::Seed(0)), wasi: true, ..Grants::default() };
        Granted { grants, effects: Effects::Refused(run), ..Granted::default() }
    }

    /// Values of the environment, by name.
    pub(crate) fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }
}

impl Progress {
    #[allow(clippy::disallowed_methods, reason = "where a monotonic clock that a plugin is granted begins")]
    pub(crate) fn new() -> Progress {
        Progress { blocks: 0, rest: Vec::new(), asked: 0, started: Instant::now() }
    }

    /// The next bytes of a seed: SHA-256 of the seed and a count.
    fn seeded(&mut self, seed: u64, count: usize) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.rest);
        while bytes.len() < count {
            bytes.extend(
                Sha256::new()
                    .chain_update(b"pelton random")
                    .chain_update(seed.to_le_bytes())
                    .chain_update(self.blocks.to_le_bytes())
                    .finalize(),
            );
            self.blocks += 1;
        }
        self.rest = bytes.split_off(count);
        bytes
    }

    /// Nanoseconds since this was made.
    pub(crate) fn nanos(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The client of a process, started by the first request.
static CLIENT: OnceLock<std::result::Result<Client, String>> = OnceLock::new();

impl Sandbox {
    /// Random bytes as granted; of a language runtime without a grant those of the seed 0.
    pub(crate) fn random_bytes(&mut self, count: u32, without: Option<u64>) -> Result<Vec<u8>> {
        if count > MAX_RANDOM_BYTES {
            return Err(Error::msg(format!("it asks for {count} random bytes at once; {MAX_RANDOM_BYTES} are allowed")));
        }
        match self.granted.grants.random.or(without.map(Random::Seed)) {
            Some(Random::Seed(seed)) => Ok(self.progress.seeded(seed, count as usize)),
            Some(Random::System) => {
                let mut bytes = vec![0; count as usize];
                getrandom::fill(&mut bytes).map_err(|error| Error::msg(format!("the system gives no random bytes: {error}")))?;
                Ok(bytes)
            }
            None => Err(not_granted("random")),
        }
    }

    async fn fetch(&mut self, request: Request) -> std::result::Result<Response, Failed> {
        if let Effects::Refused(run) = self.effects {
            let message = format!("effects are refused in {run}: `{} {}` was not asked for", request.method, shown(&request.url));
            return Err(Failed::refused(message));
        }
        if !self.is_call() {
            return Err(Failed::refused(
                "requests are made while rows are processed or state is migrated, not when a transform is opened or closed",
            ));
        }
        let client = CLIENT.get_or_init(Client::start).as_ref();
        let client =
            client.map_err(|error| Failed { kind: FailedKind::Failed, message: format!("the host can make no requests: {error}") })?;
        let headers = request.headers.into_iter().map(|header| (header.name, header.value)).collect();
        let request = pelton_fetch::Request { method: request.method, url: request.url, headers, body: request.body };
        let answer = client.send(self.granted.secrets.clone(), request, self.host_call_bytes).await?;
        // Names and values count as the body does.
        let named: usize = answer.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if (named + answer.body.len()) as u64 > self.host_call_bytes {
            let message = format!("the answer has more than {} bytes with its headers (limits.host_call_bytes)", self.host_call_bytes);
            return Err(Failed { kind: FailedKind::TooLarge, message });
        }
        let headers = answer.headers.into_iter().map(|(name, value)| Header { name, value }).collect();
        Ok(Response { status: answer.status, headers, body: answer.body })
    }
}

impl http::Host for Sandbox {
    async fn send(&mut self, request: Request) -> Result<std::result::Result<Response, http::Error>> {
        let (clock, back_by) = self.wall();
        let answer = tokio::select! {
            answer = self.fetch(request) => Some(answer),
            () = clock.until(back_by.saturating_add(1)) => None,
        };
        let Some(answer) = answer else {
            self.stopped = Some(Stopped::Wall);
            return Err(Error::msg("the deadline on the wall has passed"));
        };
        Ok(answer.map_err(|Failed { kind, message }| {
            let kind = match kind {
                FailedKind::Refused => ErrorKind::Refused,
                FailedKind::TooLarge => ErrorKind::TooLarge,
                FailedKind::Timeout => ErrorKind::Timeout,
                FailedKind::Failed => ErrorKind::Failed,
            };
            http::Error { kind, message }
        }))
    }
}

impl env::Host for Sandbox {
    fn get(&mut self, name: String) -> Option<String> {
        self.granted.env.get(&name).cloned()
    }
}

impl wall_clock::Host for Sandbox {
    fn now(&mut self) -> Result<i64> {
        if !self.granted.grants.wall_clock {
            return Err(not_granted("wall-clock"));
        }
        Ok(i64::try_from(since_1970().as_micros()).unwrap_or(i64::MAX))
    }
}

impl monotonic_clock::Host for Sandbox {
    fn now(&mut self) -> Result<u64> {
        if !self.granted.grants.monotonic_clock {
            return Err(not_granted("monotonic-clock"));
        }
        Ok(self.progress.nanos())
    }
}

impl random::Host for Sandbox {
    fn get(&mut self, count: u32) -> Result<Vec<u8>> {
        self.random_bytes(count, None)
    }
}

/// The time of day.
#[allow(clippy::disallowed_methods, reason = "the clock that a plugin is granted")]
pub(crate) fn since_1970() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Of an instance that has no grants, such as the one that describes a plugin.
fn not_granted(interface: &str) -> Error {
    Error::msg(format!("it calls `pelton:plugin/{interface}` where it has no grants, such as in `describe`"))
}

/// A URL without what may be secret.
fn shown(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_bytes_however_they_are_asked_for() {
        let (mut one, mut other) = (Progress::new(), Progress::new());
        let together = one.seeded(7, 100);
        let parts = [other.seeded(7, 1), other.seeded(7, 0), other.seeded(7, 63), other.seeded(7, 36)].concat();
        assert_eq!(together, parts);
        assert_ne!(together, Progress::new().seeded(8, 100));
        assert_ne!(together, one.seeded(7, 100));
    }

    #[test]
    fn values_are_read_by_name_and_no_others() {
        let grants = Grants { env: vec!["REGION".into(), "ABSENT".into()], ..Grants::default() };
        let host = |name: &str| (name != "ABSENT").then(|| format!("value of {name}"));
        let granted = Granted::read(&grants, &host).expect("nothing is secret");
        assert_eq!(granted.env().iter().collect::<Vec<_>>(), [(&"REGION".to_string(), &"value of REGION".to_string())]);
    }
}
