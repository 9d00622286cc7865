//! What has to pass before a change goes in.

use crate::step::{Steps, cache, cargo, must, must_fetch, program, works};
use crate::suites;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// All checks; each is tried, also after one has failed.
pub fn run(without_kafka: bool) -> Result<()> {
    let mut steps = Steps::default();
    steps.run("format", || must(cargo().args(["fmt", "--all", "--check"])));
    steps.run("clippy", || must(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])));
    steps.run("licences", check_licences);
    steps.run("advisories", check_advisories);
    steps.run("documentation", || {
        must(cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"))
    });
    steps.run("test", || suites::run(&[], without_kafka));
    steps.finish("ci")
}

fn check_licences() -> Result<()> {
    must(program(cargo_deny()?).args(["check", "licenses", "bans", "sources"]))
}

/// The list of advisories is fetched. Where that cannot be done (a closed network) the check is left out, loudly.
fn check_advisories() -> Result<()> {
    let output = program(cargo_deny()?).args(["check", "advisories"]).output().context("cannot run cargo-deny")?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    eprint!("{text}");
    if output.status.success() {
        return Ok(());
    }
    let unreachable = text.contains("failed to fetch advisory database")
        || text.contains("unable to fetch")
        || text.contains("failed to load advisory database");
    if !unreachable {
        bail!("cargo-deny found advisories");
    }
    println!("WARNING: advisories were NOT checked: their database cannot be fetched from here");
    Ok(())
}

/// cargo-deny, built once into the cache folder: that takes some minutes.
fn cargo_deny() -> Result<PathBuf> {
    if works(program("cargo-deny").arg("--version")) {
        return Ok("cargo-deny".into());
    }
    let folder = cache()?;
    let built = folder.join("bin/cargo-deny");
    if !works(program(&built).arg("--version")) {
        println!("building cargo-deny into {}; this happens once", folder.display());
        // Its own folder, or it would be built again for each checkout; without debug information it is quicker.
        let install = must_fetch(
            cargo()
                .args(["install", "cargo-deny", "--locked", "--root"])
                .arg(&folder)
                .env("CARGO_TARGET_DIR", folder.join("target-cargo-deny"))
                .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
                .env("CARGO_PROFILE_RELEASE_LTO", "off"),
        );
        install.context("cargo-deny cannot be installed, so licences and advisories cannot be checked")?;
    }
    Ok(built)
}
