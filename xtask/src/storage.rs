//! `storage`: checkpoints in a real server of an object store: moto, which speaks S3, on loopback.

use crate::step::{cache, cargo, must, program};
use crate::{guests, python};
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

/// The environment, and what is in it, from PyPI.
const NAME: &str = "moto-5.2.1";
const PACKAGE: &str = "moto[server]==5.2.1";
const BUCKET: &str = "pelton";
/// Looks at the server while it starts.
const TRIES: u32 = 300;

/// The rules of storage, and the failpoints where processes compete, against the server.
pub fn run() -> Result<()> {
    python::prepare(NAME, PACKAGE)?;
    guests::build_test_components()?;
    let server = Server::start()?;
    let environment = [
        ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", server.port)),
        ("AWS_ALLOW_HTTP", "true".into()),
        ("AWS_ACCESS_KEY_ID", "anybody".into()),
        ("AWS_SECRET_ACCESS_KEY", "anything".into()),
        ("AWS_REGION", "us-east-1".into()),
        ("PELTON_TEST_STORAGE", format!("s3://{BUCKET}/rules")),
    ];
    // Of its crate alone, so that what the rest depends on is not built again for them.
    let rules = ["test", "-p", "pelton-state", "--features", "cloud", "--lib", "the_storage_of_the_environment_keeps_the_rules"];
    must(cargo().args(rules).envs(environment.clone()))?;
    let cloud = ["test", "--workspace", "--features", "pelton-cli/cloud"];
    let place = format!("s3://{BUCKET}/failpoints");
    must(cargo().args(cloud).args(["--test", "failpoints", "--", "--storage", &place]).envs(environment))
}

/// The server, until it is dropped.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start() -> Result<Server> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = program(cache()?.join(NAME).join("bin/moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Server { process: command.spawn().context("moto does not start")?, port };
        for _ in 0..TRIES {
            if server.create_bucket().is_ok_and(|answer| answer.contains(" 200 ")) {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("moto has no bucket after {TRIES} tries")
    }

    fn create_bucket(&self) -> Result<String> {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port))?;
        write!(connection, "PUT /{BUCKET} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
