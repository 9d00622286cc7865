//! `pelton state`: looks into checkpoints and savepoints.

use anyhow::{Context, Result};
use pelton_runtime::checkpoint::cells::{self, Wanted};
use pelton_runtime::checkpoint::inspect;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Subcommand)]
pub enum StateCommand {
    /// List operators and their states.
    Ls(Ls),
    /// Print the cells of one operator, all or those of a key.
    Get(Get),
    /// Write the cells of one operator to a file.
    Export(Export),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pelton state ls state/orders")]
pub struct Ls {
    /// A state folder, a checkpoint store or a savepoint; a folder or a URL.
    place: String,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton state get state/orders PerUser --key 7a31\n\nCells are JSON objects, one a line: key and item keys as hexadecimal canonical bytes and, where they are texts or numbers, readable; windows; columns; timers. What an operator keeps by partition instead follows, unless a key or a window is named."
)]
pub struct Get {
    /// A state folder, a checkpoint store or a savepoint; a folder or a URL.
    place: String,
    /// The uid of the operator: its full name, unless `uids` says otherwise.
    uid: String,
    /// Only cells whose key begins so, hexadecimal.
    #[arg(long)]
    key: Option<String>,
    /// Only cells of the window that starts here (RFC 3339).
    #[arg(long)]
    window: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pelton state export state/orders PerUser cells.jsonl")]
pub struct Export {
    #[command(flatten)]
    get: Get,
    /// The file: `.parquet` for Parquet, anything else for JSON lines.
    file: PathBuf,
}

pub fn run(command: StateCommand) -> Result<ExitCode> {
    let io = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().context("cannot start threads")?;
    match command {
        StateCommand::Ls(ls) => {
            for line in io.block_on(inspect::list(&ls.place)).map_err(anyhow::Error::msg)? {
                print(&line)?;
            }
        }
        StateCommand::Get(get) => {
            let mut each = |shown| {
                let line = serde_json::to_string(&shown).map_err(|error| error.to_string())?;
                print(&line).map_err(|error| error.to_string())
            };
            io.block_on(cells::show(&get.place, &get.uid, &get.wanted(), &mut each)).map_err(anyhow::Error::msg)?;
        }
        StateCommand::Export(Export { get, file }) => {
            let count = io.block_on(cells::export(&get.place, &get.uid, &get.wanted(), &file)).map_err(anyhow::Error::msg)?;
            println!("{count} cells written to {}", file.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A line for whoever reads; one who reads no further ends the command, and is no error.
fn print(line: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => Ok(written?),
    }
}

impl Get {
    fn wanted(&self) -> Wanted {
        Wanted { key: self.key.clone(), window: self.window.clone() }
    }
}
