//! The command line against a registry: from push to a run that is pinned, with a login, and over TLS.

use pelton_tests::components::parse_log;
use pelton_tests::pelton::{Said, json_rows, pelton};
use pelton_tests::registry::{Door, LOGIN, Server};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use tempfile::TempDir;

/// A machine with a store, logins and settings of its own.
struct Machine {
    folder: TempDir,
    settings: Vec<(&'static str, String)>,
}

impl Machine {
    fn new(settings: &[(&'static str, String)]) -> Machine {
        Machine { folder: tempfile::tempdir().unwrap(), settings: settings.to_vec() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Said {
        let mut command = pelton(arguments);
        for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(proxy);
        }
        command.env("PELTON_STORE", self.path("store")).env("DOCKER_CONFIG", self.path("docker"));
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.folder.path()).output().unwrap().into()
    }

    fn well(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        said.out
    }

    fn fails(&self, arguments: &[&str], words: &[&str]) {
        let said = self.run(arguments);
        assert!(said.code == 1 || said.code == 2, "{arguments:?}: {said:?}");
        words.iter().for_each(|word| assert!(said.err.contains(word), "`{word}` is not in\n{}", said.err));
        assert!(!said.err.contains("panicked"), "{}", said.err);
    }

    /// The plugin `parse-log` as if its crate had this version.
    fn component(&self, version: &str) -> String {
        let name = format!("parse-log-{version}.wasm");
        std::fs::write(self.path(&name), parse_log(version)).unwrap();
        name
    }

    /// As `docker login` writes it; `login` in base64.
    fn log_in(&self, registry: &str, login: &str) {
        std::fs::create_dir_all(self.path("docker")).unwrap();
        let config = format!(r#"{{"auths": {{"{registry}": {{"auth": "{login}"}}}}}}"#);
        std::fs::write(self.path("docker/config.json"), config).unwrap();
    }

    /// A pipeline whose one row shows which plugin was there.
    fn pipeline(&self, plugin: &str, key: &str) {
        let text = format!(
            "pipeline:\n  transforms:\n    - {{type: Create, name: C, config: {{elements: [{{line: 'not json'}}]}}}}\n    - {{type: P, name: P, input: C, config: {{error_handling: {{output: bad}}}}}}\n    - {{type: WriteToJson, name: Good, input: P, config: {{path: good}}}}\n    - {{type: WriteToJson, name: Bad, input: P.bad, config: {{path: bad}}}}\nproviders:\n  - {{type: wasm, config: {{plugin: '{plugin}'}}, transforms: {{P: parse-log}}}}\noptions:\n  pelton:\n    name: x\n    trust: {{keys: {{ours: '{key}'}}}}\n"
        );
        std::fs::write(self.path("pipeline.yaml"), text).unwrap();
    }

    /// The digest by which the dead letter names the plugin that ran.
    fn ran(&self) -> String {
        self.well(&["run", "pipeline.yaml", "--quiet"]);
        let bad = json_rows(&self.path("bad"));
        assert_eq!(bad.len(), 1);
        bad[0]["plugin"].as_str().unwrap().to_string()
    }
}

#[test]
fn a_plugin_goes_from_push_to_a_run_and_stays_pinned() {
    let server = Server::start(Door::Open);
    let place = format!("oci://127.0.0.1:{}/team/parse-log", server.port());
    let publisher = Machine::new(&[]);
    let key = publisher.well(&["plugin", "keygen", "release"]).lines().next().unwrap().to_string();
    let push = |version: &str| {
        let component = publisher.component(version);
        publisher.well(&["plugin", "sign", &component, "--key", "release.pem"]);
        publisher.well(&["plugin", "push", &component, &place])
    };
    assert!(push("0.1.1").contains("1 signatures"));

    let user = Machine::new(&[]);
    let pulled = user.well(&["plugin", "pull", &place, "--to", "pulled.wasm"]);
    assert_eq!(std::fs::read(user.path("pulled.wasm")).unwrap(), parse_log("0.1.1"), "{pulled}");
    let wanted = format!("{place}:0");
    user.pipeline(&wanted, &key);
    let first = user.ran();
    let lock = std::fs::read_to_string(user.path("pipeline.yaml.lock")).unwrap();
    let lock: serde_json::Value = serde_json::from_str(&lock).unwrap();
    assert_eq!(lock["plugins"][&wanted], serde_json::json!({"version": "0.1.1", "digest": first}));
    push("0.1.2");
    assert_eq!(user.ran(), first, "a newer version does not come by itself");

    // Who gets the pipeline and its pins runs the same; who gets no pins, the newest.
    let (second, third) = (Machine::new(&[]), Machine::new(&[]));
    [&second, &third].into_iter().for_each(|machine| machine.pipeline(&wanted, &key));
    std::fs::copy(user.path("pipeline.yaml.lock"), second.path("pipeline.yaml.lock")).unwrap();
    assert_eq!(second.ran(), first);
    assert_ne!(third.ran(), first);
    user.well(&["plugin", "pin", "pipeline.yaml", "--update"]);
    assert_eq!(user.ran(), third.ran());

    // What is in the store needs no registry.
    drop(server);
    user.ran();
    let late = Machine::new(&[]);
    late.pipeline(&wanted, &key);
    late.fails(&["run", "pipeline.yaml", "--quiet"], &[&place, "is the registry running"]);
}

#[test]
fn whoever_has_logged_in_as_other_tools_do_may_push() {
    for door in [Door::Login, Door::Tokens] {
        let server = Server::start(door);
        let registry = format!("127.0.0.1:{}", server.port());
        let place = format!("oci://{registry}/team/parse-log");
        let machine = Machine::new(&[]);
        let component = machine.component("0.1.1");
        let login = |words: &str| machine.log_in(&registry, words);
        // Nobody, `tester:wrong`, and a login that is none.
        for words in ["", "dGVzdGVyOndyb25n", "dGVzdGVy"] {
            login(words);
            machine.fails(&["plugin", "push", &component, &place], &[&place, &format!("docker login {registry}")]);
        }
        login(LOGIN);
        machine.well(&["plugin", "push", &component, &place]);
        machine.well(&["plugin", "pull", &place]);
        login("");
        machine.fails(&["plugin", "pull", &place], &[&place, "docker login"]);
    }
}

#[test]
fn certificates_are_judged() {
    let name = "registry.example.org";
    let server = Server::start(Door::Tls(name));
    let proxy = Proxy::start(server.port());
    let trusting = |file: PathBuf| Machine::new(&[("HTTPS_PROXY", proxy.url()), ("SSL_CERT_FILE", file.display().to_string())]);
    let machine = trusting(server.certificate());
    let component = machine.component("0.1.1");
    let place = format!("oci://{name}/team/parse-log");
    machine.well(&["plugin", "push", &component, &place]);
    machine.well(&["plugin", "pull", &place]);
    let elsewhere = "oci://registry.example.net/team/parse-log";
    machine.fails(&["plugin", "pull", elsewhere], &[elsewhere, "mismatch"]);

    let other = Server::start(Door::Tls(name));
    let doubting = trusting(other.certificate());
    doubting.fails(&["plugin", "pull", &place], &[&place, "certificate verify failed", "SSL_CERT_FILE"]);
}

/// A proxy in front of a server on this machine, whatever the name that is asked for: our client speaks to this machine's own addresses without TLS.
struct Proxy {
    port: u16,
}

impl Proxy {
    fn start(to: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(std::thread::spawn(move || tunnel(stream, to)))));
        Proxy { port }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Answers `CONNECT`, then copies both ways until one of them ends.
fn tunnel(near: TcpStream, to: u16) -> std::io::Result<()> {
    let mut head = BufReader::new(near.try_clone()?);
    let mut line = String::new();
    head.read_line(&mut line)?;
    assert!(line.starts_with("CONNECT registry.example."), "{line}");
    while line.trim_end() != "" {
        line.clear();
        head.read_line(&mut line)?;
    }
    let far = TcpStream::connect(("127.0.0.1", to))?;
    (&near).write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut from_far, mut to_near) = (far.try_clone()?, near);
    let back = std::thread::spawn(move || {
        let copied = std::io::copy(&mut from_far, &mut to_near);
        copied.and_then(|_| to_near.shutdown(std::net::Shutdown::Write))
    });
    std::io::copy(&mut head, &mut &far)?;
    far.shutdown(std::net::Shutdown::Write)?;
    back.join().unwrap()
}
