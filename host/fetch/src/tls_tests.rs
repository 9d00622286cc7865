//! Over TLS, with authorities that are made here: a request is made only where the certificate is for the name and by an authority that is trusted.

use super::*;
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name};
use pelton_core::grants::http::Network;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

/// A certificate and its key.
struct Identity {
    certificate: X509,
    key: PKey<Private>,
}

/// A certificate for a DNS name by an authority; without one, an authority's own.
fn identity(name: &str, authority: Option<&Identity>) -> Result<Identity, ErrorStack> {
    let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&curve)?)?;
    let mut subject = X509Name::builder()?;
    subject.append_entry_by_text("CN", name)?;
    let subject = subject.build();
    let mut builder = X509Builder::new()?;
    builder.set_version(2)?;
    builder.set_subject_name(&subject)?;
    builder.set_issuer_name(authority.map_or(&*subject, |authority| authority.certificate.subject_name()))?;
    builder.set_serial_number(&*BigNum::from_u32(1)?.to_asn1_integer()?)?;
    builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    builder.set_not_after(&*Asn1Time::days_from_now(2)?)?;
    builder.set_pubkey(&key)?;
    match authority {
        None => builder.append_extension(BasicConstraints::new().critical().ca().build()?)?,
        Some(authority) => {
            let names = SubjectAlternativeName::new().dns(name).build(&builder.x509v3_context(Some(&authority.certificate), None))?;
            builder.append_extension(names)?;
        }
    }
    builder.sign(authority.map_or(&key, |authority| &authority.key), MessageDigest::sha256())?;
    Ok(Identity { certificate: builder.build(), key })
}

/// A server with this certificate, which says hello. Gives its port.
fn server(identity: &Identity) -> u16 {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).expect("TLS");
    acceptor.set_certificate(&identity.certificate).and_then(|_| acceptor.set_private_key(&identity.key)).expect("its own key");
    let acceptor = acceptor.build();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let serve = move || {
        for stream in listener.incoming().flatten() {
            // Who does not trust us is gone.
            let Ok(mut stream) = acceptor.accept(stream) else { continue };
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
        }
    };
    std::thread::Builder::new().spawn(serve).expect("a thread");
    port
}

/// What comes of a request to a server of localhost.
fn get(port: &str) -> String {
    let url = format!("https://localhost:{port}/");
    let private = ["127.0.0.0/8", "::1"].map(|network| Network::parse(network).expect("a network")).into();
    let grant = HttpGrant { private, ..HttpGrant::parse(&format!("GET {url}")).expect("a grant") };
    let secrets = Secrets::read(&[grant], &|_| None).expect("there are none");
    let client = Client::start().expect("starts");
    let worker = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    match worker.block_on(client.send(Arc::new(secrets), Request { method: "GET".into(), url, ..Request::default() }, 1 << 20)) {
        Ok(answer) => String::from_utf8_lossy(&answer.body).into_owned(),
        Err(failed) => failed.message,
    }
}

/// Who is trusted is said by the environment, which belongs to a whole process: this test runs itself once more with each.
#[test]
fn certificates_are_for_the_name_and_of_a_trusted_authority() {
    const PORT: &str = "PELTON_TEST_PORT";
    if let Ok(port) = std::env::var(PORT) {
        println!("\nGOT {}", get(&port));
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let [ours, other] = ["ours", "other"].map(|name| {
        let authority = identity(name, None).expect("an authority");
        let file = folder.path().join(name);
        std::fs::write(&file, authority.certificate.to_pem().expect("PEM")).expect("written");
        (authority, file)
    });
    let said = |port: u16, trusted: &std::path::Path| {
        let mut again = Command::new(std::env::current_exe().expect("a test is a file"));
        again.args(["--exact", "tls_tests::certificates_are_for_the_name_and_of_a_trusted_authority", "--nocapture"]);
        let output = again.env(PORT, port.to_string()).env("SSL_CERT_FILE", trusted).output().expect("runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().find_map(|line| line.strip_prefix("GOT ").map(str::to_string)).unwrap_or_else(|| panic!("{text}"))
    };
    let good = server(&identity("localhost", Some(&ours.0)).expect("a certificate"));
    let misnamed = server(&identity("elsewhere.example", Some(&ours.0)).expect("a certificate"));
    assert_eq!(said(good, &ours.1), "hello");
    for (port, trusted, why) in [(good, &other.1, "unable to get local issuer"), (misnamed, &ours.1, "ostname mismatch")] {
        let refused = said(port, trusted);
        let words = [&format!("`https://localhost:{port}/`"), "its certificate is not accepted", why, "SSL_CERT_FILE"];
        assert!(words.iter().all(|word| refused.contains(word)), "{refused}");
    }
}
