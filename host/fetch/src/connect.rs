//! Connections to addresses that were judged.
//!
//! The name is resolved once; what is judged is the address that the connection goes to, so a resolver that answers otherwise the next time has
//! gained nothing.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

use openssl::error::ErrorStack;
use openssl::ssl::{SslConnector, SslMethod};
use openssl::x509::X509VerifyResult;
use pelton_core::grants::http::{HttpGrant, Url};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::{Failed, FailedKind};

/// A connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(crate) fn tls() -> Result<SslConnector, ErrorStack> {
    let mut connector = SslConnector::builder(SslMethod::tls_client())?;
    // OpenSSL is built in and does not know where this system has its certificates.
    let found = openssl_probe::probe();
    if let Some(file) = found.cert_file {
        connector.set_ca_file(file)?;
    }
    Ok(connector.build())
}

/// Connects to the server of a URL, at an address that the grant reaches.
pub(crate) async fn connect(grant: &HttpGrant, tls: &SslConnector, url: &Url) -> Result<Box<dyn Stream>, Failed> {
    let failed = |why: String| Failed::new(FailedKind::Failed, format!("cannot connect to `{}`: {why}", url.origin()));
    let addresses = resolve(url).await.map_err(|error| failed(error.to_string()))?;
    let (reached, other): (Vec<SocketAddr>, Vec<SocketAddr>) = addresses.iter().partition(|address| grant.reaches(address.ip()));
    let mut last = match other.first() {
        None => failed("its name has no address".into()),
        Some(other) => Failed::refused(format!(
            "`{}` is at {}, which is not public: no request goes there unless the grant names it (`private: [{}]`)",
            url.origin(),
            other.ip(),
            other.ip()
        )),
    };
    for address in reached {
        match TcpStream::connect(address).await {
            // The kernel may be told to send it elsewhere.
            Ok(stream) if stream.peer_addr().is_ok_and(|peer| grant.reaches(peer.ip())) => return secured(stream, tls, url).await,
            Ok(_) => last = Failed::refused(format!("`{}` is not at the address that was asked for", url.origin())),
            Err(error) => last = failed(error.to_string()),
        }
    }
    Err(last)
}

async fn resolve(url: &Url) -> std::io::Result<Vec<SocketAddr>> {
    if let Ok(address) = url.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, url.port)]);
    }
    Ok(tokio::net::lookup_host((url.host.as_str(), url.port)).await?.collect())
}

async fn secured(stream: TcpStream, tls: &SslConnector, url: &Url) -> Result<Box<dyn Stream>, Failed> {
    let failed = |error: &dyn std::fmt::Display| Failed::new(FailedKind::Failed, format!("cannot connect to `{}`: {error}", url.origin()));
    let _ = stream.set_nodelay(true);
    if !url.is_tls {
        return Ok(Box::new(stream));
    }
    let ssl = tls.configure().and_then(|configured| configured.into_ssl(&url.host)).map_err(|error| failed(&error))?;
    let mut stream = tokio_openssl::SslStream::new(ssl, stream).map_err(|error| failed(&error))?;
    if let Err(error) = Pin::new(&mut stream).connect().await {
        return Err(match stream.ssl().verify_result() {
            X509VerifyResult::OK => failed(&error),
            why => failed(&format!(
                "its certificate is not accepted: {why}. It must be for this name and by an authority of this system, or of the file that SSL_CERT_FILE names"
            )),
        });
    }
    Ok(Box::new(stream))
}
