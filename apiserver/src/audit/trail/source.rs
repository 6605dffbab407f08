//! Where a request comes from. All addresses but the last are what clients say.

use std::net::IpAddr;

use http::HeaderMap;

/// Addresses of one request.
const MOST: usize = 64;

/// The chain of `X-Forwarded-For`, `X-Real-Ip` if it is not in it, and the other end of the
/// connection (R9.11).
pub fn addresses(headers: &HeaderMap, source: Option<IpAddr>) -> Vec<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let parsed = |text: &str| text.trim().parse::<IpAddr>().ok();
    let forwarded = text("x-forwarded-for").unwrap_or_default().split(',');
    let mut chain: Vec<IpAddr> = forwarded.filter_map(parsed).take(MOST).collect();
    let real = text("x-real-ip").and_then(parsed);
    chain.extend(real.filter(|real| !chain.contains(real)));
    let source = source.map(|source| source.to_canonical());
    chain.extend(source.filter(|source| chain.last() != Some(source)));
    chain.iter().map(IpAddr::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R9.11.
    #[test]
    fn the_chain_is_told_as_by_kubernetes() {
        for (forwarded, real, source, expected) in [
            ("", "", "10.0.0.1", "10.0.0.1"),
            (
                "1.2.3.4, 10.0.0.2",
                "",
                "10.0.0.1",
                "1.2.3.4 10.0.0.2 10.0.0.1",
            ),
            ("1.2.3.4,nobody,::1", "", "10.0.0.1", "1.2.3.4 ::1 10.0.0.1"),
            ("1.2.3.4", "5.6.7.8", "10.0.0.1", "1.2.3.4 5.6.7.8 10.0.0.1"),
            ("1.2.3.4", "1.2.3.4", "10.0.0.1", "1.2.3.4 10.0.0.1"),
            (
                "1.2.3.4,10.0.0.1",
                "",
                "::ffff:10.0.0.1",
                "1.2.3.4 10.0.0.1",
            ),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [("x-forwarded-for", forwarded), ("x-real-ip", real)] {
                if !value.is_empty() {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            let chain = addresses(&headers, Some(source.parse().unwrap()));
            assert_eq!(chain.join(" "), expected);
        }
        let mut headers = HeaderMap::new();
        headers.insert(
            "x-forwarded-for",
            ["1.2.3.4"; 1000].join(",").parse().unwrap(),
        );
        assert_eq!(addresses(&headers, None).len(), MOST);
    }
}
