//! Keys of `WriteToPostgres`: Beam's, and those that say how rows get into the table.

use super::address::{Address, PROPERTIES};
use crate::secret::has_secret;
use crate::settings::Settings;
use pelton_core::catalog::{ConfigFault, KeySpec, check_keys};
use serde_json::Value;

/// Rows of a transaction where there are no checkpoints; beyond this a larger one saves little.
const DEFAULT_BATCH_SIZE: u64 = 10_000;
const MAX_BATCH_SIZE: u64 = 1_000_000;
/// PostgreSQL cuts longer names in silence.
const MAX_NAME_BYTES: usize = 63;

/// A checked config.
#[derive(Clone, Debug)]
pub struct WriteConfig {
    /// Server, database, user.
    pub address: Address,
    /// Schema of the table; `None`: the first in the user's search path that has the table.
    pub schema: Option<String>,
    /// Its name.
    pub table: String,
    /// `mode: upsert` and `key`.
    pub key: Option<Vec<String>>,
    /// `create: if_missing`.
    pub create: bool,
    /// Rows of a transaction where there are no checkpoints.
    pub batch_size: u64,
}

const fn required(name: &'static str, doc: &'static str) -> KeySpec {
    KeySpec { name, required: true, doc }
}

const fn optional(name: &'static str, doc: &'static str) -> KeySpec {
    KeySpec { name, required: false, doc }
}

/// Keys of `WriteToPostgres`.
pub const WRITE_KEYS: &[KeySpec] = &[
    required("url", "The database: `postgresql://HOST:PORT/DATABASE`, or the same with `jdbc:` before it."),
    required("table", "The table to write to, without its schema; names are taken as they are written, upper and lower case."),
    optional("schema", "Schema of the table (default: the first in the user's search path that has the table)."),
    optional("username", "User to connect as."),
    optional("password", "The password; write a reference, `${secret:env:NAME}` or `${secret:file:PATH}`."),
    optional(
        "connection_properties",
        "`NAME=VALUE;…` or a mapping: `sslmode` (`disable`, `prefer`, `require`, `verify-ca`, `verify-full`; default `prefer`), `sslrootcert`, `sslcert`, `sslkey` (PEM files), `connect_timeout` (seconds, default 10), `application_name`, `options`.",
    ),
    optional("connection_init_sql", "Statements that each new connection runs first, a list."),
    optional(
        "mode",
        "`append` (default): each row is added. `upsert`: the table has one row a key; the column `row_kind` says what a row does to it.",
    ),
    optional("key", "Columns that tell rows apart, with `mode: upsert`; the table needs a primary key or unique index of exactly these."),
    optional("create", "`never` (default) or `if_missing`: a table that is not there is created from the columns of the rows."),
    optional("batch_size", "Rows of a transaction where the pipeline takes no checkpoints (default 10000)."),
];

/// All faults of a config.
pub fn check_write(config: &Value) -> Vec<ConfigFault> {
    let mut faults = check_keys(config, WRITE_KEYS);
    if config.get("query").is_some() {
        let help = "name the table with `table`; `mode: upsert` with `key` replaces rows";
        faults.retain(|fault| fault.path != ["query"]);
        faults.push(ConfigFault::at(&["query"], "statements of one's own cannot be written exactly once").help(help));
    }
    let mut settings = Settings::new(config);
    read(&mut settings);
    faults.extend(settings.into_faults());
    faults
}

/// The values; they count only when there are no faults.
pub fn read(settings: &mut Settings<'_>) -> WriteConfig {
    let key = columns(settings, "key");
    let upsert = settings.choice("mode", &[("append", false), ("upsert", true)]).unwrap_or(false);
    match (&key, upsert) {
        (None, true) => settings.fault("mode", "`mode: upsert` needs `key`", "name the columns that tell rows apart: `key: [id]`"),
        (Some(_), false) => settings.fault("key", "`key` has no effect without `mode: upsert`", "add `mode: upsert`, or leave the key out"),
        _ => {}
    }
    WriteConfig {
        schema: name(settings, "schema"),
        table: name(settings, "table").unwrap_or_default(),
        key: key.filter(|_| upsert),
        create: settings.choice("create", &[("never", false), ("if_missing", true)]).unwrap_or(false),
        batch_size: settings.integer("batch_size", 1..=MAX_BATCH_SIZE).unwrap_or(DEFAULT_BATCH_SIZE),
        address: address(settings),
    }
}

fn name(settings: &mut Settings<'_>, key: &str) -> Option<String> {
    let name = settings.string(key)?;
    if has_secret(&name) {
        return Some(name);
    }
    if name.len() > MAX_NAME_BYTES || name.contains('\0') {
        settings.fault(key, format!("`{name}` cannot be a name in PostgreSQL"), format!("a name has at most {MAX_NAME_BYTES} bytes"));
    } else if key == "table" && settings.get("schema").is_none() && name.contains('.') {
        let (schema, table) = name.split_once('.').unwrap_or_default();
        settings.fault(key, format!("`{name}` names a schema too"), format!("write `schema: {schema}` and `table: {table}`"));
    }
    Some(name)
}

fn columns(settings: &mut Settings<'_>, key: &str) -> Option<Vec<String>> {
    let columns: Option<Vec<String>> = match settings.get(key)? {
        Value::String(column) => Some(vec![column.clone()]),
        Value::Array(columns) => columns.iter().map(|column| column.as_str().map(str::to_string)).collect(),
        _ => None,
    };
    let distinct = |columns: &[String]| columns.iter().enumerate().all(|(at, column)| !columns[..at].contains(column));
    match columns {
        Some(columns) if !columns.is_empty() && distinct(&columns) => Some(columns),
        _ => {
            settings.fault(key, format!("`{key}` must be a list of different columns"), "write `key: [id]`");
            None
        }
    }
}

fn address(settings: &mut Settings<'_>) -> Address {
    let properties = properties(settings);
    let (user, password) = (settings.string("username"), settings.string("password"));
    let init = statements(settings);
    let Some(url) = settings.string("url") else { return Address::default() };
    if has_secret(&url) || properties.iter().any(|(_, value)| has_secret(value)) {
        return Address::default();
    }
    match Address::parse(&url, user, password, &properties, init) {
        Ok(address) => address,
        Err(fault) => {
            settings.fault(fault.key, fault.message, fault.help);
            Address::default()
        }
    }
}

fn statements(settings: &mut Settings<'_>) -> Vec<String> {
    let texts = match settings.get("connection_init_sql") {
        None => Some(Vec::new()),
        Some(Value::Array(statements)) => statements.iter().map(|one| one.as_str().map(str::to_string)).collect(),
        Some(_) => None,
    };
    texts.unwrap_or_else(|| {
        settings.fault("connection_init_sql", "`connection_init_sql` must be a list of statements", "write `[\"SET work_mem = '64MB'\"]`");
        Vec::new()
    })
}

fn properties(settings: &mut Settings<'_>) -> Vec<(String, String)> {
    const KEY: &str = "connection_properties";
    let mut found = Vec::new();
    match settings.get(KEY) {
        None => {}
        Some(Value::String(text)) => {
            for part in text.split(';').filter(|part| !part.trim().is_empty()) {
                match part.split_once('=') {
                    Some((name, value)) => found.push((name.trim().to_string(), value.trim().to_string())),
                    None => settings.fault(KEY, "a property has no `=`", "write `NAME=VALUE;NAME=VALUE`"),
                }
            }
        }
        Some(Value::Object(entries)) => {
            for (name, value) in entries {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
                found.push((name.clone(), text));
            }
        }
        Some(_) => settings.fault(KEY, format!("`{KEY}` must be text or a mapping"), format!("properties: {}", PROPERTIES.join(", "))),
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(config: Value, expected: &[&str]) {
        let faults = check_write(&config);
        let found: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.path.join("."), fault.message)).collect();
        assert_eq!(found, expected, "{config}");
    }

    #[test]
    fn every_fault_is_found_and_no_secret_shown() {
        let base = || json!({"url": "jdbc:postgresql://localhost:5432/shop", "table": "orders"});
        check(base(), &[]);
        for (key, value, expected) in [
            ("url", json!("mysql://u:hunter2@h/d"), "url: the URL is not one of PostgreSQL"),
            ("url", json!("postgresql://u:hunter2@h:port/d"), "url: the URL cannot be read"),
            ("url", json!("postgresql://h/d?sslmod=require"), "url: unknown property `sslmod`"),
            ("url", json!("postgresql://h"), "url: the URL names no database"),
            ("table", json!("shop.orders"), "table: `shop.orders` names a schema too"),
            ("mode", json!("upsert"), "mode: `mode: upsert` needs `key`"),
            ("key", json!(["id"]), "key: `key` has no effect without `mode: upsert`"),
            ("create", json!("always"), "create: `always` is no value of `create`"),
            ("connection_properties", json!("sslmode=loud"), "connection_properties: `sslmode` cannot be `loud`"),
            ("connection_properties", json!("ssl"), "connection_properties: a property has no `=`"),
            ("query", json!("INSERT …"), "query: statements of one's own cannot be written exactly once"),
            ("tabel", json!("x"), "tabel: unknown key `tabel`"),
        ] {
            let mut config = base();
            config[key] = value;
            check(config.clone(), &[expected]);
            assert!(!format!("{:?}", check_write(&config)).contains("hunter2"));
        }
        check(json!({"url": "${secret:env:URL}", "table": "t", "mode": "upsert", "key": "id", "password": "${secret:env:P}"}), &[]);
    }
}
