//! Addresses of ranges.

use std::net::IpAddr;

/// The first address of a range after its network address: the tenant's
/// `kubernetes` Service.
pub fn first_address(range: &str) -> Option<IpAddr> {
    nth_address(range, 1)
}

/// An address of a range, counted from that of the network: older versions
/// stored ranges with bits set beyond the prefix.
pub fn nth_address(range: &str, offset: u32) -> Option<IpAddr> {
    let (address, prefix) = range.split_once('/')?;
    let prefix: u32 = prefix.parse().ok()?;
    match address.parse().ok()? {
        IpAddr::V4(address) if prefix <= 32 => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            let found = (u32::from(address) & mask).checked_add(offset)?;
            Some(IpAddr::V4(found.into()))
        }
        IpAddr::V6(address) if prefix <= 128 => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            let found = (u128::from(address) & mask).checked_add(offset.into())?;
            Some(IpAddr::V6(found.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::first_address;

    #[test]
    fn the_first_address_of_a_range() {
        let table = [
            ("10.96.0.0/16", Some("10.96.0.1")),
            ("10.96.7.9/16", Some("10.96.0.1")),
            ("0.0.0.0/0", Some("0.0.0.1")),
            ("10.0.0.0/33", None),
            ("fd00:1::/108", Some("fd00:1::1")),
            ("::/0", Some("::1")),
            ("nonsense", None),
        ];
        for (range, expected) in table {
            assert_eq!(
                first_address(range)
                    .map(|found| found.to_string())
                    .as_deref(),
                expected,
                "{range}"
            );
        }
    }
}
