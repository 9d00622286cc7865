//! What a plugin may do besides computing: `grants` of its provider. Nothing by default.
//!
//! - [`Grants`]: what a pipeline grants; [`Kind`]: by which import a plugin asks for it.
//! - [`missing`]: what a plugin imports and is not granted, and the lines that would grant it.
//! - [`http`]: which requests a grant allows, and which addresses they may reach.
//!
//! Here are only the rules; whoever reads clocks, environment and network asks them first.

pub mod http;

use std::fmt;
use std::path::PathBuf;

pub use http::HttpGrant;

/// What is granted to one plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Requests that the host makes for it.
    pub http: Vec<HttpGrant>,
    /// Names of environment values of the host that it may read.
    pub env: Vec<String>,
    /// The time of day.
    pub wall_clock: bool,
    /// Time that has passed.
    pub monotonic_clock: bool,
    /// Random bytes.
    pub random: Option<Random>,
    /// It may import WASI, of which it gets what stands here and denials.
    pub wasi: bool,
}

/// Where random bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Random {
    /// The system's.
    System,
    /// The same bytes for each instance that is opened, so that a replay sees the same.
    Seed(u64),
}

/// A value that the pipeline file names, and that only the host reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// As it is written.
    Text(String),
    /// Of the host's environment.
    Env(String),
    /// The content of a file, without line ends at its end.
    File(PathBuf),
}

/// What can be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`Grants::http`]
    Http,
    /// [`Grants::env`]
    Env,
    /// [`Grants::wall_clock`]
    WallClock,
    /// [`Grants::monotonic_clock`]
    MonotonicClock,
    /// [`Grants::random`]
    Random,
    /// [`Grants::wasi`]
    Wasi,
}

/// Packages of WASI that language runtimes import, and that there are stubs for.
const WASI: [&str; 6] = ["cli", "clocks", "filesystem", "io", "random", "sockets"];

impl Grants {
    /// Whether there is anything of a kind.
    pub fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Http => !self.http.is_empty(),
            Kind::Env => !self.env.is_empty(),
            Kind::WallClock => self.wall_clock,
            Kind::MonotonicClock => self.monotonic_clock,
            Kind::Random => self.random.is_some(),
            Kind::Wasi => self.wasi,
        }
    }

    /// Kinds of which there is something.
    pub fn kinds(&self) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|kind| self.has(*kind)).collect()
    }
}

impl fmt::Display for Grants {
    /// One line, for differences between two versions of a pipeline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.http.iter().map(HttpGrant::to_string).collect();
        parts.extend(self.env.iter().map(|name| format!("env {name}")));
        let flags = [(Kind::WallClock, self.wall_clock), (Kind::MonotonicClock, self.monotonic_clock), (Kind::Wasi, self.wasi)];
        parts.extend(flags.iter().filter(|(_, granted)| *granted).map(|(kind, _)| kind.to_string()));
        match self.random {
            Some(Random::System) => parts.push("random".into()),
            Some(Random::Seed(seed)) => parts.push(format!("random with the seed {seed}")),
            None => {}
        }
        f.write_str(&if parts.is_empty() { "nothing".into() } else { parts.join("; ") })
    }
}

impl fmt::Display for Value {
    /// Where it comes from, not what it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => write!(f, "`{text}`"),
            Value::Env(name) => write!(f, "env {name}"),
            Value::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

impl Kind {
    /// In the order of the reference.
    pub const ALL: [Kind; 6] = [Kind::Http, Kind::Env, Kind::WallClock, Kind::MonotonicClock, Kind::Random, Kind::Wasi];

    /// What the import of an interface needs, such as `pelton:plugin/http@0.1.0` or `wasi:cli/stdout@0.2.6`; `None`: no grant gives it.
    pub fn of_import(import: &str) -> Option<Kind> {
        let interface = import.split('@').next().unwrap_or(import);
        if let Some(rest) = interface.strip_prefix("wasi:") {
            let (package, _) = rest.split_once('/')?;
            return WASI.contains(&package).then_some(Kind::Wasi);
        }
        match interface.strip_prefix("pelton:plugin/")? {
            "http" => Some(Kind::Http),
            "env" => Some(Kind::Env),
            "wall-clock" => Some(Kind::WallClock),
            "monotonic-clock" => Some(Kind::MonotonicClock),
            "random" => Some(Kind::Random),
            _ => None,
        }
    }

    /// As a policy names it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Http => "http",
            Kind::Env => "env",
            Kind::WallClock => "wall_clock",
            Kind::MonotonicClock => "monotonic_clock",
            Kind::Random => "random",
            Kind::Wasi => "wasi",
        }
    }

    /// Lines below `grants:` that grant it, to be filled in where words are in capitals.
    fn lines(self) -> &'static str {
        match self {
            Kind::Http => "  http:\n    - GET https://HOST/PATH/",
            Kind::Env => "  env: [NAME]",
            Kind::WallClock => "  wall_clock: true",
            Kind::MonotonicClock => "  monotonic_clock: true",
            Kind::Random => "  random: true",
            Kind::Wasi => "  wasi: true",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The YAML that grants kinds, with the examples that have to be filled in.
pub fn yaml(kinds: &[Kind]) -> String {
    let mut kinds = kinds.to_vec();
    kinds.sort();
    kinds.dedup();
    kinds.iter().fold("grants:".to_string(), |text, kind| text + "\n" + kind.lines())
}

/// What a plugin imports and is not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Names of the imports.
    pub imports: Vec<String>,
    /// The YAML that would grant them.
    pub yaml: String,
}

/// What of these imports is not granted; `None` if all is. Imports that no grant gives are none of its business.
pub fn missing<'i>(imports: impl IntoIterator<Item = &'i str>, grants: &Grants) -> Option<Missing> {
    let (mut names, mut kinds) = (Vec::new(), Vec::new());
    for import in imports {
        if let Some(kind) = Kind::of_import(import).filter(|kind| !grants.has(*kind)) {
            names.push(import.to_string());
            kinds.push(kind);
        }
    }
    (!names.is_empty()).then(|| Missing { yaml: yaml(&kinds), imports: names })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_granted_by_kind() {
        for (import, kind) in [
            ("pelton:plugin/http@0.1.0", Some(Kind::Http)),
            ("pelton:plugin/wall-clock@0.1.0", Some(Kind::WallClock)),
            ("pelton:plugin/log@0.1.0", None),
            ("wasi:cli/stdout@0.2.6", Some(Kind::Wasi)),
            ("wasi:http/outgoing-handler@0.2.0", None),
            ("wasi:cli", None),
            ("every:thing/http@1.0.0", None),
        ] {
            assert_eq!(Kind::of_import(import), kind, "{import}");
        }
    }

    #[test]
    fn what_is_missing_comes_with_the_lines_that_grant_it() {
        let imports = ["pelton:plugin/log@0.1.0", "pelton:plugin/random@0.1.0", "pelton:plugin/http@0.1.0", "pelton:plugin/env@0.1.0"];
        let granted = Grants { env: vec!["REGION".into()], ..Grants::default() };
        let missing = missing(imports, &granted).expect("two are not granted");
        assert_eq!(missing.imports, ["pelton:plugin/random@0.1.0", "pelton:plugin/http@0.1.0"]);
        assert_eq!(missing.yaml, "grants:\n  http:\n    - GET https://HOST/PATH/\n  random: true");
        assert_eq!(super::missing(["pelton:plugin/log@0.1.0", "pelton:plugin/env@0.1.0"], &granted), None);
        assert_eq!(granted.kinds(), [Kind::Env]);
    }
}
