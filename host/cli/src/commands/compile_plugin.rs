//! `pelton compile-plugin`: the child process in which an engine compiles a component. Nobody calls it by hand.

use pelton_plugin::Compiler;
use std::process::ExitCode;
use std::time::Duration;

/// Settings of the machine, not of a pipeline: whoever writes a pipeline must not take more of it.
const MEMORY: &str = "PELTON_COMPILE_MEMORY";
const TIME: &str = "PELTON_COMPILE_TIME";
/// Several times what a component with a whole Python runtime needs.
const DEFAULT_MEMORY: u64 = 4 << 30;
const DEFAULT_TIME: Duration = Duration::from_secs(120);

#[derive(Debug, clap::Args)]
pub struct CompilePlugin {
    #[arg(long)]
    memory: u64,
    #[arg(long)]
    cpu_seconds: u64,
}

pub fn run(command: &CompilePlugin) -> ExitCode {
    ExitCode::from(pelton_plugin::compile_as_child(command.memory, command.cpu_seconds))
}

/// Compiles with this program.
pub fn compiler() -> anyhow::Result<Option<Compiler>> {
    // The binary of a unit test is another program.
    if cfg!(test) {
        return Ok(None);
    }
    let memory = match std::env::var(MEMORY) {
        Ok(text) => {
            pelton_pipeline::options::parse_size(&text).ok_or_else(|| anyhow::anyhow!("{MEMORY}={text}: write a size such as 2GiB"))?
        }
        Err(_) => DEFAULT_MEMORY,
    };
    let time = match std::env::var(TIME) {
        Ok(text) => {
            let time = pelton_core::Duration::parse(&text).map_err(|error| anyhow::anyhow!("{TIME}={text}: {error}"))?;
            Duration::from_micros(u64::try_from(time.micros()).unwrap_or(0))
        }
        Err(_) => DEFAULT_TIME,
    };
    // The file that runs, even if another has been put in its place since.
    let program = "/proc/self/exe".into();
    Ok(Some(Compiler { program, memory, memory_setting: MEMORY, time, time_setting: TIME }))
}
