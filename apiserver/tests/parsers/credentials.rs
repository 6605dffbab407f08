//! What says who somebody is, and what a tenant's nodes ask to be signed.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use apiserver::authn::{Authenticator, Peer};
use apiservice::clock::Clock;
use apiservice::pki::{self, Entropy, Leaf, Subject, Usage, Validity};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{bounded, words};

const KEY: &[&str] = &[
    "a", "-", "%", "%2", "%2f", "%2F", "%00", "%ff", "%c3%a9", "%%", "+", ".", "_", "scopes", "%25",
];
const VALUE: &[&str] = &[
    "a",
    " ",
    ",",
    "\u{fffd}",
    "é",
    "%41",
    "system:masters",
    "\t",
];
/// Of DER: headers of pieces, short and long, with lengths that lie.
const DER: &[&[u8]] = &[
    &[0x30, 0x03, 0x02, 0x01, 0x00],
    &[0x30, 0x80],
    &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
    &[0x30, 0x82, 0x01, 0x00],
    &[0x31, 0x00],
    &[0xa0, 0x02, 0x30, 0x00],
    &[0x02, 0x01, 0x00],
    &[0x06, 0x03, 0x55, 0x04, 0x03],
    &[
        0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e,
    ],
    &[0x0c, 0x01, 0x61],
    &[0x13, 0x7f],
    &[0x03, 0x02, 0x00, 0xff],
    &[0x04, 0x02, 0x30, 0x00],
    &[0x05, 0x00],
    &[0x00],
    &[0x24, 0x80],
    &[0x3f, 0xff, 0xff],
    &[0x87, 0x04, 10, 0, 0, 1],
    &[0x82, 0x01, 0x61],
];

/// The front proxy, and who trusts it.
static FRONT: LazyLock<(Arc<Authenticator>, Peer)> = LazyLock::new(|| {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let validity = || Validity {
        not_before: "2020-01-01T00:00:00Z".parse().unwrap(),
        not_after: "2090-01-01T00:00:00Z".parse().unwrap(),
    };
    let authority = pki::authority("front", validity(), &Entropy).unwrap();
    let leaf = Leaf {
        subject: Subject {
            common_name: "front-proxy".to_owned(),
            organizations: Vec::new(),
        },
        usage: Usage::Client,
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        validity: validity(),
    };
    let pair = pki::sign(&authority, &leaf, &Entropy).unwrap();
    let clock = Clock::new(|| "2030-01-01T00:00:00Z".parse().unwrap());
    let authenticator = Authenticator::new(None, clock);
    let trust = [
        ("requestheader-client-ca-file", authority.cert.as_str()),
        ("requestheader-username-headers", r#"["X-Remote-User"]"#),
        ("requestheader-uid-headers", r#"["X-Remote-Uid"]"#),
        ("requestheader-group-headers", r#"["X-Remote-Group"]"#),
        (
            "requestheader-extra-headers-prefix",
            r#"["X-Remote-Extra-"]"#,
        ),
        ("requestheader-allowed-names", r#"["front-proxy"]"#),
    ];
    let trust = trust.map(|(key, value)| (key.to_owned(), value.to_owned()));
    authenticator.load(&BTreeMap::from(trust));
    let leaf = CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
    (authenticator, Peer::new(&[leaf]))
});

/// A request as a program makes it.
static REQUEST: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let names = vec!["node".to_owned(), "10.0.0.1".to_owned()];
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    let name = &mut params.distinguished_name;
    name.push(rcgen::DnType::CommonName, "system:node:node");
    name.push(rcgen::DnType::OrganizationName, "system:nodes");
    let key = rcgen::KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().der().to_vec()
});

fn pem(der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<&str> = base64
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let lines = lines.join("\n");
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{lines}\n-----END CERTIFICATE REQUEST-----\n")
}

/// The request with bytes that are others, without some, and with pieces between.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let length = REQUEST.len();
    let bytes = prop::collection::vec((0..length, any::<u8>()), 0..6);
    let pieces = prop::collection::vec((0..length, prop::sample::select(DER)), 0..3);
    (bytes, pieces, 0..length).prop_map(move |(bytes, pieces, cut)| {
        let mut der = REQUEST.clone();
        for (at, byte) in bytes {
            der[at] = byte;
        }
        for (at, piece) in pieces {
            der.splice(at..at, piece.iter().copied());
        }
        if cut % 4 == 0 {
            der.truncate(cut);
        }
        der
    })
}

/// Pieces in any order, some of them thousands of times.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let any = prop::collection::vec(prop::sample::select(DER), 0..60);
    (any, 1..200usize).prop_map(|(pieces, times)| pieces.concat().repeat(times))
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        max_shrink_time: 20_000,
        ..ProptestConfig::default()
    })]

    /// R1.24, R1.25: whatever the front proxy passes on, it is a user or a refusal, and none
    /// of the headers is left for anybody else.
    #[test]
    fn headers_of_the_front_proxy(pairs in prop::collection::vec((words(KEY), words(VALUE)), 0..20)) {
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("a"));
        let mut input = String::new();
        for (key, value) in &pairs {
            let name = format!("x-remote-extra-{key}");
            let name = HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
                input.push_str(name.as_str());
                headers.append(name, value);
            }
        }
        let (authenticator, peer) = &*FRONT;
        let asked = authenticator.authenticate(peer, &mut headers);
        let caller = bounded(&input, || futures::executor::block_on(asked))?;
        let left = headers.keys().filter(|name| name.as_str().starts_with("x-remote-"));
        prop_assert_eq!(left.count(), 0);
        if let Ok(caller) = caller {
            let bytes: usize = caller.identity.extra.keys().map(String::len).sum();
            // What is not UTF-8 becomes a mark of three bytes.
            prop_assert!(bytes <= 3 * input.len());
        }
    }

    /// Nobody is approved for more than there is in the request.
    #[test]
    fn certificate_requests(der in prop_oneof![mutated(), pieces(), prop::collection::vec(any::<u8>(), 0..300)]) {
        let text = pem(&der);
        if let Ok(read) = bounded(&text, || pki::request(&text))? {
            let names = read.dns_names.iter().map(String::len).sum::<usize>();
            prop_assert!(names <= der.len());
        }
        // And with the text of it damaged.
        let text = text.replacen('A', "-", 1);
        let _ = bounded(&text, || pki::request(&text))?;
    }
}

/// What the mutations begin with is read, or they would try nothing.
#[test]
fn the_request_that_is_changed_is_one() {
    let read = pki::request(&pem(&REQUEST)).unwrap();
    assert_eq!(read.subject.common_name, "system:node:node");
    assert_eq!((read.dns_names.len(), read.ip_addresses.len()), (1, 1));
}
