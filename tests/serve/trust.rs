//! Whose plugins a host takes: a policy of its own, that of a pipeline, and nothing older than what it has had.

use pelton_tests::components::parse_log;
use pelton_tests::pelton::run;
use pelton_tests::serve::{Host, deployment};
use serde_json::{Value, json};
use std::path::Path;

/// A stream through the plugin in `parse.wasm`.
fn parsing(host: &Host, mark: u32) -> String {
    format!(
        "pipeline:
  type: chain
  transforms:
    - {{type: GenerateEvents, name: Read, config: {{kind: web_access, count: 1000000, rate: 200}}}}
    - {{type: ParseLog, name: Parse}}
    - {{type: MapToFields, name: Mark, config: {{language: sql, append: true, fields: {{mark: '{mark}'}}}}}}
    - {{type: WriteToJson, name: Write, config: {{path: {}}}}}
providers:
  - {{type: wasm, config: {{plugin: parse.wasm}}, transforms: {{ParseLog: parse-log}}}}
options:
  pelton: {{name: parsing, parallelism: 1, checkpoint: {{interval: 200ms}}}}
",
        host.path("parsed").display()
    )
}

/// Makes a key; gives the word of its public half.
fn keygen(folder: &Path, name: &str) -> String {
    let said = run(&["plugin", "keygen", folder.join(name).to_str().unwrap()]);
    assert_eq!(said.code, 0, "{said:?}");
    said.out.lines().next().unwrap().to_string()
}

/// Puts a version of the plugin beside the pipeline file, signed by these keys.
fn plugin(host: &Host, version: &str, folder: &Path, keys: &[&str]) {
    let path = host.path("parse.wasm");
    std::fs::write(&path, parse_log(version)).unwrap();
    for key in keys {
        let key = folder.join(format!("{key}.pem"));
        host.well(&["plugin", "sign", path.to_str().unwrap(), "--key", key.to_str().unwrap()]);
    }
}

/// A host with a policy in a folder, which has the keys `release` and `stranger`.
fn guarded() -> (Host, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    keygen(folder.path(), "release");
    keygen(folder.path(), "stranger");
    let policy = folder.path().join("trust.yaml");
    std::fs::write(&policy, "keys:\n  release: {key: release.pub, plugins: [parse-*]}\n").unwrap();
    (Host::start(&["--trust", policy.to_str().unwrap()]), folder)
}

/// A deployment that is refused, with its reason in the audit log.
fn refused(host: &Host, arguments: &[&str], words: &[&str]) {
    let said = host.cli(arguments);
    assert_eq!(said.code, 2, "{arguments:?}: {said:?}");
    let audit = host.audit();
    let last = audit.iter().rfind(|line| line["phase"] == "done").unwrap();
    assert_eq!(last["result"], "refused", "{last}");
    for word in words {
        assert!(said.err.contains(word) && last["why"].as_str().unwrap().contains(word), "`{word}`: {}\n{last}", said.err);
    }
}

#[test]
fn a_host_takes_what_its_policy_trusts_and_nothing_older() {
    let (mut host, folder) = guarded();
    let dir = folder.path();
    let file = host.file("parsing.yaml", &parsing(&host, 1));
    plugin(&host, "0.1.1", dir, &[]);
    refused(&host, &["deploy", &file], &["the host's trust policy", "not signed"]);
    plugin(&host, "0.1.1", dir, &["stranger"]);
    refused(&host, &["deploy", &file], &["the host's trust policy", "do not name"]);
    assert_eq!(host.well(&["list", "--output", "json"]).trim(), "[]", "nothing of it was kept");
    plugin(&host, "0.1.1", dir, &["release"]);
    host.well(&["deploy", &file]);
    host.wait_for_epoch("parsing");

    // A newer one takes over while the pipeline runs, unless nobody vouches for it.
    plugin(&host, "0.1.2", dir, &[]);
    refused(&host, &["deploy", &file], &["not signed"]);
    assert_eq!(host.status("parsing")["version"], 1);
    plugin(&host, "0.1.2", dir, &["release"]);
    host.well(&["deploy", &file]);
    assert_eq!(host.status("parsing")["version"], 2);
    // The older one does not come back by itself, though its signature is as good as ever; what runs may stay.
    plugin(&host, "0.1.1", dir, &["release"]);
    refused(&host, &["deploy", &file], &["has had 0.1.2", "--allow-downgrade"]);
    let swap = ["plugin", "swap", "parsing", "Parse", &host.path("parse.wasm").display().to_string()];
    refused(&host, &swap, &["has had 0.1.2", "--allow-downgrade"]);
    host.well(&["deploy", &file, "--allow-downgrade"]);
    plugin(&host, "0.1.3", dir, &["stranger"]);
    refused(&host, &swap, &["the host's trust policy", "do not name"]);
    plugin(&host, "0.1.1", dir, &["release"]);
    host.file("parsing.yaml", &parsing(&host, 2));
    host.well(&["deploy", &file]);
    host.well(&["rollback", "parsing", "--to", "2"]);
    assert_eq!(host.status("parsing")["state"], "running");

    // A key that is no longer trusted vouches for nothing that starts, and nothing that comes back.
    host.terminate();
    std::fs::write(dir.join("trust.yaml"), "keys: {stranger: stranger.pub}\n").unwrap();
    host.up();
    let status = host.wait_for("parsing", "failed");
    assert!(status.to_string().contains("the host's trust policy"), "{status}");
    refused(&host, &["rollback", "parsing", "--to", "1"], &["do not name"]);
    plugin(&host, "0.1.2", dir, &["release", "stranger"]);
    host.well(&["deploy", &file]);
    host.wait_for("parsing", "running");
}

#[test]
fn a_policy_of_a_pipeline_binds_the_host_too() {
    let host = Host::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let word = keygen(folder.path(), "release");
    let key = host.path("release.pub");
    std::fs::copy(folder.path().join("release.pub"), &key).unwrap();
    let with = |key: &str| parsing(&host, 1).replace("name: parsing,", &format!("name: parsing, trust: {{keys: {{ours: '{key}'}}}},"));
    let bytes = parse_log("0.1.1");
    let digest = pelton_digest(&bytes);
    let put = |path: &str, kind: &str, body: &[u8]| host.socket().ask("PUT", path, &[("Content-Type", kind)], body);
    assert_eq!(put(&format!("/v1/plugins/{digest}"), "application/wasm", &bytes).status, 200);
    // Whoever leaves the command line out is judged all the same.
    let deploy = |text: &str| {
        let mut request = deployment(text);
        request["plugins"] = json!({"parse.wasm": digest});
        host.socket().post("/v1/pipelines", &request)
    };
    for (key, words) in [(word.as_str(), "not signed"), ("release.pub", "was not sent along")] {
        let answer = deploy(&with(key));
        assert!(answer.status == 422 && answer.body.contains(words), "{answer:?}");
    }
    plugin(&host, "0.1.1", folder.path(), &["release"]);
    let signatures: Value = serde_json::from_slice(&std::fs::read(host.path("parse.wasm.sig")).unwrap()).unwrap();
    let sign = |signatures: &Value| put(&format!("/v1/plugins/{digest}/signatures"), "application/json", signatures.to_string().as_bytes());
    // Signatures of something else, and no signatures.
    let of = |key: &str, value: Value| {
        let mut changed = signatures.clone();
        changed[key] = value;
        changed
    };
    assert_eq!(sign(&of("digest", format!("sha256:{}", "0".repeat(64)).into())).status, 422);
    assert_eq!(sign(&of("signatures", json!([{"key": 1}]))).status, 400);
    let many: Vec<Value> = (0..33).map(|number| json!({"key": number.to_string(), "signature": ""})).collect();
    assert_eq!(sign(&of("signatures", json!(many))).status, 422);
    assert_eq!(sign(&of("version", "0.1.2".into())).status, 200);
    let forged = deploy(&with(&word));
    assert!(forged.status == 422 && forged.body.contains("does not fit"), "{forged:?}");
    assert_eq!(sign(&signatures).json()["signatures"], 1);
    let answer = deploy(&with(&word));
    assert_eq!(answer.status, 200, "{answer:?}");
    // The command line sends the keys that a file names by their paths.
    let file = host.file("parsing.yaml", &with("release.pub"));
    host.well(&["deploy", &file]);
    host.wait_for_epoch("parsing");
    let audit = host.audit();
    assert!(audit.iter().any(|line| line["action"] == "sign" && line["result"] == "ok" && line["digests"][0] == digest), "{audit:?}");
}

/// As `sha256sum` has it.
fn pelton_digest(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let output = std::process::Command::new("sha256sum").arg(file.path()).output().unwrap();
    format!("sha256:{}", &String::from_utf8_lossy(&output.stdout)[..64])
}

#[test]
fn a_policy_that_is_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trust.yaml");
    for (text, words) in [("keys: {a: nowhere.pub}", "nowhere.pub"), ("required: true", "keys"), ("keys: {a: 'ed25519:x'}", "`a`")] {
        std::fs::write(&path, text).unwrap();
        let data = folder.path().join("data");
        let said = run(&["serve", "--data", data.to_str().unwrap(), "--trust", path.to_str().unwrap()]);
        assert!(said.code == 2 && said.err.contains(words), "{said:?}");
    }
}
