//! How tuples get into the table.
//!
//! Rows that are added are copied into the table. For an upsert they are copied into a temporary table; the last row of each key is
//! picked there, then deletes are done and the rest is inserted or updated.
//!
//! Which row of a key is the last: the one that came last. Where the table has the columns [`WINDOW`] and [`PANE`], the one of the latest window and in it of the
//! highest pane, also against the row that the table holds: a late pane of an older window then changes nothing.

use super::encode::{FOOTER, HEADER};
use super::outbox::Outgoing;
use super::session::Session;
use crate::ConnectError;
use bytes::Bytes;
use futures::SinkExt;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::Path;
use tokio::runtime::Handle;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// End of the window of the row that a table holds.
pub const WINDOW: &str = "pelton_window";
/// Index of its pane.
pub const PANE: &str = "pelton_pane";
/// Order of rows in the temporary table, and whether they delete.
const ROW: &str = "pelton_row";
const REMOVES: &str = "pelton_removes";
/// Names that columns of an upsert's rows cannot have.
pub const RESERVED: [&str; 4] = [WINDOW, PANE, ROW, REMOVES];
/// Bytes of a message of COPY.
const CHUNK: usize = 256 * 1024;

/// Where tuples go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Schema and name, quoted.
    pub table: String,
    /// Columns of a tuple in their order. An upsert's tuples have four more: row, removes, window, pane.
    pub columns: Vec<String>,
    /// Rows replace each other.
    pub upsert: Option<Upsert>,
}

/// By what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upsert {
    /// Columns that tell rows apart.
    pub key: Vec<String>,
    /// The table has [`WINDOW`] and [`PANE`].
    pub panes: bool,
}

/// Tuples, without COPY's header.
pub enum Tuples<'a> {
    /// In memory.
    Memory(&'a [u8]),
    /// In a file of the outbox.
    File(&'a Path, &'a Outgoing),
}

impl Load {
    /// Writes tuples within the session's open transaction.
    pub async fn apply(&self, session: &Session, tuples: Tuples<'_>, removes: bool, io: &Handle) -> Result<(), ConnectError> {
        let Some(upsert) = &self.upsert else { return self.copy(session, &self.table, tuples, io).await };
        let staging = self.staging();
        let doing = format!("write to the table {}", self.table);
        session.run(&doing, &self.create_staging(&staging)).await?;
        self.copy(session, &staging, tuples, io).await?;
        if removes {
            session.run(&doing, &self.delete(upsert, &staging)).await?;
        }
        session.run(&doing, &self.insert(upsert, &staging)).await?;
        // Another file may follow in the same transaction.
        session.run(&doing, &format!("TRUNCATE {staging}")).await
    }

    async fn copy(&self, session: &Session, into: &str, tuples: Tuples<'_>, io: &Handle) -> Result<(), ConnectError> {
        let doing = format!("write to the table {}", self.table);
        let columns = match self.upsert {
            None => list(&self.columns, ""),
            Some(_) => format!("{}, {}", list(&self.columns, ""), list(&RESERVED_IN_ORDER, "")),
        };
        let statement = format!("COPY {into} ({columns}) FROM STDIN (FORMAT binary)");
        let failed = |error: tokio_postgres::Error| session.error(&doing, &error);
        let sink = session.client().copy_in::<_, Bytes>(&statement).await.map_err(failed)?;
        let mut sink = std::pin::pin!(sink);
        let mut sent = sink.send(Bytes::from_static(HEADER)).await;
        match tuples {
            Tuples::Memory(bytes) => {
                for chunk in bytes.chunks(CHUNK) {
                    if sent.is_ok() {
                        sent = sink.send(Bytes::copy_from_slice(chunk)).await;
                    }
                }
            }
            Tuples::File(path, outgoing) => {
                let mut reading = Reading::open(path, outgoing, io).await?;
                while sent.is_ok()
                    && let Some(chunk) = reading.next(io).await?
                {
                    sent = sink.send(chunk).await;
                }
            }
        }
        if sent.is_ok() {
            sent = sink.send(Bytes::from_static(FOOTER)).await;
        }
        // Where sending failed, the end says why.
        sink.finish().await.map_err(failed)?;
        sent.map_err(failed)
    }

    /// One name for one layout, so that a session which serves several sinks, or lives longer than a table's layout, never mixes them up.
    fn staging(&self) -> String {
        let layout = format!("{} {}", self.table, list(&self.columns, ""));
        format!("pg_temp.pelton_load_{:016x}", xxh3_64(layout.as_bytes()))
    }

    fn create_staging(&self, staging: &str) -> String {
        // It lives as long as the session: one a transaction would leave dead rows in the server's catalogue for each epoch.
        format!(
            "CREATE TEMPORARY TABLE IF NOT EXISTS {} ON COMMIT DELETE ROWS AS SELECT {}, 0::bigint AS {ROW}, false AS {REMOVES}, NULL::timestamptz AS {WINDOW}, 0::bigint AS {PANE} FROM {} WITH NO DATA",
            staging.trim_start_matches("pg_temp."),
            list(&self.columns, ""),
            self.table
        )
    }

    /// The last row of each key.
    fn latest(&self, upsert: &Upsert, staging: &str) -> String {
        let key = list(&upsert.key, "");
        let panes = if upsert.panes { format!("{WINDOW} DESC NULLS LAST, {PANE} DESC NULLS LAST, ") } else { String::new() };
        format!("SELECT DISTINCT ON ({key}) * FROM {staging} ORDER BY {key}, {panes}{ROW} DESC")
    }

    fn delete(&self, upsert: &Upsert, staging: &str) -> String {
        let same: Vec<String> = upsert.key.iter().map(|column| format!("t.{0} = s.{0}", quote(column))).collect();
        let newer = if upsert.panes { format!(" AND {}", newer("s")) } else { String::new() };
        let latest = self.latest(upsert, staging);
        format!("DELETE FROM {} AS t USING ({latest}) AS s WHERE s.{REMOVES} AND {}{newer}", self.table, same.join(" AND "))
    }

    fn insert(&self, upsert: &Upsert, staging: &str) -> String {
        let mut columns: Vec<&str> = self.columns.iter().map(String::as_str).collect();
        if upsert.panes {
            columns.extend([WINDOW, PANE]);
        }
        let others = columns.iter().filter(|column| !upsert.key.iter().any(|key| key == *column));
        let changes: Vec<String> = others.map(|column| format!("{0} = EXCLUDED.{0}", quote(column))).collect();
        let action = match (changes.is_empty(), upsert.panes) {
            (true, _) => "NOTHING".to_string(),
            (false, false) => format!("UPDATE SET {}", changes.join(", ")),
            (false, true) => format!("UPDATE SET {} WHERE {}", changes.join(", "), newer("EXCLUDED")),
        };
        let (all, latest) = (list(&columns, ""), self.latest(upsert, staging));
        format!(
            "INSERT INTO {} AS t ({all}) SELECT {} FROM ({latest}) AS s WHERE NOT s.{REMOVES} ON CONFLICT ({}) DO {action}",
            self.table,
            list(&columns, "s."),
            list(&upsert.key, "")
        )
    }
}

/// In the order of a tuple.
const RESERVED_IN_ORDER: [&str; 4] = [ROW, REMOVES, WINDOW, PANE];

/// Whether a row is of no earlier pane than the table's; a row without a pane is taken.
fn newer(row: &str) -> String {
    format!(
        "(t.{WINDOW} IS NULL OR {row}.{WINDOW} IS NULL OR (t.{WINDOW}, COALESCE(t.{PANE}, 0)) <= ({row}.{WINDOW}, COALESCE({row}.{PANE}, 0)))"
    )
}

/// A name as it is written.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn list(columns: &[impl AsRef<str>], before: &str) -> String {
    columns.iter().map(|column| format!("{before}{}", quote(column.as_ref()))).collect::<Vec<_>>().join(", ")
}

/// A file of the outbox, checked as it is read.
struct Reading {
    file: Option<std::fs::File>,
    digest: Xxh3,
    left: u64,
    checksum: u64,
    name: String,
}

impl Reading {
    async fn open(path: &Path, outgoing: &Outgoing, io: &Handle) -> Result<Reading, ConnectError> {
        let (path, outgoing) = (path.to_path_buf(), outgoing.clone());
        let opening = io.spawn_blocking(move || {
            let file = std::fs::File::open(&path).map_err(|error| ConnectError::of_file("read the outbox file", &path, &error))?;
            let name = path.display().to_string();
            let found = file.metadata().map_err(|error| ConnectError::of_file("read the outbox file", &path, &error))?.len();
            match found == outgoing.bytes {
                true => Ok(Reading { file: Some(file), digest: Xxh3::new(), left: found, checksum: outgoing.checksum, name }),
                false => Err(damaged(&name, &format!("it has {found} bytes instead of {}", outgoing.bytes))),
            }
        });
        opening.await.map_err(ConnectError::internal)?
    }

    /// The next bytes. The last come only when all were right.
    async fn next(&mut self, io: &Handle) -> Result<Option<Bytes>, ConnectError> {
        let Some(mut file) = self.file.take().filter(|_| self.left > 0) else { return Ok(None) };
        let length = self.left.min(CHUNK as u64) as usize;
        let reading = io.spawn_blocking(move || {
            let mut chunk = vec![0; length];
            file.read_exact(&mut chunk).map(|()| (file, chunk))
        });
        let (file, chunk) = reading.await.map_err(ConnectError::internal)?.map_err(|error| damaged(&self.name, &error.to_string()))?;
        self.file = Some(file);
        self.digest.update(&chunk);
        self.left -= length as u64;
        if self.left == 0 && self.digest.digest() != self.checksum {
            return Err(damaged(&self.name, "its checksum is wrong"));
        }
        Ok(Some(chunk.into()))
    }
}

fn damaged(name: &str, reason: &str) -> ConnectError {
    ConnectError::user(
        format!("the outbox file {name} cannot be applied: {reason}"),
        "its rows are not in the table yet: restore the file from a copy, or begin again from an earlier savepoint under a new name",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_keys_are_not_updated() {
        let load = Load {
            table: "\"public\".\"t\"".into(),
            columns: vec!["id".into(), "a\"b".into()],
            upsert: Some(Upsert { key: vec!["id".into()], panes: false }),
        };
        let statement = load.insert(load.upsert.as_ref().unwrap(), "s");
        assert!(statement.ends_with("ON CONFLICT (\"id\") DO UPDATE SET \"a\"\"b\" = EXCLUDED.\"a\"\"b\""), "{statement}");
        let keys = Load { columns: vec!["id".into()], ..load };
        assert!(keys.insert(keys.upsert.as_ref().unwrap(), "s").ends_with("DO NOTHING"));
    }
}
