//! The few forms of DER that certificates are made of.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Error;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const NULL: u8 = 0x05;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const CONTEXT: u8 = 0x80;
const CONSTRUCTED: u8 = 0x20;

/// A tag, the length and the content.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 6);
    out.push(tag);
    let length = content.len();
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let skip = bytes.iter().take_while(|&&byte| byte == 0).count();
        out.push(0x80 | (bytes.len() - skip) as u8);
        out.extend_from_slice(&bytes[skip..]);
    }
    out.extend_from_slice(content);
    out
}

pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, &parts.concat())
}

pub(super) fn set(parts: &[&[u8]]) -> Vec<u8> {
    element(SET, &parts.concat())
}

pub(super) fn yes() -> Vec<u8> {
    element(BOOLEAN, &[0xff])
}

pub(super) fn null() -> Vec<u8> {
    element(NULL, &[])
}

/// A number that is not negative, given by its big-endian bytes.
pub(super) fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let skip = bytes.iter().take_while(|&&byte| byte == 0).count();
    let significant = &bytes[skip..];
    if significant.first().is_none_or(|byte| byte & 0x80 != 0) {
        element(INTEGER, &[&[0], significant].concat())
    } else {
        element(INTEGER, significant)
    }
}

pub(super) fn oid(arcs: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    let (first, rest) = match arcs {
        [a, b, rest @ ..] => (a * 40 + b, rest),
        _ => return element(OBJECT_IDENTIFIER, &[]),
    };
    for arc in std::iter::once(first).chain(rest.iter().copied()) {
        let groups = (0..10)
            .rev()
            .map(|group| ((arc >> (7 * group)) & 0x7f) as u8);
        let mut groups: Vec<u8> = groups.skip_while(|&group| group == 0).collect();
        if groups.is_empty() {
            groups.push(0);
        }
        let last = groups.len() - 1;
        for group in &mut groups[..last] {
            *group |= 0x80;
        }
        out.extend_from_slice(&groups);
    }
    element(OBJECT_IDENTIFIER, &out)
}

pub(super) fn utf8(text: &str) -> Vec<u8> {
    element(UTF8_STRING, text.as_bytes())
}

pub(super) fn octets(content: &[u8]) -> Vec<u8> {
    element(OCTET_STRING, content)
}

/// A bit string whose last byte has `unused` bits that do not count.
pub(super) fn bits(content: &[u8], unused: u8) -> Vec<u8> {
    element(BIT_STRING, &[&[unused], content].concat())
}

/// A context-specific tag around encoded content.
pub(super) fn explicit(number: u8, content: &[u8]) -> Vec<u8> {
    element(CONTEXT | CONSTRUCTED | number, content)
}

/// A context-specific tag in place of the content's own.
pub(super) fn implicit(number: u8, content: &[u8]) -> Vec<u8> {
    element(CONTEXT | number, content)
}

/// A time, in the form that RFC 5280 asks for its year.
pub(super) fn time(time: Timestamp) -> Result<Vec<u8>, Error> {
    let utc = time.to_zoned(TimeZone::UTC);
    let (tag, form) = match utc.year() {
        1950..=2049 => (UTC_TIME, "%y%m%d%H%M%SZ"),
        2050..=9999 => (GENERALIZED_TIME, "%Y%m%d%H%M%SZ"),
        _ => return Err(Error::Time(time)),
    };
    Ok(element(tag, utc.strftime(form).to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_match_known_bytes() {
        assert_eq!(
            oid(&[1, 2, 840, 10045, 2, 1]),
            [0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]
        );
        assert_eq!(oid(&[2, 5, 29, 0]), [0x06, 0x03, 0x55, 0x1d, 0x00]);
        assert_eq!(unsigned(&[0, 0x80]), [0x02, 0x02, 0x00, 0x80]);
        assert_eq!(unsigned(&[0, 0]), [0x02, 0x01, 0x00]);
        assert_eq!(octets(&[0; 200])[..3], [0x04, 0x81, 200]);
        assert_eq!(octets(&[0; 300])[..4], [0x04, 0x82, 1, 44]);
        let at = |text: &str| time(text.parse().unwrap()).unwrap();
        assert_eq!(&at("2026-11-21T03:04:05Z")[2..], b"261121030405Z");
        assert_eq!(&at("2050-01-01T00:00:00Z")[2..], b"20500101000000Z");
    }
}
