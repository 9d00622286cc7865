//! Where a host listens, and what is refused before it does.
//!
//! The Unix socket in the data folder is always there, for its owner only. An address of the loopback wants tokens, unless it is told that everybody on this
//! machine is an admin. Any other address wants TLS and tokens, and there is no way round that.
//!
//! Bounds: connections at once, the time for a handshake and for a request's header, its size. Bodies have theirs in [`crate::api`].

use crate::ServerError;
use crate::access::Tokens;
use crate::api::{self, Access, App, Peer};
use crate::http::{self, Body, Stream};
use crate::origin::Arrival;
use crate::refusal::{Refusal, Why};
use openssl::ssl::{Ssl, SslAcceptor, SslFiletype, SslMethod};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_openssl::SslStream;

/// Connections at once, over all addresses; more wait to be accepted.
const MAX_CONNECTIONS: usize = 2_048;
/// For a request's header to arrive.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);
/// For a TLS handshake.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// For requests that are under way when the host ends.
const LAST_REQUESTS: Duration = Duration::from_secs(10);
/// After an error of the system, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The longest path of a Unix socket.
const MAX_SOCKET_PATH: usize = 107;

/// Where to listen.
#[derive(Clone, Debug, Default)]
pub struct ListenOptions {
    /// A Unix socket; always there.
    pub socket: PathBuf,
    /// An address, besides.
    pub address: Option<SocketAddr>,
    /// Certificates and key, PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The file of tokens.
    pub tokens: Option<PathBuf>,
    /// Everybody on this machine is an admin.
    pub no_token: bool,
}

impl ListenOptions {
    /// What would be unsafe is refused.
    fn check(&self) -> Result<(), ServerError> {
        let Some(address) = self.address else { return Ok(()) };
        if address.ip().is_loopback() {
            if self.tokens.is_none() && !self.no_token {
                return Err(ServerError::user(format!(
                    "{address} can be reached by every user and every program of this machine, so it wants tokens\n  next: make one with `pelton token NAME --role admin --tokens FILE` and give --tokens FILE, or leave --listen out and use the Unix socket; --no-token makes everybody on this machine an admin"
                )));
            }
            return Ok(());
        }
        let missing = match (&self.tls, &self.tokens) {
            (None, None) => "neither TLS nor tokens are",
            (None, Some(_)) => "TLS is not",
            (Some(_), None) => "no tokens are",
            (Some(_), Some(_)) if self.no_token => {
                return Err(ServerError::user(format!("{address} is not of the loopback, so --no-token cannot be used with it")));
            }
            (Some(_), Some(_)) => return Ok(()),
        };
        Err(ServerError::user(format!(
            "{address} can be reached from other machines, and {missing} given, so the host does not start\n  next: give --tls-cert FILE --tls-key FILE and --tokens FILE, or listen at 127.0.0.1"
        )))
    }

    /// Who may use the API by TCP.
    fn access(&self) -> Result<Access, ServerError> {
        let Some(path) = &self.tokens else { return Ok(Access::Everybody) };
        let tokens = Tokens::read(path)?;
        match tokens.is_empty() {
            true => Err(ServerError::user(format!(
                "{} has no tokens\n  next: make one with `pelton token NAME --role admin --tokens {0}`",
                path.display()
            ))),
            false => Ok(Access::Tokens(tokens)),
        }
    }
}

/// Listens, and has not answered anybody yet.
pub struct Listening {
    socket: (UnixListener, PathBuf),
    tcp: Option<(TcpListener, Option<Arc<SslAcceptor>>)>,
    access: Access,
}

/// Binds everything, or says why not.
pub async fn listen(options: &ListenOptions) -> Result<Listening, ServerError> {
    options.check()?;
    let access = options.access()?;
    let tls = options.tls.as_ref().map(|(certificates, key)| acceptor(certificates, key)).transpose()?.map(Arc::new);
    let tcp = match options.address {
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            let cannot = |error| ServerError::user(format!("cannot listen at {address}: {error}\n  next: give another --listen"));
            Some((listener.map_err(cannot)?, tls))
        }
        None => None,
    };
    Ok(Listening { socket: (unix(&options.socket)?, options.socket.clone()), tcp, access })
}

fn unix(path: &Path) -> Result<UnixListener, ServerError> {
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(ServerError::user(format!(
            "the path of the Unix socket {} is longer than {MAX_SOCKET_PATH} bytes\n  next: name a shorter one with --socket",
            path.display()
        )));
    }
    // Left by a host that died: the lock of the data folder shows that none is there.
    let _ = std::fs::remove_file(path);
    let bound = UnixListener::bind(path)
        .and_then(|listener| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map(|()| listener));
    bound.map_err(|error| ServerError::user(format!("cannot listen at {}: {error}\n  next: give another --socket", path.display())))
}

fn acceptor(certificates: &Path, key: &Path) -> Result<SslAcceptor, ServerError> {
    let wrong = |path: &Path, error: &dyn std::fmt::Display| {
        ServerError::user(format!(
            "{}: {error}\n  next: give PEM files, --tls-cert with the certificate and those that signed it, --tls-key with its key",
            path.display()
        ))
    };
    // TLS 1.2 and 1.3, with the ciphers that Mozilla recommends.
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).map_err(|error| wrong(certificates, &error))?;
    acceptor.set_certificate_chain_file(certificates).map_err(|error| wrong(certificates, &error))?;
    acceptor.set_private_key_file(key, SslFiletype::PEM).map_err(|error| wrong(key, &error))?;
    acceptor.check_private_key().map_err(|error| wrong(key, &error))?;
    Ok(acceptor.build())
}

impl Listening {
    /// Where, for people.
    pub fn places(&self) -> Vec<String> {
        let mut places = vec![self.socket.1.display().to_string()];
        if let Some((listener, tls)) = &self.tcp
            && let Ok(address) = listener.local_addr()
        {
            places.push(format!("{}://{address}", if tls.is_some() { "https" } else { "http" }));
        }
        places
    }

    /// Who may use the API by TCP.
    pub fn take_access(&mut self) -> Access {
        std::mem::replace(&mut self.access, Access::Tokens(Tokens::default()))
    }

    /// Answers until the host ends.
    pub async fn serve(self, app: Arc<App>, ends: watch::Receiver<bool>) {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let (listener, path) = self.socket;
        // Its owner is who has made it.
        let own = std::fs::metadata(&path).map_or(0, |metadata| metadata.uid());
        let unix = serve_unix(listener, own, app.clone(), connections.clone(), ends.clone());
        match self.tcp {
            Some((listener, tls)) => drop(tokio::join!(unix, serve_tcp(listener, tls, app, connections.clone(), ends))),
            None => unix.await,
        }
        let _ = std::fs::remove_file(path);
        // All connections are gone when all permits are back.
        let _ = tokio::time::timeout(LAST_REQUESTS, connections.acquire_many(MAX_CONNECTIONS as u32)).await;
    }
}

async fn serve_unix(listener: UnixListener, own: u32, app: Arc<App>, connections: Arc<Semaphore>, mut ends: watch::Receiver<bool>) {
    loop {
        let Ok(place) = connections.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ends.wait_for(|ends| *ends) => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let uid = stream.peer_cred().ok().map(|peer| peer.uid());
        // Whatever the folder's rights are: only its owner and the system's.
        if uid.is_none_or(|uid| uid != own && uid != 0) {
            continue;
        }
        tokio::spawn(converse(Box::new(stream), Peer { arrival: Arrival::Socket, uid }, app.clone(), place));
    }
}

async fn serve_tcp(
    listener: TcpListener,
    tls: Option<Arc<SslAcceptor>>,
    app: Arc<App>,
    connections: Arc<Semaphore>,
    mut ends: watch::Receiver<bool>,
) {
    loop {
        let Ok(place) = connections.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ends.wait_for(|ends| *ends) => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let loopback = stream.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
        let peer = Peer { arrival: if loopback { Arrival::Loopback } else { Arrival::Network }, uid: None };
        let (app, tls) = (app.clone(), tls.clone());
        tokio::spawn(async move {
            let Some(tls) = tls else { return converse(Box::new(stream), peer, app, place).await };
            match tokio::time::timeout(HANDSHAKE_PATIENCE, handshake(&tls, stream)).await {
                Ok(Ok(stream)) => converse(Box::new(stream), peer, app, place).await,
                Ok(Err(error)) => tracing::debug!(error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        });
    }
}

async fn handshake(tls: &SslAcceptor, stream: TcpStream) -> Result<SslStream<TcpStream>, String> {
    let ssl = Ssl::new(tls.context()).map_err(|error| error.to_string())?;
    let mut stream = SslStream::new(ssl, stream).map_err(|error| error.to_string())?;
    Pin::new(&mut stream).accept().await.map_err(|error| error.to_string())?;
    Ok(stream)
}

/// One connection: one request.
async fn converse(mut stream: Box<dyn Stream>, peer: Peer, app: Arc<App>, _place: OwnedSemaphorePermit) {
    let answer = match tokio::time::timeout(HEADER_PATIENCE, http::read_head(&mut stream)).await {
        Ok(Ok(None)) => return,
        Ok(Ok(Some((head, rest)))) => {
            let body = Body::new(&mut stream, &head, rest);
            api::handle(&app, peer, &head, body).await
        }
        Ok(Err(refusal)) => api::refuse(refusal),
        Err(_) => api::refuse(Refusal::new(Why::Slow, format!("the request did not arrive within {} s", HEADER_PATIENCE.as_secs()))),
    };
    http::finish(stream, &answer).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_addresses_are_refused() {
        let file = || Some(PathBuf::from("tokens"));
        let tls = || Some((PathBuf::from("cert.pem"), PathBuf::from("key.pem")));
        let table = [
            // Address, TLS, tokens, --no-token, part of the refusal.
            (None, None, None, false, None),
            (Some("127.0.0.1:0"), None, None, false, Some("wants tokens")),
            (Some("127.0.0.1:0"), None, None, true, None),
            (Some("127.0.0.1:0"), None, file(), false, None),
            (Some("[::1]:0"), None, file(), false, None),
            (Some("0.0.0.0:0"), None, None, false, Some("neither TLS nor tokens")),
            (Some("0.0.0.0:0"), None, None, true, Some("neither TLS nor tokens")),
            (Some("0.0.0.0:0"), None, file(), false, Some("TLS is not given")),
            (Some("0.0.0.0:0"), tls(), None, false, Some("no tokens are given")),
            (Some("0.0.0.0:0"), tls(), file(), true, Some("--no-token cannot")),
            (Some("[::]:0"), None, file(), false, Some("TLS is not given")),
            (Some("192.0.2.1:0"), tls(), file(), false, None),
        ];
        for (address, tls, tokens, no_token, refusal) in table {
            let options = ListenOptions { socket: "s".into(), address: address.map(|text| text.parse().unwrap()), tls, tokens, no_token };
            let checked = options.check().map_err(|error| error.to_string());
            match refusal {
                None => assert_eq!(checked, Ok(()), "{options:?}"),
                Some(part) => assert!(checked.as_ref().is_err_and(|message| message.contains(part)), "{options:?}: {checked:?}"),
            }
        }
    }
}
