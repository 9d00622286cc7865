//! Finds, or makes, a Rust toolchain that compiles for `wasm32-unknown-unknown`.
//!
//! Three ways, the first that works is taken:
//! 1. The `cargo` on the path has the target already.
//! 2. `rustup target add` fetches it. On closed networks this fails, and the next way is tried.
//! 3. Debian's `rustc-web` packages, whose standard library comes as source: it is compiled once for the target and kept in the cache
//!    as a sysroot (77 seconds of processor time, once a rustc version).
//!
//! Invariant: nothing outside the cache folder is written, but for what rustup and apt-get install, and each such step is said first.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub const TARGET: &str = "wasm32-unknown-unknown";

/// Guests may use SIMD and bulk copies: every WebAssembly runtime that runs components has both.
const GUEST_FLAGS: &str = "-Ctarget-feature=+simd128,+bulk-memory";
const DEBIAN_PACKAGES: [&str; 5] = ["rustc-web", "rust-web-src", "rust-web-llvm", "cargo-web", "lld-22"];
const DEBIAN_FILES: [&str; 4] = ["/usr/bin/rustc", "/usr/bin/cargo", "/usr/bin/lld-22", DEBIAN_STD_SOURCE];
const DEBIAN_STD_SOURCE: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";
/// rustup retries a download for minutes on a closed network; a working one takes seconds.
const RUSTUP_LIMIT: Duration = Duration::from_secs(60);

/// How to call cargo so that it compiles for WebAssembly.
#[derive(Debug, Clone)]
pub struct Toolchain {
    pub cargo: PathBuf,
    /// Which compiler this is, for messages.
    pub described: String,
    pub environment: Vec<(&'static str, String)>,
}

/// Finds a toolchain. `say` is given a line for each step that takes time or changes the machine.
///
/// `PELTON_GUEST_TOOLCHAIN=debian` takes the third way without trying the others, to test it.
pub fn find(say: &dyn Fn(&str)) -> Result<Toolchain> {
    let only_debian = std::env::var("PELTON_GUEST_TOOLCHAIN").is_ok_and(|chosen| chosen == "debian");
    if !only_debian {
        if let Some(toolchain) = on_path() {
            return Ok(toolchain);
        }
        if let Some(toolchain) = by_rustup(say) {
            return Ok(toolchain);
        }
    }
    by_debian(say)
}

fn on_path() -> Option<Toolchain> {
    let libraries = answer(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]))?;
    if !holds_std(Path::new(&libraries)) {
        return None;
    }
    let described = answer(Command::new("rustc").arg("--version"))?;
    Some(Toolchain { cargo: "cargo".into(), described, environment: vec![("RUSTFLAGS", GUEST_FLAGS.to_owned())] })
}

fn by_rustup(say: &dyn Fn(&str)) -> Option<Toolchain> {
    answer(Command::new("rustup").arg("--version"))?;
    say(&format!("the {TARGET} target is not installed; running `rustup target add {TARGET}`"));
    let added = Command::new("rustup").args(["target", "add", TARGET]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = added.ok()?;
    #[allow(clippy::disallowed_methods, reason = "a download is given up by the clock")]
    let started = Instant::now();
    while child.try_wait().ok()?.is_none() {
        if started.elapsed() > RUSTUP_LIMIT {
            let _ = child.kill();
            let _ = child.wait();
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let found = on_path();
    if found.is_none() {
        say("rustup could not fetch it; trying Debian's packages");
    }
    found
}

fn by_debian(say: &dyn Fn(&str)) -> Result<Toolchain> {
    let missing: Vec<_> = DEBIAN_FILES.iter().filter(|file| !Path::new(file).exists()).collect();
    if !missing.is_empty() {
        install_debian_packages(say)?;
    }
    let described = answer(Command::new("/usr/bin/rustc").arg("--version")).context("/usr/bin/rustc does not run")?;
    let version = described.split(' ').nth(1).context("rustc --version has no version")?;
    let sysroot = cache_folder()?.join(format!("sysroot-{version}"));
    let path = format!("/usr/bin:{}", std::env::var("PATH").unwrap_or_default());
    let compiler = vec![("PATH", path), ("RUSTC", "/usr/bin/rustc".to_owned()), ("RUSTC_BOOTSTRAP", "1".to_owned())];
    if !holds_std(&target_libraries(&sysroot)) {
        say(&format!("compiling Rust's standard library for {TARGET}, once, into {} (a minute or two)", sysroot.display()));
        make_sysroot(&sysroot, &compiler)?;
    }
    let mut environment = compiler;
    environment.push(("RUSTFLAGS", format!("--sysroot {} {GUEST_FLAGS}", sysroot.display())));
    Ok(Toolchain { cargo: "/usr/bin/cargo".into(), described, environment })
}

fn install_debian_packages(say: &dyn Fn(&str)) -> Result<()> {
    let install = format!("apt-get install -y --no-install-recommends {}", DEBIAN_PACKAGES.join(" "));
    let is_root = answer(Command::new("id").arg("-u")).is_some_and(|id| id == "0");
    let has_apt = answer(Command::new("apt-get").arg("--version")).is_some();
    let advice = format!("no Rust compiler for {TARGET} was found. Do one of these:\n  rustup target add {TARGET}\n  sudo {install}");
    if !is_root || !has_apt {
        bail!("{advice}");
    }
    say(&format!("running `{install}`"));
    let installed = Command::new("sh")
        .args(["-c", &format!("apt-get update -q && DEBIAN_FRONTEND=noninteractive {install}")])
        .output()
        .context("starting apt-get")?;
    if !installed.status.success() {
        bail!("{advice}\napt-get said:\n{}", String::from_utf8_lossy(&installed.stderr));
    }
    Ok(())
}

/// Compiles std with an empty crate and keeps its libraries. The folder appears whole or not at all, so two builds may race.
fn make_sysroot(sysroot: &Path, compiler: &[(&'static str, String)]) -> Result<()> {
    let work = sysroot.with_extension(format!("making-{}", std::process::id()));
    std::fs::create_dir_all(work.join("src"))?;
    std::fs::write(work.join("src/lib.rs"), "")?;
    std::fs::write(
        work.join("Cargo.toml"),
        "[package]\nname = \"pelton-sysroot-seed\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[lib]\ncrate-type = [\"cdylib\"]\n\
         [profile.release]\nopt-level = 3\npanic = \"abort\"\ncodegen-units = 1\n[workspace]\n",
    )?;
    let built = Command::new("/usr/bin/cargo")
        .args(["build", "--release", "--target", TARGET, "-Zbuild-std=std,panic_abort", "--target-dir", "target"])
        .current_dir(&work)
        .envs(compiler.iter().map(|(name, value)| (name, value)))
        // Guests are optimised across crates, which needs bitcode; cargo leaves it out of a build that is not.
        .env("RUSTFLAGS", format!("{GUEST_FLAGS} -Cembed-bitcode=yes"))
        .output()
        .context("starting /usr/bin/cargo")?;
    if !built.status.success() {
        bail!("compiling the standard library failed:\n{}", String::from_utf8_lossy(&built.stderr));
    }
    let made = work.join("sysroot");
    let libraries = target_libraries(&made);
    std::fs::create_dir_all(&libraries)?;
    for entry in std::fs::read_dir(work.join(format!("target/{TARGET}/release/deps")))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rlib") {
            std::fs::copy(&path, libraries.join(path.file_name().unwrap_or_default()))?;
        }
    }
    // Procedural macros and build scripts are compiled for this machine with the same sysroot.
    let host = answer(Command::new("/usr/bin/rustc").args(["--print", "target-libdir"])).context("rustc has no host libraries")?;
    let host = Path::new(&host).parent().context("the host's library folder has no parent")?;
    let name = host.file_name().context("the host's library folder has no name")?;
    std::os::unix::fs::symlink(host, made.join("lib/rustlib").join(name))?;
    if std::fs::rename(&made, sysroot).is_err() && !holds_std(&target_libraries(sysroot)) {
        bail!("cannot move the new sysroot to {}", sysroot.display());
    }
    std::fs::remove_dir_all(&work)?;
    Ok(())
}

fn target_libraries(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib").join(TARGET).join("lib")
}

fn holds_std(libraries: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(libraries) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libstd-") && name.ends_with(".rlib")
    })
}

/// Pelton's cache: `$XDG_CACHE_HOME/pelton`, else `~/.cache/pelton`.
pub fn cache_folder() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache"),
    };
    let folder = base.join("pelton");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

/// The trimmed standard output of a command that succeeds.
fn answer(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
