//! The servers of a datastore: their addresses, and what several failures mean.

use std::fmt;

use aws_lc_rs::digest;

use crate::tenancy::{Connection, TenancyError};

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Endpoint {
    /// From `host`, `host:port` or `[address]:port`.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, TenancyError> {
        let refused = || {
            TenancyError::Refused(format!(
                "the endpoint {text:?} cannot be used: it is not host:port"
            ))
        };
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(refused)?;
                (
                    host,
                    rest.strip_prefix(':').or(rest.is_empty().then_some("")),
                )
            }
            None => match text.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, Some("")),
            },
        };
        let port = match port.ok_or_else(refused)? {
            "" => default_port,
            port => port.parse().map_err(|_| refused())?,
        };
        let bracketed = text.starts_with('[');
        let odd = |c: char| c.is_whitespace() || matches!(c, '/' | '@' | '?' | ',');
        if host.is_empty() || host.contains(odd) || (host.contains(':') && !bracketed) {
            return Err(refused());
        }
        Ok(Endpoint {
            host: host.to_owned(),
            port,
        })
    }

    /// All of a connection.
    pub fn all(connection: &Connection, default_port: u16) -> Result<Vec<Self>, TenancyError> {
        if connection.endpoints.is_empty() {
            return Err(TenancyError::Refused(
                "the datastore has no endpoints".to_owned(),
            ));
        }
        let endpoints = connection.endpoints.iter();
        endpoints
            .map(|text| Endpoint::parse(text, default_port))
            .collect()
    }
}

/// Name and password of the administrator.
pub fn administrator(connection: &Connection) -> Result<(String, String), TenancyError> {
    let given = |value: &Option<String>, what: &str| match value.as_deref() {
        None | Some("") => Err(TenancyError::Refused(format!(
            "datastores of driver {:?} need the administrator's {what} (basicAuth)",
            connection.driver
        ))),
        Some(value) => Ok(value.to_owned()),
    };
    Ok((
        given(&connection.username, "username")?,
        given(&connection.password, "password")?,
    ))
}

/// What the failures of all endpoints mean together. Identity is the matter only if it is
/// at each of them.
pub fn together(mut failures: Vec<TenancyError>) -> TenancyError {
    if failures.len() == 1 {
        return failures.remove(0);
    }
    let same = |kind: fn(&TenancyError) -> Option<&String>| {
        let texts: Vec<_> = failures
            .iter()
            .filter_map(kind)
            .map(String::as_str)
            .collect();
        (texts.len() == failures.len() && !texts.is_empty()).then(|| texts.join("; "))
    };
    if let Some(text) = same(|failure| match failure {
        TenancyError::Unauthenticated(text) => Some(text),
        _ => None,
    }) {
        return TenancyError::Unauthenticated(text);
    }
    if let Some(text) = same(|failure| match failure {
        TenancyError::Refused(text) => Some(text),
        _ => None,
    }) {
        return TenancyError::Refused(text);
    }
    let texts = failures.iter().map(|failure| match failure {
        TenancyError::Unreachable(text)
        | TenancyError::Unauthenticated(text)
        | TenancyError::NoSpace(text)
        | TenancyError::Refused(text)
        | TenancyError::Other(text) => text.clone(),
        other => other.to_string(),
    });
    TenancyError::Unreachable(texts.collect::<Vec<_>>().join("; "))
}

/// A number for the lock on a name. That two names may share one costs a wait.
pub fn lock_number(name: &str) -> i64 {
    let hash = digest::digest(&digest::SHA256, name.as_bytes());
    let mut number = [0; 8];
    number.copy_from_slice(&hash.as_ref()[..8]);
    i64::from_be_bytes(number)
}

/// Text for something that nobody can guess: 128 bits.
pub fn random_text() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let parse = |text: &str| Endpoint::parse(text, 5432).map(|it| it.to_string());
        for (text, read) in [
            ("db", "db:5432"),
            ("db:6000", "db:6000"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("[::1]:5", "[::1]:5"),
            ("[::1]", "[::1]:5432"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(read), "{text}");
        }
        for bad in [
            "",
            ":1",
            "::1",
            "db:x",
            "db:99999",
            "[::1",
            "[::1]x",
            "http://db:1",
            "a,b",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_failures_mean_together() {
        let [down, who] = [
            TenancyError::Unreachable("a: down".into()),
            TenancyError::Unauthenticated("b: who".into()),
        ];
        assert_eq!(together(vec![who.clone()]), who);
        assert_eq!(
            together(vec![down, who.clone()]),
            TenancyError::Unreachable("a: down; b: who".into())
        );
        assert_eq!(
            together(vec![who.clone(), who]),
            TenancyError::Unauthenticated("b: who; b: who".into())
        );
    }
}
