//! The library against a registry: versions, pins, signatures, the artifact's form, and registries that lie or are none.

use pelton_registry::{Component, Plugins, PrivateKey, Pushed, Reference, RegistryError, SignatureFile, Statement, Store, digest_of};
use pelton_tests::registry::{Door, Server};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use tempfile::TempDir;

fn reference(port: u16, of: &str) -> Reference {
    Reference::parse(&format!("oci://127.0.0.1:{port}/{of}"), Path::new("")).unwrap()
}

/// A machine that has no plugins yet.
fn machine() -> (TempDir, Plugins) {
    let folder = tempfile::tempdir().unwrap();
    let plugins = Plugins::new(Store::new(folder.path()));
    (folder, plugins)
}

fn push(plugins: &Plugins, to: &Reference, version: &str, bytes: &[u8], key: Option<&PrivateKey>) -> Result<Pushed, RegistryError> {
    let digest = digest_of(bytes);
    let statement = Statement { name: "geo", version, digest: &digest };
    let mut signatures = SignatureFile::new(statement);
    if let Some(key) = key {
        signatures.add(statement.sign(key).unwrap());
    }
    plugins.push(to, Component { bytes, imports: &["pelton:plugin/log@0.1.0".into()], signatures })
}

/// Larger than one part of an upload.
fn large() -> Vec<u8> {
    (0..5_000_000_u32).flat_map(|number| (number.wrapping_mul(2_654_435_761) >> 24).to_le_bytes().into_iter().take(1)).collect()
}

#[test]
fn versions_digests_and_signatures_come_back_from_a_registry() {
    let server = Server::start(Door::Open);
    let (_folder, publisher) = machine();
    let key = PrivateKey::generate().unwrap();
    let place = reference(server.port(), "team/geo");
    let large = large();
    for (version, bytes) in [("1.2.0", &b"one"[..]), ("1.2.3", &large), ("1.3.0", b"three"), ("2.0.0-rc.1", b"four")] {
        assert!(!push(&publisher, &place, version, bytes, None).unwrap().again);
    }
    let again = push(&publisher, &place, "1.3.0", b"three", Some(&key)).unwrap();
    assert!(again.again && again.signatures == 1, "{again:?}");
    let refused = push(&publisher, &place, "1.3.0", b"another", None).unwrap_err().to_string();
    assert!(refused.contains("Raise the version"), "{refused}");

    let (_folder, user) = machine();
    let found = user.resolve(&reference(server.port(), "team/geo:1.2"), false).unwrap();
    assert_eq!((found.version.to_string().as_str(), found.bytes == large), ("1.2.3", true));
    let newest = user.resolve(&reference(server.port(), "team/geo"), false).unwrap();
    assert_eq!(newest.bytes, b"three");
    let signers = newest.signatures.statement().signers(&newest.signatures.signatures);
    assert_eq!((signers.signed, signers.forged), (vec![key.public().unwrap().to_string()], vec![]));
    let by_digest = user.resolve(&reference(server.port(), &format!("team/geo@{}", digest_of(b"one"))), false).unwrap();
    assert_eq!((by_digest.bytes.as_slice(), by_digest.version.to_string().as_str()), (&b"one"[..], "1.2.0"));

    let asked = reference(server.port(), "team/geo:1.3");
    user.confirm(&asked, &newest, "geo", "1.3.0").unwrap();
    let older = user.resolve(&reference(server.port(), "team/geo:1.2.3"), false).unwrap_err().to_string();
    assert!(older.contains("--allow-downgrade"), "{older}");
    let pin = newest.pin();
    push(&publisher, &place, "1.3.1", b"later", None).unwrap();
    let (_folder, other) = machine();
    assert_eq!(other.pinned(&asked, &pin).unwrap().bytes, b"three", "a pin stays what it is");

    for (absent, words) in [("team/geo:9", "its versions 2.0.0-rc.1, 1.3.1"), ("team/nothing", "no version of it")] {
        let error = user.resolve(&reference(server.port(), absent), false).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// The manifest is what other tools of OCI understand, seen without our own client.
#[test]
fn what_is_pushed_is_an_artifact_as_the_standard_has_it() {
    let server = Server::start(Door::Open);
    let (_folder, plugins) = machine();
    push(&plugins, &reference(server.port(), "geo"), "1.0.0", b"component", Some(&PrivateKey::generate().unwrap())).unwrap();
    let get = |path: &str, accept: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nAccept: {accept}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_string()
    };
    let manifest = get("/v2/geo/manifests/1.0.0", "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(
        manifest,
        get(&format!("/v2/geo/manifests/{}", digest_of(b"component").replace(':', "-")), "application/vnd.oci.image.manifest.v1+json")
    );
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    assert_eq!(manifest["layers"][0]["digest"], digest_of(b"component"));
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    assert_eq!(manifest["annotations"]["org.opencontainers.image.version"], "1.0.0");
    assert_eq!(get(&format!("/v2/geo/blobs/{}", digest_of(b"component")), "*/*"), "component");
    let config = get(&format!("/v2/geo/blobs/{}", manifest["config"]["digest"].as_str().unwrap()), "*/*");
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!((&config["architecture"], &config["layerDigests"][0]), (&"wasm".into(), &manifest["layers"][0]["digest"]));
}

#[test]
fn bytes_that_a_registry_has_changed_are_refused() {
    let server = Server::start(Door::Open);
    let (_folder, publisher) = machine();
    push(&publisher, &reference(server.port(), "geo"), "1.0.0", b"component", None).unwrap();
    let blob = server.blob(&digest_of(b"component"));
    for changed in [&b"malicious"[..], b"longer than it was", b"cut"] {
        std::fs::write(&blob, changed).unwrap();
        let (_folder, user) = machine();
        let error = user.resolve(&reference(server.port(), "geo:1"), false).unwrap_err();
        assert!(user.store().list().unwrap().is_empty(), "nothing of it was kept: {error}");
    }
    std::fs::write(&blob, b"component").unwrap();
    let (_folder, user) = machine();
    assert_eq!(user.resolve(&reference(server.port(), "geo:1"), false).unwrap().bytes, b"component");
}

#[test]
fn a_registry_that_is_not_there_or_is_none_is_named() {
    let (_folder, plugins) = machine();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = plugins.resolve(&reference(port, "geo:1"), false).unwrap_err().to_string();
    assert!(error.contains(&format!("127.0.0.1:{port}")) && error.contains("is the registry running"), "{error}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let liar = std::thread::Builder::new().spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            if stream.read(&mut request).unwrap_or(0) > 0 && request.starts_with(b"GET /end") {
                return;
            }
            // Whatever was asked.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello");
        }
    });
    assert!(plugins.resolve(&reference(port, "geo:1"), false).is_err());
    TcpStream::connect(("127.0.0.1", port)).unwrap().write_all(b"GET /end").unwrap();
    liar.unwrap().join().unwrap();
}
