//! Names and addresses that certificates carry.

use std::collections::HashSet;
use std::net::IpAddr;

/// Names and addresses that a certificate carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlternativeNames {
    dns: Vec<String>,
    ip: Vec<IpAddr>,
    /// Those that are there, to be looked up: users name as many as they like.
    known_dns: HashSet<String>,
    known_ip: HashSet<IpAddr>,
}

impl AlternativeNames {
    /// Adds a name or an address, unless it is there or empty.
    pub fn add(&mut self, name: &str) {
        match name.parse::<IpAddr>() {
            Ok(address) if self.known_ip.insert(address) => self.ip.push(address),
            Ok(_) => {}
            Err(_) if name.is_empty() || self.known_dns.contains(name) => {}
            Err(_) => {
                self.known_dns.insert(name.to_owned());
                self.dns.push(name.to_owned());
            }
        }
    }

    /// DNS names, each once.
    pub fn dns(&self) -> &[String] {
        &self.dns
    }

    /// IP addresses, each once.
    pub fn ip(&self) -> &[IpAddr] {
        &self.ip
    }
}

impl<'a> Extend<&'a str> for AlternativeNames {
    fn extend<T: IntoIterator<Item = &'a str>>(&mut self, names: T) {
        names.into_iter().for_each(|name| self.add(name));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn many_names_of_a_certificate_are_looked_up() {
        let names: Vec<String> = (0..60_000)
            .map(|it| format!("{it:x}.example.com"))
            .collect();
        let mut found = AlternativeNames::default();
        let started = Instant::now();
        for _ in 0..2 {
            found.extend(names.iter().map(String::as_str));
            found.extend(["192.0.2.1", "", "192.0.2.1"]);
        }
        assert!(started.elapsed() < Duration::from_secs(10));
        assert_eq!(found.dns(), names, "in their order");
        assert_eq!(found.ip().len(), 1);
    }
}
