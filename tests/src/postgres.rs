//! A real PostgreSQL server for tests: own folder, own port, ended by its pid.
//!
//! The server is the system's, as `cargo xtask setup` has it installed. It refuses to run as root: there it runs as the user
//! `postgres`, or as `nobody`. What it holds is asked with `psql`, which knows nothing of our client.

use crate::broker::free_ports;
use crate::pelton::wait_for;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// The owner of everything.
pub const USER: &str = "tester";
/// Password of [`USER`].
pub const PASSWORD: &str = "sesame-10";
/// How long a server may take to start on a loaded machine.
const PATIENCE: u64 = 180;

/// A running server. Ended when dropped.
pub struct Server {
    folder: tempfile::TempDir,
    port: u16,
    user: Option<(u32, u32)>,
    process: Option<Child>,
}

impl Server {
    /// A new server with a certificate of its own.
    pub fn start() -> Server {
        let folder = tempfile::Builder::new().prefix("pelton-postgres-").tempdir().expect("a folder for the server");
        let [port] = free_ports();
        let server = Server { folder, port, user: other_user(), process: None };
        let password = server.folder.path().join("password");
        std::fs::write(&password, PASSWORD).expect("the password is written");
        make_certificate(server.folder.path());
        for name in ["", "password", "server.key", "server.pem"] {
            server.give(&server.folder.path().join(name));
        }
        let mut init = server.command("initdb");
        init.args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--username", USER, "--pwfile"]).arg(&password);
        run(init.arg("--pgdata").arg(server.data()));
        let mut server = server;
        server.up();
        server
    }

    /// The server of all tests of this process that do no harm to it. It ends with the last of them.
    pub fn shared() -> Arc<Server> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().expect("no test panics while it starts a server");
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Server::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's certificate, which is its own authority.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("server.pem")
    }

    /// A new database.
    pub fn database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("db{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// Runs statements; gives rows a line, columns between `|`.
    pub fn psql(&self, database: &str, statements: &str) -> String {
        let mut command = Command::new(program("psql"));
        command.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", "--host=127.0.0.1"]);
        command.args(["--username", USER, "--dbname", database, "--port", &self.port.to_string(), "--command", statements]);
        run(command.env("PGPASSWORD", PASSWORD).env("PGTZ", "UTC")).trim_end().to_string()
    }

    /// Starts the server again on the same port and data.
    pub fn up(&mut self) {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k"]).arg(self.folder.path());
        command.args(["-c", "fsync=off", "-c", "ssl=on", "-c", "log_min_messages=panic"]);
        for (setting, file) in [("ssl_cert_file", "server.pem"), ("ssl_key_file", "server.key")] {
            command.arg("-c").arg(format!("{setting}={}", self.folder.path().join(file).display()));
        }
        self.process = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the server starts"));
        wait_for("PostgreSQL answers", PATIENCE, || {
            let mut ready = Command::new(program("pg_isready"));
            ready.args(["--quiet", "--host=127.0.0.1", "--port", &self.port.to_string()]);
            ready.status().is_ok_and(|status| status.success()).then_some(())
        });
    }

    /// Ends the server as a crash would: nothing is flushed, every connection is cut.
    pub fn crash(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let _ = Command::new("kill").args(["-QUIT", &process.id().to_string()]).status();
        let _ = process.wait();
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command.current_dir(self.folder.path());
        command
    }

    fn give(&self, path: &Path) {
        if let Some((user, group)) = self.user {
            chown(path, Some(user), Some(group)).expect("root may give files away");
        }
    }
}

/// In SQL: a column of instants, whole seconds, as JSON has them.
pub fn instant(column: &str) -> String {
    format!("to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")
}

impl Drop for Server {
    fn drop(&mut self) {
        self.crash();
    }
}

/// Whom the server runs as, where this process is root.
fn other_user() -> Option<(u32, u32)> {
    let id = |option: &str, user: &str| -> Option<u32> {
        let output = Command::new("id").arg(option).args((!user.is_empty()).then_some(user)).output().ok()?;
        String::from_utf8_lossy(&output.stdout).trim().parse().ok()
    };
    if id("-u", "") != Some(0) {
        return None;
    }
    ["postgres", "nobody"].into_iter().find_map(|user| Some((id("-u", user)?, id("-g", user)?)))
}

/// On the path, or where Debian keeps the newest version.
fn program(name: &str) -> PathBuf {
    let on_path = std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let mut versions: Vec<PathBuf> =
        std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin")).collect();
    versions.sort();
    let found = on_path.chain(versions.into_iter().rev()).map(|folder| folder.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("no {name}; `cargo xtask setup` installs PostgreSQL"))
}

fn make_certificate(folder: &Path) {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost"]);
    command.args(["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", "server.key", "-out", "server.pem"]);
    run(command.current_dir(folder));
    run(Command::new("chmod").args(["600", "server.key"]).current_dir(folder));
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?} failed\n{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}
