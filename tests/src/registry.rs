//! A real server of an OCI registry, Debian's `docker-registry`: own folder, own port, ended by its pid.

use crate::broker::free_ports;
use crate::pelton::{cache, wait_for};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// Who may use a server with [`Door::Login`] or [`Door::Tokens`].
pub const USER: &str = "tester";
/// User and password as HTTP and `docker login` have them: `tester:sesame`.
pub const LOGIN: &str = "dGVzdGVyOnNlc2FtZQ==";
/// The password as htpasswd keeps it.
const HASHED: &str = "$2b$04$y14DO43U.cO/SuNlj3EG9ensxEfAsiYU6YT.9ypra8RryLeX4UKmW";
/// How long a server may take to start on a loaded machine.
const PATIENCE: u64 = 180;

/// Who comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Everybody.
    Open,
    /// [`USER`].
    Login,
    /// [`USER`], by tokens of another server, as the large public registries have it.
    Tokens,
    /// Everybody, by TLS. The certificate is for this name, and is its own authority.
    Tls(&'static str),
}

/// A running server. Ended when dropped.
pub struct Server {
    folder: tempfile::TempDir,
    port: u16,
    process: Child,
}

impl Server {
    /// A new server that holds nothing.
    pub fn start(door: Door) -> Server {
        let folder = tempfile::Builder::new().prefix("pelton-registry-").tempdir().expect("a folder for the server");
        let [port] = free_ports();
        let dir = folder.path().display();
        let mut settings = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {dir}/data}}}}\nhttp:\n  addr: 127.0.0.1:{port}\n"
        );
        match door {
            Door::Open => {}
            Door::Login => {
                std::fs::write(folder.path().join("users"), format!("{USER}:{HASHED}\n")).expect("users are written");
                settings += &format!("auth: {{htpasswd: {{realm: test, path: {dir}/users}}}}\n");
            }
            Door::Tokens => {
                make_certificate(folder.path(), "tokens.example.org");
                let at = tokens(folder.path());
                settings += &format!(
                    "auth: {{token: {{realm: 'http://127.0.0.1:{at}/token', service: tests, issuer: tests, rootcertbundle: {dir}/server.pem}}}}\n"
                );
            }
            Door::Tls(name) => {
                make_certificate(folder.path(), name);
                settings += &format!("  tls: {{certificate: {dir}/server.pem, key: {dir}/server.key}}\n");
            }
        }
        let path = folder.path().join("config.yml");
        std::fs::write(&path, settings).expect("settings are written");
        let said = std::fs::File::create(folder.path().join("said")).expect("a file for what it says");
        let mut command = Command::new(program());
        let started = command.arg("serve").arg(&path).stdout(Stdio::null()).stderr(said).spawn();
        let process = started.expect("the registry starts");
        let mut server = Server { folder, port, process };
        wait_for("the registry answers", PATIENCE, || {
            let said = || std::fs::read_to_string(server.folder.path().join("said")).unwrap_or_default();
            assert!(server.process.try_wait().is_ok_and(|ended| ended.is_none()), "the registry has ended: {}", said());
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        server
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of [`Door::Tls`].
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("server.pem")
    }

    /// The file in which it keeps a blob.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = &digest["sha256:".len()..];
        self.folder.path().join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// On the path, or where `cargo xtask setup` has put it.
fn program() -> PathBuf {
    let on_path = std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let found =
        on_path.chain([cache().join("docker-registry/usr/bin")]).map(|folder| folder.join("docker-registry")).find(|path| path.exists());
    found.expect("no docker-registry; `cargo xtask setup` brings it")
}

fn make_certificate(folder: &Path, name: &str) {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=registry of a test"]);
    command.arg("-addext").arg(format!("subjectAltName=DNS:{name}"));
    let output = command.args(["-keyout", "server.key", "-out", "server.pem"]).current_dir(folder).output().expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A server of tokens for [`USER`], signed by the key in this folder. Gives its port.
fn tokens(folder: &Path) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let folder = folder.to_path_buf();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let head = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            let head: Vec<String> = head.collect();
            let allowed = head.iter().any(|line| line.eq_ignore_ascii_case(&format!("authorization: Basic {LOGIN}")));
            let (status, body) = match allowed {
                true => ("200 OK", format!(r#"{{"token": "{}"}}"#, token(&folder, &scope(&head[0])))),
                false => ("401 Unauthorized", r#"{"details": "incorrect username or password"}"#.into()),
            };
            // Whoever asked may be gone.
            let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        }
    });
    port
}

/// `repository:NAME:ACTIONS` of `GET /token?scope=… HTTP/1.1`.
fn scope(line: &str) -> String {
    let scope = line.split(['?', '&', ' ']).find_map(|part| part.strip_prefix("scope=")).unwrap_or_default();
    scope.replace("%3A", ":").replace("%2C", ",").replace("%2F", "/")
}

/// A JSON Web Token that grants what is asked for.
fn token(folder: &Path, scope: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let parts: Vec<&str> = scope.split(':').collect();
    let access = match parts[..] {
        [kind, name, actions] => serde_json::json!([{"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}]),
        _ => serde_json::json!([]),
    };
    let certificate = std::fs::read_to_string(folder.join("server.pem")).expect("the certificate");
    let certificate: String = certificate.lines().filter(|line| !line.starts_with("---")).collect();
    let header = serde_json::json!({"typ": "JWT", "alg": "RS256", "x5c": [certificate]});
    let claims = serde_json::json!({
        "iss": "tests", "sub": USER, "aud": "tests", "nbf": now - 60, "iat": now - 60, "exp": now + 600, "jti": "1", "access": access
    });
    let word = |bytes: &[u8]| {
        let text = String::from_utf8(openssl(folder, &["base64", "-A"], bytes)).expect("base64");
        text.trim_end_matches('=').replace('+', "-").replace('/', "_")
    };
    let signed = format!("{}.{}", word(header.to_string().as_bytes()), word(claims.to_string().as_bytes()));
    let signature = openssl(folder, &["dgst", "-sha256", "-sign", "server.key"], signed.as_bytes());
    format!("{signed}.{}", word(&signature))
}

/// What the program makes of these bytes.
fn openssl(folder: &Path, arguments: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(arguments).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = command.spawn().expect("openssl runs");
    process.stdin.take().expect("piped").write_all(bytes).expect("it reads");
    process.wait_with_output().expect("it ends").stdout
}
