//! Prepares a machine: what can be installed is installed, what cannot is named with the command that does it.

use crate::step::{Steps, must_fetch, program, root, works};
use crate::{beam, duckdb, guests, registry};
use anyhow::{Context, Result, bail};
use std::net::TcpListener;
use std::process::Command;

/// A program that is needed: how to see that it is there, the Debian package that has it, and what for.
struct Tool {
    probe: &'static [&'static str],
    package: &'static str,
    purpose: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool { probe: &["cc", "--version"], package: "build-essential", purpose: "compiles librdkafka, zstd and OpenSSL" },
    Tool { probe: &["make", "--version"], package: "build-essential", purpose: "builds librdkafka" },
    Tool { probe: &["perl", "-v"], package: "perl", purpose: "configures OpenSSL" },
    Tool {
        probe: &["python3", "-c", "import ensurepip"],
        package: "python3-venv",
        purpose: "runs Apache Beam, which the suites `beam` and `triggers` compare with",
    },
    Tool {
        // Debian keeps the server's programs off the path.
        probe: &["sh", "-c", "command -v initdb || ls /usr/lib/postgresql/*/bin/initdb"],
        package: "postgresql",
        purpose: "the server of the suite `postgres`",
    },
    Tool { probe: &["psql", "--version"], package: "postgresql-client", purpose: "asks that server what it holds" },
    Tool { probe: &["openssl", "version"], package: "openssl", purpose: "makes certificates for the tests with TLS" },
];

const KAFKA_TOOLS: &[Tool] = &[
    Tool { probe: &["java", "-version"], package: "default-jre-headless", purpose: "runs the Kafka broker of the tests" },
    Tool { probe: &["keytool", "-help"], package: "default-jre-headless", purpose: "makes certificates for the tests with TLS" },
    Tool { probe: &["mvn", "--version"], package: "maven", purpose: "fetches the Kafka broker" },
    Tool { probe: &["setsid", "--version"], package: "util-linux", purpose: "starts the Kafka broker" },
    Tool { probe: &["flock", "--version"], package: "util-linux", purpose: "keeps two set-ups apart" },
];

/// The oldest Java that Kafka 4 runs on.
const JAVA: u32 = 17;

/// Everything that `cargo xtask test` needs.
pub fn run(without_kafka: bool) -> Result<()> {
    let mut steps = Steps::default();
    steps.run("programs", || {
        let kafka = if without_kafka { &[] } else { KAFKA_TOOLS };
        install_missing(TOOLS.iter().chain(kafka).collect())?;
        if without_kafka { Ok(()) } else { check_java() }
    });
    if without_kafka {
        println!("== kafka: SKIPPED because of --without-kafka");
    } else {
        steps.run("kafka", prepare_kafka);
    }
    steps.run("beam", beam::prepare);
    steps.run("duckdb", duckdb::prepare);
    steps.run("registry", registry::prepare);
    steps.run("components", || {
        let components = guests::build_test_components()?;
        println!("{} components are up to date", components.len());
        Ok(())
    });
    steps.finish("setup")
}

fn missing(tool: &&Tool) -> bool {
    !works(Command::new(tool.probe[0]).args(&tool.probe[1..]))
}

fn install_missing(tools: Vec<&Tool>) -> Result<()> {
    let absent: Vec<&Tool> = tools.into_iter().filter(missing).collect();
    if absent.is_empty() {
        return Ok(());
    }
    for tool in &absent {
        println!("missing: {} ({})", tool.package, tool.purpose);
    }
    let mut packages: Vec<&str> = absent.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let command = format!("apt-get install -y --no-install-recommends {}", packages.join(" "));
    if !works(Command::new("apt-get").arg("--version")) {
        bail!("install what is missing; on Debian and Ubuntu it is in the packages {}", packages.join(" "));
    }
    if !works(Command::new("sh").args(["-c", "test \"$(id -u)\" = 0"])) {
        bail!("run: sudo {command}");
    }
    must_fetch(Command::new("apt-get").args(["update", "-q"]))?;
    must_fetch(Command::new("sh").args(["-c", &command]).env("DEBIAN_FRONTEND", "noninteractive"))?;
    match absent.into_iter().find(missing) {
        Some(tool) => bail!("{} is still missing although {} was installed", tool.probe[0], tool.package),
        None => Ok(()),
    }
}

fn check_java() -> Result<()> {
    let output = Command::new("java").arg("-version").output().context("cannot run java")?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    match java_version(&text) {
        Some(version) if version >= JAVA => Ok(()),
        Some(version) => {
            bail!("Java {version} is too old for Kafka 4, which needs {JAVA} or newer: apt-get install openjdk-{JAVA}-jre-headless")
        }
        None => bail!("cannot tell the version of Java from: {text}"),
    }
}

/// The major version in `openjdk version "17.0.15" …`; `1.8` is 8.
fn java_version(text: &str) -> Option<u32> {
    let version = text.split('"').nth(1)?;
    let mut parts = version.split(['.', '-', '+']);
    match parts.next()?.parse().ok()? {
        1 => parts.next()?.parse().ok(),
        major => Some(major),
    }
}

fn prepare_kafka() -> Result<()> {
    // The script starts a broker once; it takes this port and the next.
    let port = (0..50).find_map(|_| pair_of_ports()).context("no two free ports side by side")?;
    must_fetch(program(root().join("xtask/kafka/prepare.sh")).arg(port.to_string()))
}

fn pair_of_ports() -> Option<u16> {
    let first = TcpListener::bind("127.0.0.1:0").ok()?;
    let port = first.local_addr().ok()?.port();
    TcpListener::bind(("127.0.0.1", port.checked_add(1)?)).ok()?;
    Some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_tells_its_version_in_several_ways() {
        for (text, version) in [
            ("openjdk version \"17.0.15\" 2025-04-15", Some(17)),
            ("java version \"1.8.0_392\"", Some(8)),
            ("openjdk version \"21-ea\" x", Some(21)),
            ("what", None),
        ] {
            assert_eq!(java_version(text), version, "{text}");
        }
    }
}
