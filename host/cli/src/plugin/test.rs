//! `pelton plugin test`: a plugin on cases that are written or recorded, in the sandbox; and the crate's own tests, natively.

use super::case::{self, Difference};
use super::{build, sdk, toolchain};
use crate::commands::replay;
use crate::commands::run::Output;
use anyhow::{Context, Result, bail};
use pelton_plugin::Plugin;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

/// How files of `pelton replay record` end in a folder of cases.
const RECORDING: &str = "recording";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton plugin test plugins/parse-log\n  pelton plugin test plugins/parse-log --cases plugins/parse-log/cases/good.json --no-native\n\nA case is a JSON object with rows and what they must give; a folder of cases has files NAME.json, and recordings of `pelton replay record` as NAME.recording.\n\nExit codes: 0 all is as it must be, 1 something differs, 2 a case or the plugin is wrong."
)]
pub struct Test {
    /// The crate's folder, which is built with lines in its stack traces, or a component's file.
    plugin: PathBuf,
    /// A folder of cases or one file; by default `cases` in the crate's folder.
    #[arg(long)]
    cases: Option<PathBuf>,
    /// Do not run the crate's own tests.
    #[arg(long)]
    no_native: bool,
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// What became of the crate's own tests.
struct Native {
    well: bool,
    /// Cargo's own lines.
    said: String,
}

pub fn run(test: &Test) -> Result<ExitCode> {
    let plugin = load(&test.plugin)?;
    let place = test.cases.clone().or_else(|| crate_of(&test.plugin).map(|folder| folder.join("cases")).filter(|place| place.exists()));
    let files = place.as_deref().map(|place| case::files(place, &["json", "jsonl", RECORDING])).transpose()?.unwrap_or_default();
    let (recordings, files): (Vec<PathBuf>, Vec<PathBuf>) =
        files.into_iter().partition(|file| file.extension().is_some_and(|ending| ending == RECORDING));
    let native = match test.plugin.is_dir() && !test.no_native {
        true => Some(native(&test.plugin)?),
        false => None,
    };
    if recordings.is_empty() && files.is_empty() && native.is_none() {
        bail!("there are no cases: write some to a folder `cases` beside the crate's Cargo.toml, or name them with --cases");
    }
    let (mut count, mut failed) = (0, 0);
    let mut done = |name: &str, differences: Vec<Difference>| {
        count += 1;
        failed += usize::from(!differences.is_empty());
        show(test.output, name, &differences);
    };
    for file in &files {
        for (name, case) in case::read(file)? {
            done(&name, case.run(&plugin).with_context(|| format!("case {name}"))?);
        }
    }
    for file in &recordings {
        done(&file.display().to_string(), replay::differences(&replay::replayed(file, &plugin)?)?);
    }
    let well = native.as_ref().is_none_or(|native| native.well);
    finish(test.output, count, failed, native.as_ref());
    Ok(if failed == 0 && well { ExitCode::SUCCESS } else { ExitCode::from(crate::PIPELINE_FAILED) })
}

/// A component, or a crate that is built to one.
pub fn load(place: &Path) -> Result<Arc<Plugin>> {
    let file = match place.is_dir() {
        true => {
            build::build(place, &build::Options { lines: build::Lines::Keep, messages: build::Messages::Keep, ..Default::default() })?
                .component
        }
        false => place.to_path_buf(),
    };
    Ok(crate::plugins::engine()?.load(&file)?)
}

/// The crate's folder, of `DIR` or of `DIR/target/NAME.wasm`.
pub fn crate_of(place: &Path) -> Option<PathBuf> {
    let folder = if place.is_dir() { place } else { place.parent()?.parent()? };
    folder.join("Cargo.toml").exists().then(|| folder.to_path_buf())
}

fn native(folder: &Path) -> Result<Native> {
    let toolchain = toolchain::find(&|line| eprintln!("pelton: {line}"))?;
    sdk::patch(folder, &std::fs::read_to_string(folder.join("Cargo.toml"))?)?;
    let for_this_machine = toolchain.environment.iter().filter(|(name, _)| *name != "RUSTFLAGS");
    let output = Command::new(&toolchain.cargo)
        .args(["test", "--color=never", "--target-dir"])
        .arg(build::target_folder()?)
        .current_dir(folder)
        .envs(for_this_machine.map(|(name, value)| (name, value)))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("CARGO_TARGET_DIR")
        .output()
        .with_context(|| format!("starting {}", toolchain.cargo.display()))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let well = output.status.success();
    let results = out.lines().filter(|line| line.starts_with("test ")).collect::<Vec<_>>().join("\n");
    Ok(Native { well, said: if well { results } else { format!("{out}{err}") } })
}

fn show(output: Output, name: &str, differences: &[Difference]) {
    let result = if differences.is_empty() { "ok" } else { "failed" };
    match output {
        Output::Json => println!("{}", json!({"case": name, "result": result, "differences": differences})),
        Output::Text if differences.is_empty() => println!("sandbox {name} ... ok"),
        Output::Text => print!("sandbox {name} ... FAILED\n{}", case::table(differences)),
    }
}

fn finish(output: Output, cases: usize, failed: usize, native: Option<&Native>) {
    if output == Output::Json {
        let native = native.map(|native| json!({"result": if native.well { "ok" } else { "failed" }, "said": native.said}));
        println!("{}", json!({"passed": cases - failed, "failed": failed, "native": native}));
        return;
    }
    for line in native.iter().flat_map(|native| native.said.lines()).filter(|line| !line.starts_with("test result")) {
        println!("native {line}");
    }
    println!("\nsandbox: {} passed, {failed} failed", cases - failed);
    match native {
        Some(native) => println!("native:  {}", if native.well { "cargo test passed" } else { "cargo test FAILED" }),
        None => println!("native:  not run"),
    }
}
