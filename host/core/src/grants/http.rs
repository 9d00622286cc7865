//! Which requests a plugin may have made for it, and which addresses they may reach.
//!
//! A URL is read here, once, by a strict grammar, and the request is made of the parts that were read: what was judged and what is sent cannot
//! differ. What might be read in two ways (an `@`, `..`, an encoded slash, `0x7f.1`) is refused rather than put right.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::fmt;

use super::Value;
use crate::time::Duration;

/// The largest body of a request without a setting.
pub const REQUEST_BYTES: u64 = 1 << 20;
/// The largest answer without a setting.
pub const RESPONSE_BYTES: u64 = 4 << 20;
/// The longest time of a request without a setting.
pub const DEADLINE: Duration = Duration::from_micros(5_000_000);
/// Redirects that are followed for one request.
pub const MAX_REDIRECTS: usize = 5;
/// The longest URL.
const MAX_URL_BYTES: usize = 8 * 1024;
/// Methods that a grant may name.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// Headers that say how a request is sent, which is for the host to say.
const OF_THE_HOST: [&str; 9] =
    ["host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "keep-alive", "proxy-authorization"];

/// Requests that are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGrant {
    /// Methods, in capitals.
    pub methods: Vec<String>,
    /// Where URLs begin.
    pub prefix: Url,
    /// Headers that the host adds, in place of those of the plugin.
    pub headers: Vec<Header>,
    /// Networks that are reached although they are not public.
    pub private: Vec<Network>,
    /// The largest body of a request.
    pub request_bytes: u64,
    /// The largest body of an answer.
    pub response_bytes: u64,
    /// The longest time of a request with its redirects.
    pub deadline: Duration,
}

/// A header that the host adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name, in small letters.
    pub name: String,
    /// What stands before the value, such as `Bearer `.
    pub prefix: String,
    /// The value.
    pub value: Value,
}

/// A URL of which every part is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// `https`, not `http`.
    pub is_tls: bool,
    /// In small letters; an IPv6 address without brackets.
    pub host: String,
    /// Also where it is not written.
    pub port: u16,
    /// Begins with `/`.
    pub path: String,
    /// What stands behind `?`.
    pub query: Option<String>,
}

/// A network, as `10.0.0.0/8` or `::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl HttpGrant {
    /// From `GET https://host/path/` or `GET,POST https://host/path/`, with the settings that go without saying.
    pub fn parse(text: &str) -> Result<HttpGrant, String> {
        let form = || format!("`{text}` is not of the form `GET https://host/path/`");
        let (methods, url) = text.trim().split_once(char::is_whitespace).ok_or_else(form)?;
        let methods: Vec<String> = methods.split(',').map(|method| method.trim().to_string()).collect();
        if let Some(method) = methods.iter().find(|method| !METHODS.contains(&method.as_str())) {
            return Err(format!("`{method}` is no method that can be granted; there are {}", METHODS.join(", ")));
        }
        let prefix = Url::parse(url.trim())?;
        if prefix.query.is_some() || url.contains('#') {
            return Err(format!("`{url}` is where URLs begin, and has no `?` and no `#`"));
        }
        Ok(HttpGrant {
            methods,
            prefix,
            headers: Vec::new(),
            private: Vec::new(),
            request_bytes: REQUEST_BYTES,
            response_bytes: RESPONSE_BYTES,
            deadline: DEADLINE,
        })
    }

    fn covers(&self, url: &Url) -> bool {
        let prefix = &self.prefix;
        let below = |rest: &str| rest.is_empty() || prefix.path.ends_with('/') || rest.starts_with('/');
        (prefix.is_tls, &prefix.host, prefix.port) == (url.is_tls, &url.host, url.port)
            && url.path.strip_prefix(prefix.path.as_str()).is_some_and(below)
    }

    /// Whether a connection may go to an address.
    pub fn reaches(&self, address: IpAddr) -> bool {
        is_public(address) || self.private.iter().any(|network| network.contains(address))
    }
}

/// The grant by which a request is made. The error is a sentence.
pub fn allowed<'g>(grants: &'g [HttpGrant], method: &str, url: &Url) -> Result<&'g HttpGrant, String> {
    let covering: Vec<&HttpGrant> = grants.iter().filter(|grant| grant.covers(url)).collect();
    if let Some(grant) = covering.iter().find(|grant| grant.methods.iter().any(|granted| granted == method)) {
        return Ok(grant);
    }
    let what = if covering.is_empty() { "URL" } else { "method" };
    Err(format!("`{method} {url}` is not granted: no entry of `grants.http` has this {what}. Add `- {method} {}`", url.origin()))
}

/// Whether a plugin may set a header itself; some say how a request is sent, which is for the host to say.
pub fn may_set(header: &str) -> bool {
    let header = header.to_ascii_lowercase();
    !OF_THE_HOST.contains(&header.as_str()) && !header.starts_with("proxy-")
}

impl Url {
    /// Reads a URL of `http` or `https`. What stands behind `#` is left out.
    pub fn parse(text: &str) -> Result<Url, String> {
        let wrong = |why: &str| Err(format!("`{}` is no URL that can be asked for: {why}", shown(text)));
        if text.len() > MAX_URL_BYTES {
            return wrong("it is too long");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\\"<>^`{|}".contains(&byte)) {
            return wrong("write characters that may not stand in a URL percent-encoded");
        }
        let text = text.split('#').next().unwrap_or(text);
        let Some((scheme, rest)) = text.split_once("://") else { return wrong("it does not begin with https:// or http://") };
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return wrong("it does not begin with https:// or http://"),
        };
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let Some((host, port)) = host_and_port(authority, if is_tls { 443 } else { 80 }) else {
            return wrong("its host is not a name or an address with, perhaps, a port");
        };
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query.to_string())),
            None => (rest, None),
        };
        let path = if path.is_empty() { "/" } else { path };
        if !is_plain(path) {
            return wrong("its path has `.` or `..` as a part, or an encoded slash");
        }
        Ok(Url { is_tls, host, port, path: path.into(), query })
    }

    /// The URL that a redirect from here names.
    pub fn join(&self, location: &str) -> Result<Url, String> {
        let scheme = if self.is_tls { "https" } else { "http" };
        if location.contains("://") {
            return Url::parse(location);
        }
        if location.starts_with("//") {
            return Url::parse(&format!("{scheme}:{location}"));
        }
        let folder = match location.starts_with('/') {
            true => "",
            false => self.path.rsplit_once('/').map_or("", |(folder, _)| folder),
        };
        let between = if location.starts_with('/') { "" } else { "/" };
        let origin = self.origin();
        Url::parse(&format!("{}{folder}{between}{location}", origin.trim_end_matches('/')))
    }

    /// The start of all URLs of its server.
    pub fn origin(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}/", self.authority())
    }

    /// Host and, where it is not the usual one, port: what stands in the header `host`.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let usual = if self.is_tls { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }

    /// Path and query: what stands in the first line of a request.
    pub fn target(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }
}

impl fmt::Display for Url {
    /// Without the query, in which there may be what is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin().trim_end_matches('/'), self.path)
    }
}

impl fmt::Display for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.methods.join(","), self.prefix)?;
        for Header { name, prefix, value } in &self.headers {
            write!(f, ", header {name} {prefix:?} from {value}")?;
        }
        for network in &self.private {
            write!(f, ", private {}/{}", network.address, network.bits)?;
        }
        write!(f, ", {} and {} bytes, {}", self.request_bytes, self.response_bytes, self.deadline)
    }
}

fn shown(text: &str) -> String {
    text.split('?').next().unwrap_or(text).chars().take(200).collect()
}

fn host_and_port(authority: &str, usual: u16) -> Option<(String, u16)> {
    let number = |port: &str| port.parse::<u16>().ok().filter(|port| *port > 0 && !authority.contains('+'));
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let host: Ipv6Addr = host.parse().ok()?;
        let port = if rest.is_empty() { usual } else { number(rest.strip_prefix(':')?)? };
        return Some((host.to_string(), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, number(port)?),
        None => (authority, usual),
    };
    let host = host.to_ascii_lowercase();
    let is_name =
        host.split('.').all(|label| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    // Resolvers take `127.1`, `0x7f.1` and `2130706433` for addresses; here an address is four decimal numbers.
    let last = host.rsplit('.').next()?;
    let is_numeric = last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit());
    (is_name && (!is_numeric || host.parse::<Ipv4Addr>().is_ok())).then_some((host, port))
}

/// Whether a path means the same to everybody.
fn is_plain(path: &str) -> bool {
    let small = path.to_ascii_lowercase();
    let dots = small.replace("%2e", ".");
    !["%2f", "%5c", "%00"].iter().any(|encoded| small.contains(encoded)) && !dots.split('/').any(|part| part == "." || part == "..")
}

impl Network {
    /// From an address, or an address and its leading bits.
    pub fn parse(text: &str) -> Result<Network, String> {
        let wrong = || format!("`{text}` is no network such as 10.0.0.0/8, 127.0.0.1 or fd00::/8");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u32>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(all);
        if bits > all { Err(wrong()) } else { Ok(Network { address, bits }) }
    }

    /// Whether an address lies in it. An IPv4 address within IPv6 is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same_start(u32::from(own).into(), u32::from(other).into(), 32 - self.bits.min(32)),
            (IpAddr::V6(own), IpAddr::V6(other)) => same_start(own.into(), other.into(), 128 - self.bits),
            _ => false,
        }
    }
}

fn same_start(own: u128, other: u128, rest: u32) -> bool {
    own.checked_shr(rest).unwrap_or(0) == other.checked_shr(rest).unwrap_or(0)
}

/// Networks that are not the public internet (the registries of special-purpose addresses, RFC 6890), as first address and bits.
const SPECIAL_V4: [([u8; 4], u32); 15] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];
/// The same within 2000::/3, outside of which nothing is public.
const SPECIAL_V6: [(u16, u16, u32); 4] = [(0x2001, 0, 23), (0x2001, 0x0db8, 32), (0x2002, 0, 16), (0x3fff, 0, 20)];

fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            !SPECIAL_V4.iter().any(|(first, bits)| Network { address: IpAddr::from(*first), bits: *bits }.contains(address.into()))
        }
        IpAddr::V6(address) => {
            let of = |first, second, bits| Network { address: Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0).into(), bits };
            of(0x2000, 0, 3).contains(address.into())
                && !SPECIAL_V6.iter().any(|(first, second, bits)| of(*first, *second, *bits).contains(address.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants() -> Vec<HttpGrant> {
        ["GET https://api.example.com/v1", "GET,POST http://localhost:8080/in/"].map(|text| HttpGrant::parse(text).unwrap()).into()
    }

    fn check(method: &str, url: &str, expected: bool) {
        let parsed = Url::parse(url).unwrap();
        assert_eq!(allowed(&grants(), method, &parsed).is_ok(), expected, "{method} {url}");
    }

    #[test]
    fn requests_are_allowed_by_method_and_start() {
        check("GET", "https://api.example.com/v1", true);
        check("GET", "https://API.example.com:443/v1?q=1", true);
        check("GET", "https://api.example.com/v1/x", true);
        check("GET", "https://api.example.com/v1evil", false);
        check("GET", "https://api.example.com/", false);
        check("POST", "https://api.example.com/v1", false);
        check("get", "https://api.example.com/v1", false);
        check("GET", "http://api.example.com/v1", false);
        check("GET", "https://api.example.com:444/v1", false);
        check("GET", "https://api.example.com.evil.org/v1", false);
        check("POST", "http://localhost:8080/in/x", true);
        check("POST", "http://localhost:8080/in", false);
        let refused = allowed(&grants(), "PUT", &Url::parse("http://localhost:8080/in/x?secret").unwrap()).unwrap_err();
        assert_eq!(
            refused,
            "`PUT http://localhost:8080/in/x` is not granted: no entry of `grants.http` has this method. Add `- PUT http://localhost:8080/`"
        );
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_no_url() {
        for wrong in [
            "api.example.com/v1",
            "ftp://api.example.com/",
            "https://api.example.com@evil.org/v1",
            "https://user:word@api.example.com/v1",
            "https://api.example.com/v1/../admin",
            "https://api.example.com/v1/%2e%2E/admin",
            "https://api.example.com/v1/%2Fx",
            "https://api.example.com/v1\\x",
            "https://api.example.com/v1 HTTP/1.1",
            "https://api.example.com/v1\r\nx: y",
            "https:///v1",
            "https://:80/",
            "https://a..b/",
            "https://host:0/",
            "https://host:+80/",
            "https://host:99999/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.0.0.0x1/",
            "http://[::1/",
            "http://[fe80::1%25eth0]/",
            "https://höst/",
        ] {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
        let url = Url::parse("HTTPS://Host.example?a=b#c").unwrap();
        assert_eq!(
            (url.target().as_str(), url.authority().as_str(), url.to_string().as_str()),
            ("/?a=b", "host.example", "https://host.example/")
        );
        assert_eq!(Url::parse("http://[::1]:8080/x").unwrap().authority(), "[::1]:8080");
    }

    #[test]
    fn a_redirect_is_read_from_where_it_came() {
        let from = Url::parse("https://a.example:8443/x/y?q").unwrap();
        for (location, expected) in [
            ("https://b.example/z", Some("https://b.example/z")),
            ("//b.example/z", Some("https://b.example/z")),
            ("/z?r", Some("https://a.example:8443/z")),
            ("z", Some("https://a.example:8443/x/z")),
            ("../z", None),
            ("javascript:alert(1)", Some("https://a.example:8443/x/javascript:alert(1)")),
        ] {
            assert_eq!(from.join(location).ok().map(|url| url.to_string()).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn addresses_that_are_not_public_have_to_be_named() {
        for (address, public) in [
            ("8.8.8.8", true),
            ("127.0.0.1", false),
            ("127.255.0.1", false),
            ("10.1.2.3", false),
            ("172.31.0.1", false),
            ("172.32.0.1", true),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            ("224.0.0.1", false),
            ("2606:4700::1111", true),
            ("::1", false),
            ("::", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:8.8.8.8", true),
            ("::127.0.0.1", false),
            ("64:ff9b::7f00:1", false),
            ("2002:7f00:1::", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
        let named = HttpGrant { private: vec![Network::parse("127.0.0.0/8").unwrap()], ..grants().remove(0) };
        let reaches = |address: &str| named.reaches(address.parse().unwrap());
        assert!(reaches("127.0.0.9") && reaches("::ffff:127.0.0.1") && reaches("8.8.8.8") && !reaches("10.0.0.1") && !reaches("::1"));
        assert!(Network::parse("0.0.0.0/0").unwrap().contains("10.0.0.1".parse().unwrap()));
        for wrong in ["10.0.0.0/33", "10.0.0", "x", "::/129", "10.0.0.0/-1"] {
            assert!(Network::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_grant_is_method_and_start() {
        let read = HttpGrant::parse("GET,HEAD https://host/x").unwrap();
        assert_eq!((read.methods, read.prefix.path), (vec!["GET".to_string(), "HEAD".into()], "/x".into()));
        for wrong in
            ["https://host/x", "get https://host/", "CONNECT https://host/", "GET https://host/?q", "GET https://host/#x", "GET host"]
        {
            assert!(HttpGrant::parse(wrong).is_err(), "{wrong}");
        }
        assert!(may_set("Accept") && !may_set("Host") && !may_set("Content-Length") && !may_set("proxy-x"));
    }
}
