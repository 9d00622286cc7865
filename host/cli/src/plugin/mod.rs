//! `pelton plugin new|build|inspect`: from an empty folder to a component that a pipeline can name.
//!
//! - [`new`]: a template crate.
//! - [`build`]: source to component; [`toolchain`] finds the compiler, [`sdk`] the SDK's sources.
//! - [`inspect`]: what a component says about itself.

pub mod build;
pub mod inspect;
pub mod new;
pub mod sdk;
pub mod toolchain;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

#[derive(Debug, clap::Subcommand)]
pub enum PluginCommand {
    /// Make a plugin crate from a template.
    #[command(
        after_help = "Example:\n  pelton plugin new keep-errors --lang rust\n  cd keep-errors && cargo test && pelton plugin build ."
    )]
    New {
        /// Name of the plugin, in kebab-case.
        name: String,
        /// Language of the plugin.
        #[arg(long, value_enum, default_value = "rust")]
        lang: new::Language,
        /// Folder to make it in; by default ./NAME.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Compile a plugin crate to a WebAssembly component, DIR/target/NAME.wasm.
    #[command(after_help = "Example:\n  pelton plugin build plugins/parse-log")]
    Build {
        /// Folder of the crate.
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Do nothing when the component is newer than its sources.
        #[arg(long)]
        if_stale: bool,
        /// Cargo features of the crate.
        #[arg(long, value_delimiter = ',')]
        features: Vec<String>,
    },
    /// Print what a component says about itself: transforms, config, columns, outputs.
    #[command(after_help = "Example:\n  pelton plugin inspect plugins/parse-log/target/parse-log.wasm --output json")]
    Inspect {
        /// The component.
        file: PathBuf,
        #[arg(long, value_enum, default_value = "text")]
        output: inspect::Format,
    },
}

pub fn run(command: PluginCommand) -> Result<ExitCode> {
    match command {
        PluginCommand::New { name, lang, dir } => new::create(&name, lang, dir.as_deref())?,
        PluginCommand::Build { dir, if_stale, features } => {
            let options = build::Options { features, ..build::Options::default() };
            let (built, fresh) = if if_stale { build::build_if_stale(&dir, &options)? } else { (build::build(&dir, &options)?, true) };
            let state = if fresh { "built" } else { "up to date" };
            println!("{state}: {} ({} bytes, {})", built.component.display(), built.size, built.digest);
        }
        PluginCommand::Inspect { file, output } => inspect::print(&file, output)?,
    }
    Ok(ExitCode::SUCCESS)
}
