//! Names and addresses that certificates carry.

use std::net::IpAddr;

/// Names and addresses that a certificate carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlternativeNames {
    /// DNS names, each once.
    pub dns: Vec<String>,
    /// IP addresses, each once.
    pub ip: Vec<IpAddr>,
}

impl AlternativeNames {
    /// Adds a name or an address, unless it is there or empty.
    pub fn add(&mut self, name: &str) {
        match name.parse::<IpAddr>() {
            Ok(address) if !self.ip.contains(&address) => self.ip.push(address),
            Ok(_) => {}
            Err(_) if name.is_empty() || self.dns.iter().any(|known| known == name) => {}
            Err(_) => self.dns.push(name.to_owned()),
        }
    }
}

impl<'a> Extend<&'a str> for AlternativeNames {
    fn extend<T: IntoIterator<Item = &'a str>>(&mut self, names: T) {
        names.into_iter().for_each(|name| self.add(name));
    }
}
