//! A host and a port, as addresses of API servers are written.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// A host and a port.
///
/// Written as `host:port`, with brackets around an IPv6 address, which is how kubeconfigs,
/// kubeadm and `status.controlPlaneEndpoint` have it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// An IP address without brackets, or a DNS name.
    pub host: String,
    /// The TCP port.
    pub port: i32,
}

/// A text that is no `host:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not of the form host:port")]
pub struct NotAnEndpoint;

impl Endpoint {
    /// Of a host and a port.
    pub fn new(host: impl Into<String>, port: i32) -> Self {
        let host = host.into();
        Endpoint { host, port }
    }

    /// As the server of a kubeconfig.
    pub fn url(&self) -> String {
        format!("https://{self}")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse::<Ipv6Addr>() {
            Ok(_) => write!(f, "[{}]:{}", self.host, self.port),
            Err(_) => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Endpoint {
    type Err = NotAnEndpoint;

    fn from_str(text: &str) -> Result<Self, NotAnEndpoint> {
        let (host, port) = text.rsplit_once(':').ok_or(NotAnEndpoint)?;
        let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let host = match bare {
            Some(address) if address.parse::<Ipv6Addr>().is_ok() => address,
            None if !host.is_empty() && !host.contains(':') => host,
            _ => return Err(NotAnEndpoint),
        };
        let port: u16 = port.parse().map_err(|_| NotAnEndpoint)?;
        Ok(Endpoint::new(host, port.into()))
    }
}

/// Whether a name ends as an IPv4 address does, and so cannot be a DNS name.
pub(crate) fn ends_in_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_gets_brackets_and_loses_them() {
        for (host, port, text) in [
            ("fd00::1", 6443, "[fd00::1]:6443"),
            ("10.0.0.1", 6443, "10.0.0.1:6443"),
            ("lb.example.com", 443, "lb.example.com:443"),
        ] {
            let endpoint = Endpoint::new(host, port);
            assert_eq!(endpoint.to_string(), text);
            assert_eq!(endpoint.url(), format!("https://{text}"));
            assert_eq!(text.parse(), Ok(endpoint));
        }
        let bad = [
            "a.b.c",
            ":1",
            "a:",
            "a:65536",
            "fd00::1:80",
            "[a]:80",
            "[]:80",
            "a:-1",
        ];
        for bad in bad {
            assert_eq!(bad.parse::<Endpoint>(), Err(NotAnEndpoint), "{bad}");
        }
    }
}
