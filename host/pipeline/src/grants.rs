//! `grants` of a provider: what its plugin may do besides computing.

use std::path::{Path, PathBuf};

use pelton_core::grants::http::{Header, Network, Url};
use pelton_core::grants::{Grants, HttpGrant, Random, Value, http};

use crate::fields::{Fields, text, texts};
use crate::report::Report;
use crate::source::Mark;
use crate::yaml::{Content, Entry, Yaml};

/// Values longer than this are no names of environment values or headers.
const MAX_NAME_BYTES: usize = 256;

/// Reads `grants`. Files that it names are relative to `folder`, that of the pipeline file.
pub(crate) fn grants(entry: &Entry, folder: &Path, report: &mut Report<'_>) -> Grants {
    let mut fields = Fields::of(Some(&entry.value), entry.mark, "`grants`", report);
    let http = match fields.get("http").map(|entry| (&entry.value, &entry.value.content)) {
        None => Vec::new(),
        Some((_, Content::List(list))) => list.iter().filter_map(|yaml| request(yaml, folder, report)).collect(),
        Some((yaml, _)) => {
            report.error(yaml.mark, format!("`http` must be a list of entries such as `GET https://host/path/`, not {}", yaml.kind()));
            Vec::new()
        }
    };
    let env = fields.get("env").map(|entry| names(&entry.value, report)).unwrap_or_default();
    let grants = Grants {
        http,
        env,
        wall_clock: fields.boolean("wall_clock", report).unwrap_or(false),
        monotonic_clock: fields.boolean("monotonic_clock", report).unwrap_or(false),
        random: fields.get("random").and_then(|entry| random(entry, report)),
        wasi: fields.boolean("wasi", report).unwrap_or(false),
    };
    fields.finish(report);
    grants
}

fn names(yaml: &Yaml, report: &mut Report<'_>) -> Vec<String> {
    let named = texts(yaml, "`env`", report).into_iter().filter(|(name, mark)| is_name(name, *mark, report));
    named.map(|(name, _)| name.to_string()).collect()
}

fn is_name(name: &str, mark: Mark, report: &mut Report<'_>) -> bool {
    let good = !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.contains(['=', '\0', '*']);
    if !good {
        report.error(mark, format!("`{name}` is not the name of an environment value; each is named by itself"));
    }
    good
}

fn random(entry: &Entry, report: &mut Report<'_>) -> Option<Random> {
    match &entry.value.content {
        Content::Bool(granted) => granted.then_some(Random::System),
        Content::Mapping(_) => {
            let mut fields = Fields::of(Some(&entry.value), entry.mark, "`random`", report);
            fields.require("seed", report);
            let seed = fields.count("seed", 0, report);
            fields.finish(report);
            seed.map(|seed| Random::Seed(seed as u64))
        }
        _ => {
            report.error(entry.value.mark, format!("`random` must be true or `{{seed: NUMBER}}`, not {}", entry.value.kind()));
            None
        }
    }
}

/// An entry of `http`: a text, or a mapping with the text under `allow`.
fn request(yaml: &Yaml, folder: &Path, report: &mut Report<'_>) -> Option<HttpGrant> {
    if let Content::Text(text) = &yaml.content {
        return parsed(HttpGrant::parse(text), yaml.mark, report);
    }
    let mut fields = Fields::of(Some(yaml), yaml.mark, "an entry of `http`", report);
    let allow = fields.require("allow", report);
    let headers = fields.get("headers").map(|entry| headers(entry, folder, report)).unwrap_or_default();
    let mut private = Vec::new();
    if let Some(entry) = fields.get("private") {
        for (network, mark) in texts(&entry.value, "`private`", report) {
            private.extend(parsed(Network::parse(network), mark, report));
        }
    }
    let request_bytes = fields.get("request_bytes").and_then(|entry| bytes(entry, report)).unwrap_or(http::REQUEST_BYTES);
    let response_bytes = fields.get("response_bytes").and_then(|entry| bytes(entry, report)).unwrap_or(http::RESPONSE_BYTES);
    let mark = fields.get("deadline").map_or(yaml.mark, |entry| entry.value.mark);
    let deadline = fields.duration("deadline", report).unwrap_or(http::DEADLINE);
    if deadline.micros() <= 0 {
        report.error(mark, "a `deadline` of no time lets no request through");
    }
    fields.finish(report);
    let allow = allow.and_then(|entry| Some((text(&entry.value, "`allow`", report)?, entry.value.mark)))?;
    let grant = parsed(HttpGrant::parse(allow.0), allow.1, report)?;
    warn_of_plain(&grant.prefix, &headers, allow.1, report);
    Some(HttpGrant { headers, private, request_bytes, response_bytes, deadline, ..grant })
}

/// A secret that crosses the network in the clear is none.
fn warn_of_plain(url: &Url, headers: &[Header], mark: Mark, report: &mut Report<'_>) {
    let secret = headers.iter().find(|header| !matches!(header.value, Value::Text(_)));
    if let (false, Some(header)) = (url.is_tls, secret) {
        report.warning(mark, format!("the header `{}` has a secret, and crosses the network in the clear: write https", header.name), None);
    }
}

fn headers(entry: &Entry, folder: &Path, report: &mut Report<'_>) -> Vec<Header> {
    let mut headers = Vec::new();
    for entry in Fields::of(Some(&entry.value), entry.mark, "`headers`", report).into_entries() {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let good =
            !entry.key.is_empty() && entry.key.len() <= MAX_NAME_BYTES && entry.key.bytes().all(is_token) && http::may_set(&entry.key);
        if !good {
            report.error(entry.mark, format!("`{}` is not the name of a header that can be added", entry.key));
            continue;
        }
        headers.extend(header(entry, folder, report));
    }
    headers
}

fn header(entry: &Entry, folder: &Path, report: &mut Report<'_>) -> Option<Header> {
    let name = entry.key.to_ascii_lowercase();
    if let Content::Text(text) = &entry.value.content {
        return Some(Header { name, prefix: String::new(), value: Value::Text(text.clone()) });
    }
    let mut fields = Fields::of(Some(&entry.value), entry.mark, format!("the header `{}`", entry.key), report);
    let prefix = fields.text("prefix", report).unwrap_or_default().to_string();
    let (env, file) = (fields.text("env", report), fields.text("file", report));
    fields.finish(report);
    let value = match (env, file) {
        (Some(env), None) => Value::Env(is_name(env, entry.value.mark, report).then(|| env.to_string())?),
        (None, Some(file)) => Value::File(relative(file, folder)),
        _ => {
            let message = format!("the header `{}` is a text, `{{env: NAME}}` or `{{file: PATH}}`", entry.key);
            report.error(entry.value.mark, message);
            return None;
        }
    };
    Some(Header { name, prefix, value })
}

fn relative(path: &str, folder: &Path) -> PathBuf {
    folder.join(path)
}

/// A number of bytes, or a text such as `64KiB`.
fn bytes(entry: &Entry, report: &mut Report<'_>) -> Option<u64> {
    let read = match &entry.value.content {
        Content::Number(number) => number.as_u64(),
        Content::Text(text) => pelton_core::byte_size::parse(text),
        _ => None,
    };
    if read.is_none() {
        report.error(entry.value.mark, format!("`{}` must be a number of bytes, such as 1048576 or 1MiB", entry.key));
    }
    read
}

fn parsed<T>(read: Result<T, String>, mark: Mark, report: &mut Report<'_>) -> Option<T> {
    read.map_err(|message| report.error(mark, message)).ok()
}
