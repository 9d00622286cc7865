//! Commands that ask a host (`pelton serve`).

pub mod change;
pub mod deploy;
pub mod list;
pub mod logs;
pub mod serve;
pub mod status;
pub mod token;
pub mod top;

use anyhow::{Context, Result};
use pelton_server::access::default_folder;
use pelton_server::client::{Address, Client};
use std::path::PathBuf;

/// Where the host is if nobody says.
const HOST: &str = "PELTON_HOST";
/// The token for it.
const TOKEN: &str = "PELTON_TOKEN";

/// Which host is asked.
#[derive(Clone, Debug, clap::Args)]
pub struct HostArguments {
    /// The host: a URL, the path of its socket, or its data folder. Default: PELTON_HOST, else the socket of `pelton serve` without --data.
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// A file with the token; default: PELTON_TOKEN. On the socket none is needed.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A PEM file with who has signed the host's certificate, if the system does not know them.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl HostArguments {
    /// Asks that host.
    pub fn client(&self) -> Result<Client> {
        let named = self.host.clone().or_else(|| std::env::var(HOST).ok());
        let address = match named {
            Some(text) => Address::parse(&text).map_err(anyhow::Error::msg)?,
            None => Address::Socket(default_folder().join("pelton.sock")),
        };
        let token = match &self.token_file {
            Some(path) => Some(
                std::fs::read_to_string(path).with_context(|| format!("cannot read the token in {}", path.display()))?.trim().to_string(),
            ),
            None => std::env::var(TOKEN).ok(),
        };
        Client::new(address, token, self.ca.as_deref()).map_err(anyhow::Error::msg)
    }
}

/// A path of the API about a pipeline. The host says what is wrong with a name; here it only must not become another path.
pub fn of(name: &str, rest: &str) -> String {
    let escaped: String = name
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            // Dots alone would be a step to another folder.
            b'.' if name.bytes().any(|byte| byte != b'.') => ".".into(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    format!("/v1/pipelines/{escaped}{rest}")
}

/// A table for people: columns as wide as they need be.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_part_of_a_path() {
        for (name, path) in [("a.b", "a.b"), ("..", "%2E%2E"), ("a/b", "a%2Fb"), ("a?b#c", "a%3Fb%23c"), ("ä", "%C3%A4")] {
            assert_eq!(of(name, "/logs"), format!("/v1/pipelines/{path}/logs"));
        }
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".into(), "b".into()], vec!["ccc".into(), "d".into()]];
        assert_eq!(table(&rows), "a    b\nccc  d\n");
    }
}
