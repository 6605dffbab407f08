//! IP addresses and blocks of them, as Kubernetes' library has them.

use std::net::IpAddr;

use super::value::{Unusable, Val, overload};
use super::{Evaluated, error};

/// A block in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub address: IpAddr,
    pub length: u8,
}

impl Block {
    /// Reads `ADDRESS/LENGTH`.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let address = ip(address)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let plain = length.bytes().all(|byte| byte.is_ascii_digit());
        let plain = plain && (length.len() == 1 || !length.starts_with('0'));
        let length: u8 = length.parse().ok().filter(|length| *length <= most)?;
        plain.then_some(Self { address, length })
    }

    fn bits(address: IpAddr) -> (u128, u8) {
        match address {
            IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, 32),
            IpAddr::V6(address) => (u128::from(address), 128),
        }
    }

    /// Without the bits behind its length.
    fn masked(self) -> Self {
        let cut = |bits: u128, most: u8| {
            let behind = u32::from(most.saturating_sub(self.length));
            let kept = bits.checked_shr(behind).unwrap_or(0);
            kept.checked_shl(behind).unwrap_or(0)
        };
        let address = match self.address {
            IpAddr::V4(address) => {
                let kept = cut(u128::from(u32::from(address)), 32);
                IpAddr::V4((kept as u32).into())
            }
            IpAddr::V6(address) => IpAddr::V6(cut(address.into(), 128).into()),
        };
        Self { address, ..self }
    }

    fn contains(&self, other: IpAddr) -> bool {
        let ((own, most), (other, others)) = (Self::bits(self.address), Self::bits(other));
        let differ = (own ^ other).checked_shr(128 - u32::from(self.length));
        most == others && differ.unwrap_or(0) == 0
    }
}

fn ip(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    // As Kubernetes: an address of IPv4 is written as one.
    let mapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    (!mapped).then_some(address)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn is_link_local_multicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets().starts_with(&[224, 0, 0]),
        IpAddr::V6(address) => address.segments()[0] & 0xFF0F == 0xFF02,
    }
}

/// Of private addresses as well, as in Go.
fn is_global(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    !broadcast && !special && !is_link_local(address)
}

/// The functions of this library; nothing for others.
pub fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Evaluated<'a>> {
    Some(match (name, args) {
        ("isIP", [Val::Text(text)]) => Ok(Val::Bool(ip(text).is_some())),
        ("isCIDR", [Val::Text(text)]) => Ok(Val::Bool(Block::parse(text).is_some())),
        ("ip", [Val::Text(text)]) => parsed(text).map(Val::Ip),
        ("ip.isCanonical", [Val::Text(text)]) => {
            parsed(text).map(|address| Val::Bool(address.to_string() == **text))
        }
        ("cidr", [Val::Text(text)]) => match Block::parse(text) {
            Some(block) => Ok(Val::Cidr(block)),
            None => error("network address parse error during conversion from string"),
        },
        ("ip", [Val::Cidr(block)]) => Ok(Val::Ip(block.address)),
        ("family", [Val::Ip(address)]) => Ok(Val::Int(if address.is_ipv4() { 4 } else { 6 })),
        ("isLoopback", [Val::Ip(address)]) => Ok(Val::Bool(address.is_loopback())),
        ("isUnspecified", [Val::Ip(address)]) => Ok(Val::Bool(address.is_unspecified())),
        ("isLinkLocalUnicast", [Val::Ip(address)]) => Ok(Val::Bool(is_link_local(*address))),
        ("isLinkLocalMulticast", [Val::Ip(address)]) => {
            Ok(Val::Bool(is_link_local_multicast(*address)))
        }
        ("isGlobalUnicast", [Val::Ip(address)]) => Ok(Val::Bool(is_global(*address))),
        ("masked", [Val::Cidr(block)]) => Ok(Val::Cidr(block.masked())),
        ("prefixLength", [Val::Cidr(block)]) => Ok(Val::Int(i64::from(block.length))),
        ("containsIP", [Val::Cidr(block), address]) => {
            contains(address, ip, |address| block.contains(address))
        }
        ("containsCIDR", [Val::Cidr(block), other]) => {
            let other = match other {
                Val::Cidr(other) => Some(*other),
                Val::Text(text) => Block::parse(text),
                _ => return Some(Err(overload())),
            };
            match other {
                Some(other) => Ok(Val::Bool(
                    other.length >= block.length && block.contains(other.address),
                )),
                None => error("network address parse error during conversion from string"),
            }
        }
        _ => return None,
    })
}

fn parsed(text: &str) -> Result<IpAddr, Unusable> {
    let shown = apiservice::told::short(text, apiservice::told::MAX_PATH);
    ip(text).ok_or_else(|| {
        Unusable::Error(format!(
            "IP Address {shown:?} parse error during conversion from string"
        ))
    })
}

fn contains<'a>(
    value: &Val<'a>,
    parse: impl Fn(&str) -> Option<IpAddr>,
    test: impl Fn(IpAddr) -> bool,
) -> Evaluated<'a> {
    match value {
        Val::Ip(address) => Ok(Val::Bool(test(*address))),
        Val::Text(text) => {
            let parsed = parse(text).ok_or_else(|| {
                let why = "IP Address parse error during conversion from string";
                Unusable::Error(why.to_owned())
            })?;
            Ok(Val::Bool(test(parsed)))
        }
        _ => Err(overload()),
    }
}
