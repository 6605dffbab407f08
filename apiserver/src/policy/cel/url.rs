//! URLs, as Go reads and writes them. What is no UTF-8 once it is decoded is shown as by `�`.

use std::net::IpAddr;
use std::rc::Rc;

use super::value::{Unusable, Val};
use super::{Budget, Evaluated, Run, error};

/// Parameters that a query has at most: of more, none is seen.
const PARAMETERS: usize = 10_000;

/// One that was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    escaped_path: String,
    query: String,
    /// All of it, as it is compared.
    text: String,
}

impl Url {
    /// Bytes of its texts.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Where a character stands: what has to be escaped there differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Path,
    Host,
    Zone,
    User,
    Query,
    Fragment,
}

impl Place {
    fn escapes(self, byte: u8) -> bool {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            return false;
        }
        let plain: &[u8] = match self {
            Self::Path => b"$&+,/:;=@",
            Self::Host | Self::Zone => b"!\"$&'()*+,:;<=>[]",
            Self::User => b"$&+,;=",
            Self::Query => b"",
            Self::Fragment => b"!$&()*+,/:;=?@",
        };
        !plain.contains(&byte)
    }
}

fn escaped(bytes: &[u8], place: Place) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match place.escapes(*byte) {
            true => text.push_str(&format!("%{byte:02X}")),
            // What is not escaped is ASCII.
            false => text.push(char::from(*byte)),
        }
    }
    text
}

fn unescaped(text: &str, place: Place) -> Result<Vec<u8>, String> {
    let hex = |byte: Option<&u8>| char::from(*byte?).to_digit(16).map(|digit| digit as u8);
    let bytes = text.as_bytes();
    let mut made = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at).copied() {
        at += 1;
        match byte {
            b'%' => {
                let end = bytes.len().min(at + 2);
                let wrong = || {
                    let shown = String::from_utf8_lossy(&bytes[at - 1..end]);
                    Err(format!("invalid URL escape {shown:?}"))
                };
                let (Some(high), Some(low)) = (hex(bytes.get(at)), hex(bytes.get(at + 1))) else {
                    return wrong();
                };
                let (value, percent) = (high << 4 | low, &bytes[at..end] == b"25");
                // In a host only what is no ASCII is escaped, and `%` before a zone.
                let taken = match place {
                    Place::Host => high >= 8 || percent,
                    Place::Zone => percent || value == b' ' || !Place::Host.escapes(value),
                    _ => true,
                };
                if !taken {
                    return wrong();
                }
                made.push(value);
                at += 2;
            }
            b'+' if place == Place::Query => made.push(b' '),
            _ if matches!(place, Place::Host | Place::Zone)
                && byte.is_ascii()
                && place.escapes(byte) =>
            {
                let shown = char::from(byte).to_string();
                return Err(format!("invalid character {shown:?} in host name"));
            }
            _ => made.push(byte),
        }
    }
    Ok(made)
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What stands before the first colon, if that is a scheme, and the rest.
fn scheme(text: &str) -> Result<(String, &str), String> {
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            b':' => return Ok((text[..at].to_ascii_lowercase(), &text[at + 1..])),
            _ => break,
        }
    }
    Ok((String::new(), text))
}

/// User and host, as they are written again.
fn authority(scheme: &str, text: &str) -> Result<(Option<String>, String), String> {
    let (user, host) = match text.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, text),
    };
    let host = read_host(scheme, host)?;
    let Some(user) = user else {
        return Ok((None, host));
    };
    let is_user = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
    if !user.chars().all(is_user) {
        return Err("net/url: invalid userinfo".to_owned());
    }
    let again = |text: &str| {
        let plain = unescaped(text, Place::User)?;
        Ok::<_, String>(escaped(&plain, Place::User))
    };
    Ok(match user.split_once(':') {
        Some((name, password)) => (Some(format!("{}:{}", again(name)?, again(password)?)), host),
        None => (Some(again(user)?), host),
    })
}

fn read_host(scheme: &str, host: &str) -> Result<String, String> {
    let port = |text: &str| {
        let digits = text.strip_prefix(':');
        let plain = digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        match text.is_empty() || plain {
            true => Ok(()),
            false => Err(format!("invalid port {text:?} after host")),
        }
    };
    match host.rfind('[') {
        Some(0) => {
            let Some(end) = host.rfind(']') else {
                return Err("missing ']' in host".to_owned());
            };
            let (name, rest) = (&host[1..end], &host[end + 1..]);
            port(rest)?;
            let rest = unescaped(rest, Place::Host)?;
            let mut address = unescaped(name.split("%25").next().unwrap_or(""), Place::Host)?;
            if let Some(zone) = name.find("%25") {
                address.extend(unescaped(&name[zone..], Place::Zone)?);
            }
            let address = lossy(address);
            literal(&address)?;
            return Ok(format!("[{address}]{}", lossy(rest)));
        }
        Some(_) => return Err("invalid IP-literal".to_owned()),
        None => {}
    }
    if let (Some(first), Some(last)) = (host.find(':'), host.rfind(':')) {
        // Lists of hosts, of databases, have more of them.
        let strict = matches!(scheme, "http" | "https");
        port(&host[if strict { first } else { last }..])?;
    }
    unescaped(host, Place::Host).map(lossy)
}

/// Whether this may stand in brackets: an address of IPv6, maybe with a zone.
fn literal(text: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("invalid host: ParseAddr({text:?}): {why}"));
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    match address.parse() {
        Ok(IpAddr::V6(_)) if zone == Some("") => wrong("zone must be a non-empty string"),
        Ok(IpAddr::V6(_)) => Ok(()),
        Ok(IpAddr::V4(_)) if zone.is_none() => Err("invalid IP-literal".to_owned()),
        Ok(IpAddr::V4(_)) | Err(_) => wrong("unable to parse IP"),
    }
}

/// Reads what has neither fragment nor, of a request, a path that begins elsewhere than at
/// the root.
fn parse(text: &str, of_request: bool) -> Result<Url, String> {
    if text.bytes().any(|byte| byte < b' ' || byte == 0x7F) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    if text.is_empty() && of_request {
        return Err("empty url".to_owned());
    }
    if text == "*" {
        return Ok(Url {
            escaped_path: "*".to_owned(),
            text: "*".to_owned(),
            ..Url::default()
        });
    }
    let (scheme, rest) = scheme(text)?;
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let mut url = Url {
        query: query.unwrap_or_default().to_owned(),
        ..Url::default()
    };
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    if !rest.starts_with('/') {
        if !scheme.is_empty() {
            url.text = format!("{scheme}:{rest}{query}");
            url.scheme = scheme;
            return Ok(url);
        }
        if of_request {
            return Err("invalid URI for request".to_owned());
        }
        if rest.split('/').next().is_some_and(|one| one.contains(':')) {
            return Err("first path segment in URL cannot contain colon".to_owned());
        }
    }
    let (mut rest, mut user, mut host, mut named) = (rest, None, String::new(), false);
    let has_host = !scheme.is_empty() || !of_request && !rest.starts_with("///");
    if let (true, Some(after)) = (has_host, rest.strip_prefix("//")) {
        let end = after.find('/').unwrap_or(after.len());
        (user, host) = authority(&scheme, &after[..end])?;
        (rest, named) = (&after[end..], true);
    }
    let path = unescaped(rest, Place::Path)?;
    // As it was written, if that is a way to write it.
    let as_written = |byte: u8| b"!$&'()*+,;=:@[]%".contains(&byte) || !Place::Path.escapes(byte);
    url.escaped_path = match rest.bytes().all(as_written) {
        true => rest.to_owned(),
        false if path == b"*" => "*".to_owned(),
        false => escaped(&path, Place::Path),
    };
    let mut text = String::new();
    if !scheme.is_empty() {
        text = format!("{scheme}:");
    }
    let written = named && (!scheme.is_empty() || !host.is_empty() || user.is_some());
    if written && (!host.is_empty() || !path.is_empty() || user.is_some()) {
        text.push_str("//");
    }
    if let Some(user) = user {
        text.push_str(&user);
        text.push('@');
    }
    text.push_str(&escaped(host.as_bytes(), Place::Host));
    text.push_str(&url.escaped_path);
    text.push_str(&query);
    (url.scheme, url.host, url.text) = (scheme, host, text);
    Ok(url)
}

/// Why a text is no URL that has all its parts; nothing if it is one.
pub fn wrong(text: &str) -> Option<String> {
    told(text, parse(text, true)).err()
}

fn told<T>(text: &str, read: Result<T, String>) -> Result<T, String> {
    let shown = apiservice::told::short(text, apiservice::told::MAX_PATH);
    read.map_err(|why| {
        let why = apiservice::told::cut(why, apiservice::told::MAX_PATH);
        format!("parse {shown:?}: {why}")
    })
}

fn read(text: &str) -> Result<Url, String> {
    told(text, parse(text, true))?;
    let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
    let mut url = told(before, parse(before, false))?;
    if !fragment.is_empty() {
        let plain = told(text, unescaped(fragment, Place::Fragment))?;
        let as_written =
            |byte: u8| b"!$&'()*+,;=:@[]%".contains(&byte) || !Place::Fragment.escapes(byte);
        url.text.push('#');
        match fragment.bytes().all(as_written) {
            true => url.text.push_str(fragment),
            false => url.text.push_str(&escaped(&plain, Place::Fragment)),
        }
    }
    Ok(url)
}

/// Before a text is taken apart: its parts, what they are decoded to and all of it again.
/// Escaping makes three characters of one.
fn room(budget: &Budget, text: &str) -> Result<(), Unusable> {
    budget.copy(text.len().saturating_mul(12))
}

/// The functions of this library; nothing for others.
pub fn call<'a>(run: &Run<'_, 'a>, name: &str, args: &[Val<'a>]) -> Option<Evaluated<'a>> {
    let url = match (name, args) {
        ("url", [Val::Text(text)]) => {
            return Some(room(run.budget, text).and_then(|()| match read(text) {
                Ok(url) => Ok(Val::Url(Rc::new(url))),
                Err(why) => error(format!(
                    "URL parse error during conversion from string: {why}"
                )),
            }));
        }
        ("isURL", [Val::Text(text)]) => {
            let room = room(run.budget, text);
            return Some(room.map(|()| Val::Bool(wrong(text).is_none())));
        }
        (_, [Val::Url(url)]) => url,
        _ => return None,
    };
    // Of the host, without the brackets of an address.
    let (hostname, port) = match url.host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, port),
        _ => (url.host.as_str(), ""),
    };
    let inner = hostname
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    Some(match name {
        "getScheme" => run.text(&url.scheme),
        "getHost" => run.text(&url.host),
        "getHostname" => run.text(inner.unwrap_or(hostname)),
        "getPort" => run.text(port),
        "getEscapedPath" => run.text(&url.escaped_path),
        "getQuery" => parameters(run, &url.query),
        _ => return None,
    })
}

/// The values of each parameter; those that are written wrongly are passed over.
fn parameters<'a>(run: &Run<'_, 'a>, query: &str) -> Evaluated<'a> {
    run.budget.look(query.len())?;
    let mut all: Vec<(String, Vec<Val<'a>>)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    let count = query.matches('&').count() + 1;
    for part in query.split('&').filter(|_| count <= PARAMETERS) {
        if part.is_empty() || part.contains(';') {
            continue;
        }
        // The name twice: in the map, and to find it again.
        run.budget.copy(part.len().saturating_mul(4))?;
        run.budget.items(16)?;
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let (Ok(name), Ok(value)) = (
            unescaped(name, Place::Query).map(lossy),
            unescaped(value, Place::Query).map(lossy),
        ) else {
            continue;
        };
        let place = *places.entry(name.clone()).or_insert(all.len());
        if place == all.len() {
            all.push((name, Vec::new()));
        }
        all[place].1.push(Val::text(value));
    }
    let lists = all.into_iter();
    let entries = lists.map(|(name, values)| Ok((Val::text(name), Val::list(values)?)));
    Val::map(entries.collect::<Result<_, Unusable>>()?, run.budget)
}
