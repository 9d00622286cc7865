//! `pelton serve`: a host with a control API.

use crate::plugins;
use anyhow::{Context, Result, anyhow};
use pelton_core::trust::Policy;
use pelton_pipeline::options::trust_file;
use pelton_registry::trust;
use pelton_server::access::default_folder;
use pelton_server::host::HostOptions;
use pelton_server::listen::ListenOptions;
use pelton_server::logs::Logs;
use pelton_server::serve::Server;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton serve --data /var/lib/pelton\n\nThe API listens at the socket `pelton.sock` in the data folder, for its owner only. Pipelines that were running go on. SIGTERM and Ctrl-C stop them with a last checkpoint; the next start goes on with them.\n\nFor other users and machines:\n  pelton token on-call --role operator --tokens tokens\n  pelton serve --listen 0.0.0.0:8431 --tls-cert cert.pem --tls-key key.pem --tokens tokens"
)]
pub struct Serve {
    /// Where pipelines, plugins and state are kept. Default: `~/.local/share/pelton`.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The Unix socket; default: `pelton.sock` in the data folder.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Listen at this address, too. One that is not of the loopback wants TLS and tokens.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    listen: Option<SocketAddr>,
    /// The certificate of the host and those that signed it, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Who may do what: a file that `pelton token` writes.
    #[arg(long, value_name = "FILE", conflicts_with = "no_token")]
    tokens: Option<PathBuf>,
    /// On a loopback address: whoever is on this machine is an admin.
    #[arg(long)]
    no_token: bool,
    /// Whose plugins the host takes: a file of what stands below `options.pelton.trust` in a pipeline.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write ADDRESS:PORT, such as 127.0.0.1:8431".to_string())
}

/// Threads for the API: they wait more than they work.
const THREADS: usize = 2;

pub fn run(command: Serve, logs: Logs) -> Result<ExitCode> {
    let data = command.data.unwrap_or_else(default_folder);
    let options = ListenOptions {
        socket: std::path::absolute(command.socket.unwrap_or_else(|| data.join("pelton.sock"))).context("--socket is no path")?,
        address: command.listen,
        tls: command.tls_cert.zip(command.tls_key),
        tokens: command.tokens,
        no_token: command.no_token,
    };
    let base_dir = std::env::current_dir().context("there is no current directory")?;
    let trust = command.trust.as_deref().map(trust_policy).transpose()?;
    let host = HostOptions { data, base_dir, logs, engine: plugins::engine()?, trust };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .thread_name("api")
        .build()
        .context("cannot start threads")?;
    runtime.block_on(async {
        let server = Server::open(host, &options).await?;
        for place in server.places() {
            println!("listening at {place}");
        }
        let pipelines = server.pipelines();
        if !pipelines.is_empty() {
            println!("pipelines: {}", pipelines.join(", "));
        }
        server.run(signals()).await;
        println!("stopped");
        Ok(ExitCode::SUCCESS)
    })
}

/// Reads a policy and the keys that it names.
fn trust_policy(path: &Path) -> Result<Policy> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the trust policy {}", path.display()))?;
    let policy = trust_file(path, &text).map_err(|findings| anyhow!("{}", pelton_pipeline::render(&findings).trim_end()))?;
    trust::with_keys_in(&policy, path.parent().unwrap_or(Path::new(""))).map_err(anyhow::Error::msg)
}

/// Until somebody ends the host. A second signal ends it at once.
async fn signals() {
    use tokio::signal::unix::{SignalKind, signal};
    /// Ends the process as a shell expects of an interrupted program.
    const INTERRUPTED: i32 = 130;
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    eprintln!("stopping all pipelines with a last checkpoint; once more stops at once");
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::process::exit(INTERRUPTED);
    });
}
