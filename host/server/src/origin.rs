//! Which requests may come from a web page of somebody else, and are refused.
//!
//! A page in a browser on this machine can send requests to 127.0.0.1 in its user's name (cross-site request forgery), and a name that somebody else's DNS
//! server answers with 127.0.0.1 makes such a page look like ours (DNS rebinding). A program is not a page and loses nothing by these rules:
//!
//! - On a loopback address `Host` must be a name of the loopback, or an address of it.
//! - A request with `Origin` must come from this very host, and one with `Sec-Fetch-Site` must not come from another site.
//! - A change must have a content type that a page may not send without asking first (JSON, or WebAssembly). The host never answers such a question.
//! - There are no cookies: a browser knows nothing that would give it a right.

/// What a request says of where it comes from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// `Host`.
    pub host: Option<&'a str>,
    /// `Origin`.
    pub origin: Option<&'a str>,
    /// `Sec-Fetch-Site`.
    pub site: Option<&'a str>,
}

/// Where it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// At the Unix socket, which pages cannot reach.
    Socket,
    /// At a loopback address.
    Loopback,
    /// At another address, by TLS.
    Network,
}

/// Why a request is refused, if it is.
pub fn refused(facts: Facts<'_>, arrival: Arrival) -> Option<&'static str> {
    let Some(host) = facts.host else { return Some("there is no `Host`") };
    if arrival == Arrival::Loopback && !is_loopback(without_port(host)) {
        return Some("`Host` is no name of this machine's loopback: ask for localhost, 127.0.0.1 or [::1]");
    }
    if let Some(origin) = facts.origin {
        let same = origin.split_once("://").is_some_and(|(_, from)| from.eq_ignore_ascii_case(host));
        if !same || arrival == Arrival::Socket {
            return Some("`Origin` is not this host: pages of others may not use its API");
        }
    }
    match facts.site {
        None | Some("same-origin" | "none") => None,
        Some(_) => Some("`Sec-Fetch-Site` is not this host: pages of others may not use its API"),
    }
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_others_are_refused() {
        let local = Some("127.0.0.1:8431");
        let table = [
            // Host, Origin, Sec-Fetch-Site, arrival, whether it may pass.
            (local, None, None, Arrival::Loopback, true),
            (Some("LOCALHOST:8431"), None, None, Arrival::Loopback, true),
            (Some("[::1]:8431"), None, None, Arrival::Loopback, true),
            (Some("127.0.0.1"), None, None, Arrival::Loopback, true),
            (None, None, None, Arrival::Loopback, false),
            (Some("evil.example:8431"), None, None, Arrival::Loopback, false),
            (Some("localhost.evil.example"), None, None, Arrival::Loopback, false),
            (Some("127.0.0.1.evil.example"), None, None, Arrival::Loopback, false),
            (Some("evil.example"), None, None, Arrival::Network, true),
            (local, Some("http://127.0.0.1:8431"), Some("same-origin"), Arrival::Loopback, true),
            (local, Some("http://evil.example"), None, Arrival::Loopback, false),
            (local, Some("http://127.0.0.1:9999"), None, Arrival::Loopback, false),
            (local, Some("null"), None, Arrival::Loopback, false),
            (local, None, Some("cross-site"), Arrival::Loopback, false),
            (local, None, Some("same-site"), Arrival::Loopback, false),
            (local, None, Some("none"), Arrival::Loopback, true),
            (Some("pelton.example"), Some("https://pelton.example"), None, Arrival::Network, true),
            (Some("pelton.example"), Some("https://evil.example"), None, Arrival::Network, false),
            (Some("localhost"), Some("http://localhost"), None, Arrival::Socket, false),
        ];
        for (host, origin, site, arrival, passes) in table {
            let refused = refused(Facts { host, origin, site }, arrival);
            assert_eq!(refused.is_none(), passes, "{host:?} {origin:?} {site:?} {arrival:?}: {refused:?}");
        }
    }
}
