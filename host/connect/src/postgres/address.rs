//! Where a database is and how to talk to it: URL, user and properties, in libpq's and JDBC's words.
//!
//! Invariant: nothing that is shown, `Debug` included, holds the password.

use crate::ConnectError;
use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslVerifyMode};
use pelton_core::catalog::nearest;
use postgres_openssl::MakeTlsConnector;
use std::fmt;
use std::time::Duration;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// What `connection_properties` and the URL's query may name.
pub const PROPERTIES: &[&str] = &["sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "application_name", "options"];
/// JDBC's words for some of them.
const JDBC: &[(&str, &str)] = &[("connectTimeout", "connect_timeout"), ("ApplicationName", "application_name")];
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is given up when the other side is silent for this long: what it was asked last is then unknown.
const SILENCE: Duration = Duration::from_secs(30);
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Everything that a connection needs.
#[derive(Clone, Default)]
pub struct Address {
    config: Config,
    mode: Mode,
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
    /// Statements of the user that each connection begins with.
    pub init: Vec<String>,
}

/// `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Disable,
    #[default]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

const MODES: &[(&str, Mode)] = &[
    ("disable", Mode::Disable),
    ("prefer", Mode::Prefer),
    ("require", Mode::Require),
    ("verify-ca", Mode::VerifyCa),
    ("verify-full", Mode::VerifyFull),
];

/// What is wrong with an address.
#[derive(Debug)]
pub struct AddressFault {
    /// The config's key.
    pub key: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl AddressFault {
    fn new(key: &'static str, message: impl Into<String>, help: impl Into<String>) -> AddressFault {
        AddressFault { key, message: message.into(), help: help.into() }
    }
}

const EXAMPLE: &str = "write `postgresql://HOST:5432/DATABASE`, user and password in `username` and `password`";

impl Address {
    /// Puts the parts together.
    pub fn parse(
        url: &str,
        user: Option<String>,
        password: Option<String>,
        properties: &[(String, String)],
        init: Vec<String>,
    ) -> Result<Address, AddressFault> {
        let plain = url.strip_prefix("jdbc:").unwrap_or(url);
        if !plain.starts_with("postgresql://") && !plain.starts_with("postgres://") {
            return Err(AddressFault::new("url", "the URL is not one of PostgreSQL", EXAMPLE));
        }
        let (base, query) = plain.split_once('?').unwrap_or((plain, ""));
        // The parser's own message may show what it met, such as a password.
        let config: Config = base.parse().map_err(|_| AddressFault::new("url", "the URL cannot be read", EXAMPLE))?;
        let mut address = Address { config, init, ..Address::default() };
        address.config.connect_timeout(DEFAULT_TIMEOUT).application_name("pelton");
        address.config.tcp_user_timeout(SILENCE).keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE).keepalives_retries(2);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "user" | "password" => {
                    return Err(AddressFault::new("url", format!("`{name}` stands in the URL's query"), EXAMPLE));
                }
                _ => address.set("url", name, &unescape(value))?,
            }
        }
        for (name, value) in properties {
            address.set("connection_properties", name, value)?;
        }
        if let Some(user) = user {
            address.config.user(user);
        }
        if let Some(password) = password {
            address.config.password(password);
        }
        match address.config.get_dbname() {
            None | Some("") => return Err(AddressFault::new("url", "the URL names no database", EXAMPLE)),
            Some(_) if address.config.get_hosts().is_empty() => return Err(AddressFault::new("url", "the URL names no host", EXAMPLE)),
            Some(_) => {}
        }
        if address.config.get_hosts().len() > 1 {
            address.config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        address.config.ssl_mode(match address.mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            _ => SslMode::Require,
        });
        Ok(address)
    }

    fn set(&mut self, key: &'static str, name: &str, value: &str) -> Result<(), AddressFault> {
        let name = JDBC.iter().find(|(theirs, _)| *theirs == name).map_or(name, |(_, ours)| *ours);
        let wrong = |help: String| AddressFault::new(key, format!("`{name}` cannot be `{value}`"), help);
        match name {
            "sslmode" => {
                let found = MODES.iter().find(|(mode, _)| *mode == value);
                let names: Vec<&str> = MODES.iter().map(|(mode, _)| *mode).collect();
                self.mode = found.ok_or_else(|| wrong(format!("one of {}", names.join(", "))))?.1;
            }
            "sslrootcert" => self.root = Some(value.into()),
            "sslcert" => self.certificate = Some(value.into()),
            "sslkey" => self.key = Some(value.into()),
            "connect_timeout" => {
                let seconds = value.parse().ok().filter(|seconds| *seconds > 0);
                self.config.connect_timeout(Duration::from_secs(seconds.ok_or_else(|| wrong("a number of seconds".into()))?));
            }
            "application_name" => {
                self.config.application_name(value);
            }
            "options" => {
                self.config.options(value);
            }
            other => {
                let help = match nearest(other, PROPERTIES.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("properties: {}", PROPERTIES.join(", ")),
                };
                return Err(AddressFault::new(key, format!("unknown property `{other}`"), help));
            }
        }
        Ok(())
    }

    /// For the client.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The user's name, for messages.
    pub fn user(&self) -> &str {
        self.config.get_user().unwrap_or("of this process")
    }

    /// The database's name, for messages.
    pub fn database(&self) -> &str {
        self.config.get_dbname().unwrap_or_default()
    }

    /// What two sinks must have in common to be written in one transaction.
    pub fn same_session(&self, other: &Address) -> bool {
        self.to_string() == other.to_string() && self.user() == other.user() && self.init == other.init
    }

    /// How connections are encrypted.
    pub fn tls(&self) -> Result<MakeTlsConnector, ConnectError> {
        let refused = |what: &str, path: &str, error: openssl::error::ErrorStack| {
            ConnectError::user(format!("`{what}` {path} cannot be used: {error}"), "name a file of PEM text")
        };
        let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(ConnectError::internal)?;
        match &self.root {
            Some(path) => builder.set_ca_file(path).map_err(|error| refused("sslrootcert", path, error))?,
            None => {
                // OpenSSL is built into the binary and does not know where this system keeps its authorities.
                let found = openssl_probe::probe();
                builder.load_verify_locations(found.cert_file.as_deref(), found.cert_dir.first().map(|dir| dir.as_path())).ok();
            }
        }
        if let Some(path) = &self.certificate {
            builder.set_certificate_chain_file(path).map_err(|error| refused("sslcert", path, error))?;
        }
        if let Some(path) = &self.key {
            builder.set_private_key_file(path, SslFiletype::PEM).map_err(|error| refused("sslkey", path, error))?;
        }
        // As libpq: `require` checks the authority where one is named, and only `verify-full` the host's name.
        let verifies = self.mode >= Mode::VerifyCa || (self.mode == Mode::Require && self.root.is_some());
        builder.set_verify(if verifies { SslVerifyMode::PEER } else { SslVerifyMode::NONE });
        let mut connector = MakeTlsConnector::new(builder.build());
        let checks_name = self.mode == Mode::VerifyFull;
        connector.set_callback(move |session, _| {
            session.set_verify_hostname(checks_name);
            Ok(())
        });
        Ok(connector)
    }
}

/// `localhost:5432/shop`.
impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.config.get_ports();
        for (index, host) in self.config.get_hosts().iter().enumerate() {
            let name = match host {
                Host::Tcp(name) => name.clone(),
                #[cfg(unix)]
                Host::Unix(path) => path.display().to_string(),
            };
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            write!(formatter, "{}{name}:{port}", if index > 0 { "," } else { "" })?;
        }
        write!(formatter, "/{}", self.database())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

/// `%2F` and the like; what is no escape stays.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'%').then(|| after.get(..2)).flatten();
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
