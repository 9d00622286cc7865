//! `pelton token`: makes a token for the API of a host.

use anyhow::Result;
use pelton_server::access::{Role, make_token};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton token on-call --role operator --tokens tokens\n\nThe token is printed once; the file holds its hash. To take a token back remove its line and start the host again."
)]
pub struct Token {
    /// Who has it; stands in the audit log.
    name: String,
    /// viewer: see what runs; operator: run and stop what is there; admin: change what is there.
    #[arg(long, value_enum)]
    role: Rights,
    /// The file of the host's tokens.
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Rights {
    Viewer,
    Operator,
    Admin,
}

pub fn run(command: &Token) -> Result<ExitCode> {
    let role = match command.role {
        Rights::Viewer => Role::Viewer,
        Rights::Operator => Role::Operator,
        Rights::Admin => Role::Admin,
    };
    println!("{}", make_token(&command.tokens, &command.name, role)?);
    Ok(ExitCode::SUCCESS)
}
