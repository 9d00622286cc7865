//! `pelton plugin …`: from an empty folder to a component that a pipeline can name.
//!
//! - [`new`]: a template crate.
//! - [`build`]: source to component; [`toolchain`] finds the compiler, [`sdk`] the SDK's sources.
//! - [`origin`]: what it was made from, kept in [`sections`] of it.
//! - [`mod@test`]: a plugin alone on batches that are written or recorded ([`case`]); [`mod@bench`]: how long it takes; [`dev`]: build and swap on save.
//! - [`swap`]: other versions of a running pipeline's transforms.
//! - [`inspect`]: what a component says about itself.
//! - [`sign`]: who vouches for it.
//! - [`publish`]: to registries and from them; [`named`]: a plugin as these commands name it.

pub mod bench;
pub mod build;
pub mod case;
pub mod dev;
pub mod inspect;
pub mod named;
pub mod new;
pub mod origin;
pub mod publish;
pub mod sdk;
pub mod sections;
pub mod sign;
pub mod swap;
pub mod test;
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
        /// Keep the lines of the source, so that stack traces show them; the component is larger, and runs as fast.
        #[arg(long)]
        debug: bool,
    },
    /// Run a plugin on written or recorded batches and compare what it gives.
    Test(test::Test),
    /// Measure a plugin.
    Bench(bench::Bench),
    /// Build and swap a plugin of a running pipeline each time its source is saved.
    Dev(dev::Dev),
    /// Make a transform of a running pipeline another version of itself.
    Swap(swap::Swap),
    /// Give some keys of a running pipeline to a candidate.
    Canary(swap::Canary),
    /// Compare a candidate with what runs, unseen.
    Shadow(swap::Shadow),
    /// Make a transform of a running pipeline what it was before.
    Rollback(swap::Rollback),
    /// List the swaps of a pipeline.
    History(swap::History),
    /// Print what a component says about itself: transforms, config, columns, outputs.
    #[command(
        after_help = "Examples:\n  pelton plugin inspect plugins/parse-log/target/parse-log.wasm --output json\n  pelton plugin inspect oci://registry.example.org/team/parse-log:1.2 --sbom"
    )]
    Inspect {
        /// A crate's folder, a component's file, or a reference to a registry.
        plugin: String,
        /// Print its bill of materials alone, as CycloneDX.
        #[arg(long)]
        sbom: bool,
        #[arg(long, value_enum, default_value = "text")]
        output: inspect::Format,
    },
    /// Make a pair of keys for signatures.
    Keygen(sign::Keygen),
    /// Sign a component.
    Sign(sign::Sign),
    /// Check that a component is signed by a key.
    Verify(sign::Verify),
    /// Publish a component in a registry, under its name and version.
    Push(publish::Push),
    /// Take a component out of a registry into the local store.
    Pull(publish::Pull),
    /// Pin the plugins of a pipeline file to digests.
    Pin(publish::PinPlugins),
    /// List the plugins in the local store.
    List(publish::List),
}

pub fn run(command: PluginCommand) -> Result<ExitCode> {
    match command {
        PluginCommand::New { name, lang, dir } => new::create(&name, lang, dir.as_deref())?,
        PluginCommand::Build { dir, if_stale, features, debug } => {
            let lines = if debug { build::Lines::Keep } else { build::Lines::Drop };
            let options = build::Options { features, lines, ..build::Options::default() };
            let (built, fresh) = if if_stale { build::build_if_stale(&dir, &options)? } else { (build::build(&dir, &options)?, true) };
            let state = if fresh { "built" } else { "up to date" };
            println!("{state}: {} ({} bytes, {})", built.component.display(), built.size, built.digest);
        }
        PluginCommand::Test(test) => return test::run(&test),
        PluginCommand::Bench(bench) => return bench::run(&bench),
        PluginCommand::Dev(dev) => return dev::run(&dev),
        PluginCommand::Swap(swap) => return swap::swap(&swap),
        PluginCommand::Canary(canary) => return swap::canary(&canary),
        PluginCommand::Shadow(shadow) => return swap::shadow(&shadow),
        PluginCommand::Rollback(rollback) => return swap::rollback(&rollback),
        PluginCommand::History(history) => return swap::history(&history),
        PluginCommand::Inspect { plugin, sbom: true, .. } => inspect::print_sbom(&plugin)?,
        PluginCommand::Inspect { plugin, sbom: false, output } => inspect::print(&plugin, output)?,
        PluginCommand::Keygen(keygen) => sign::keygen(&keygen)?,
        PluginCommand::Sign(command) => sign::sign(&command)?,
        PluginCommand::Verify(verify) => sign::verify(&verify)?,
        PluginCommand::Push(push) => publish::push(&push)?,
        PluginCommand::Pull(pull) => publish::pull(&pull)?,
        PluginCommand::Pin(pin) => return publish::pin(&pin),
        PluginCommand::List(list) => publish::list(&list)?,
    }
    Ok(ExitCode::SUCCESS)
}
