use super::*;
use rcgen::{DnType, DnValue};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

const E: Entropy = Entropy;

/// A block of PEM.
fn pem(label: &str, content: &[u8]) -> String {
    let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, content);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn validity() -> Validity {
    Validity {
        not_before: at("2026-01-01T00:00:00Z"),
        not_after: at("2036-01-01T00:00:00Z"),
    }
}

fn leaf(usage: Usage) -> Leaf {
    Leaf {
        subject: Subject {
            common_name: "admin".into(),
            organizations: vec!["system:masters".into()],
        },
        usage,
        dns_names: vec![
            "x.tenants.svc".into(),
            "localhost".into(),
            "localhost".into(),
        ],
        ip_addresses: vec!["127.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        validity: Validity {
            not_before: at("2026-06-01T00:00:00Z"),
            not_after: at("2027-06-01T00:00:00Z"),
        },
    }
}

#[test]
fn a_leaf_says_what_was_asked_and_verifies() {
    let authority = authority("kubernetes", validity(), &E).unwrap();
    let wish = leaf(Usage::Both);
    let pair = sign(&authority, &wish, &E).unwrap();
    let info = inspect(&pair.cert).unwrap();
    assert_eq!(info.subject, wish.subject);
    assert_eq!(info.not_before, wish.validity.not_before);
    assert_eq!(info.not_after, wish.validity.not_after);
    assert_eq!(info.dns_names, ["x.tenants.svc", "localhost"]);
    assert_eq!(info.ip_addresses, wish.ip_addresses);
    assert!(!info.is_ca);
    assert_eq!(info.serial_hex.len(), 32);
    assert!(key_matches(&pair) && key_matches(&authority));
    verify(
        &pair.cert,
        &authority.cert,
        Usage::Both,
        at("2026-07-01T00:00:00Z"),
    )
    .unwrap();

    let again = sign(&authority, &wish, &E).unwrap();
    assert_ne!(inspect(&again.cert).unwrap().serial_hex, info.serial_hex);
    assert_ne!(again.key, pair.key);
}

/// Names are as many as `certSANs` has: comparing each with each would take minutes.
#[test]
fn many_names_are_compared_once() {
    let authority = authority("kubernetes", validity(), &E).unwrap();
    let mut wish = leaf(Usage::Server);
    wish.dns_names = (0..40_000).map(|n| format!("{n}.example")).collect();
    wish.dns_names.push("0.example".into());
    let began = std::time::Instant::now();
    let pair = sign(&authority, &wish, &E).unwrap();
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
    assert_eq!(inspect(&pair.cert).unwrap().dns_names.len(), 40_000);
}

#[test]
fn an_authority_says_so() {
    let pair = authority("kubernetes", validity(), &E).unwrap();
    let info = inspect(&pair.cert).unwrap();
    assert!(info.is_ca);
    assert_eq!(info.subject.common_name, "kubernetes");
    let block = read::pem_blocks(&pair.cert).next().unwrap();
    let (rest, parsed) = X509Certificate::from_der(&block.contents).unwrap();
    assert!(rest.is_empty());
    parsed.verify_signature(None).unwrap();
    let usage = parsed.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
    assert!(parsed.basic_constraints().unwrap().unwrap().critical);
}

#[test]
fn what_does_not_hold_is_refused() {
    let ours = authority("kubernetes", validity(), &E).unwrap();
    let other = authority("kubernetes", validity(), &E).unwrap();
    let now = at("2026-07-01T00:00:00Z");
    let client = sign(&ours, &leaf(Usage::Client), &E).unwrap();
    verify(&client.cert, &ours.cert, Usage::Client, now).unwrap();
    let fails = |ca: &str, usage, now| {
        matches!(
            verify(&client.cert, ca, usage, now),
            Err(Error::NotValid(_))
        )
    };
    assert!(fails(&ours.cert, Usage::Server, now), "for another use");
    assert!(
        fails(&other.cert, Usage::Client, now),
        "by another authority"
    );
    assert!(
        fails(&ours.cert, Usage::Client, at("2027-06-01T00:00:01Z")),
        "too late"
    );
    assert!(
        fails(&ours.cert, Usage::Client, at("2026-05-31T23:59:59Z")),
        "too early"
    );
    let bundle = format!("{}{}", other.cert, ours.cert);
    verify(&client.cert, &bundle, Usage::Client, now).unwrap();

    let swapped = Pair {
        cert: ours.cert.clone(),
        key: other.key.clone(),
    };
    assert!(!key_matches(&swapped));
    assert_eq!(
        sign(&swapped, &leaf(Usage::Client), &E),
        Err(Error::KeyMismatch)
    );
    assert_eq!(inspect("hello"), Err(Error::NoPem("certificate")));
}

#[test]
fn a_common_name_may_have_any_length() {
    let ca = authority("kubernetes", validity(), &E).unwrap();
    let mut wish = leaf(Usage::Client);
    wish.subject.common_name = format!("steward:{}", "ü".repeat(300));
    let pair = sign(&ca, &wish, &E).unwrap();
    assert_eq!(inspect(&pair.cert).unwrap().subject, wish.subject);
}

/// Authorities that users bring, made by rcgen: other keys and key forms, and
/// a name of several parts that must be copied as it is.
#[test]
fn authorities_of_users_sign() {
    let algorithms: [(&str, &'static rcgen::SignatureAlgorithm); 5] = [
        ("P-256", &rcgen::PKCS_ECDSA_P256_SHA256),
        ("P-384", &rcgen::PKCS_ECDSA_P384_SHA384),
        ("P-521", &rcgen::PKCS_ECDSA_P521_SHA512),
        ("RSA", &rcgen::PKCS_RSA_SHA256),
        ("Ed25519", &rcgen::PKCS_ED25519),
    ];
    for (label, algorithm) in algorithms {
        let country = DnValue::PrintableString("DE".try_into().unwrap());
        let component = DnValue::Ia5String("example".try_into().unwrap());
        let ca = authority_of_a_user(
            &rcgen::KeyPair::generate_for(algorithm).unwrap(),
            [
                (DnType::CountryName, country),
                (DnType::CustomDnType(DOMAIN_COMPONENT.to_vec()), component),
                (DnType::OrganizationName, "etcd".into()),
                (DnType::CommonName, "etcd authority".into()),
            ],
        );
        assert!(key_matches(&ca), "{label}");
        let pair = sign(&ca, &leaf(Usage::Client), &E).unwrap();
        verify(
            &pair.cert,
            &ca.cert,
            Usage::Client,
            at("2026-07-01T00:00:00Z"),
        )
        .unwrap();
    }
}

/// 0.9.2342.19200300.100.1.25, of which directories use several in one name.
const DOMAIN_COMPONENT: &[u64] = &[0, 9, 2342, 19_200_300, 100, 1, 25];

fn authority_of_a_user(
    key: &rcgen::KeyPair,
    subject: impl IntoIterator<Item = (DnType, DnValue)>,
) -> Pair {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, value) in subject {
        params.distinguished_name.push(kind, value);
    }
    Pair {
        cert: params.self_signed(key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

#[test]
fn a_subject_that_cannot_be_copied_is_refused() {
    let key = rcgen::KeyPair::generate().unwrap();
    // The second kind is the first one in other clothes: rcgen writes both.
    let twice = [
        (DnType::OrganizationName, "one".into()),
        (DnType::CustomDnType(vec![2, 5, 4, 10]), "two".into()),
        (DnType::CommonName, "etcd".into()),
    ];
    let rare = [
        (DnType::CustomDnType(vec![2, 999, 1]), "rare".into()),
        (DnType::CommonName, "etcd".into()),
    ];
    for subject in [twice.to_vec(), rare.to_vec()] {
        let ca = authority_of_a_user(&key, subject);
        let error = sign(&ca, &leaf(Usage::Client), &E).unwrap_err();
        assert!(matches!(&error, Error::AuthoritySubject(_)), "{error}");
        assert!(error.to_string().contains("CN=etcd"), "{error}");
    }
}

#[test]
fn an_identifier_is_referred_to_where_the_authority_has_one() {
    let refers = |ca: &Pair| {
        let pair = sign(ca, &leaf(Usage::Client), &E).unwrap();
        let block = read::pem_blocks(&pair.cert).next().unwrap();
        let (_, parsed) = X509Certificate::from_der(&block.contents).unwrap();
        parsed.iter_extensions().find_map(|one| {
            let ParsedExtension::AuthorityKeyIdentifier(it) = one.parsed_extension() else {
                return None;
            };
            it.key_identifier.as_ref().map(|found| found.0.to_vec())
        })
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    let ca = |params: &rcgen::CertificateParams| Pair {
        cert: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    };
    assert_eq!(refers(&ca(&params)), None);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![1, 2, 3]);
    assert_eq!(refers(&ca(&params)), Some(vec![1, 2, 3]));
}

#[test]
fn what_does_not_fit_is_refused() {
    let ca = authority("kubernetes", validity(), &E).unwrap();
    let mut wish = leaf(Usage::Client);
    wish.subject.organizations.push("second".into());
    assert_eq!(sign(&ca, &wish, &E), Err(Error::Organizations(2)));
    let mut wish = leaf(Usage::Client);
    wish.dns_names.push("müller".into());
    assert_eq!(sign(&ca, &wish, &E), Err(Error::DnsName("müller".into())));
    let mut wish = leaf(Usage::Client);
    wish.validity.not_before = at("1949-12-31T23:59:59Z");
    assert_eq!(
        sign(&ca, &wish, &E),
        Err(Error::Time(wish.validity.not_before))
    );
    wish.validity.not_before = at("1950-01-01T00:00:00Z");
    // RFC 5280 has another form for times from 2050 on.
    wish.validity.not_after = at("2050-01-01T00:00:00Z");
    let info = inspect(&sign(&ca, &wish, &E).unwrap().cert).unwrap();
    assert_eq!(info.not_before, wish.validity.not_before);
    assert_eq!(info.not_after, wish.validity.not_after);
}

#[test]
fn older_forms_of_keys_are_read() {
    use aws_lc_rs::encoding::AsDer;
    let generated = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    // PKCS#8 of a 2048-bit key is PKCS#1 behind 26 bytes.
    let inner = &generated.serialize_der()[26..];
    let rsa = key::from_pem(&pem("RSA PRIVATE KEY", inner)).unwrap();
    let same = key::from_pem(&generated.serialize_pem()).unwrap();
    assert_eq!(rsa.public_key_raw(), same.public_key_raw());

    let algorithm = &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
    let pair = aws_lc_rs::signature::EcdsaKeyPair::generate(algorithm).unwrap();
    let sec1: aws_lc_rs::encoding::EcPrivateKeyRfc5915Der<'_> =
        pair.private_key().as_der().unwrap();
    let read = key::from_pem(&pem("EC PRIVATE KEY", sec1.as_ref())).unwrap();
    let parameters = pem("EC PARAMETERS", &[6, 8, 42, 134, 72, 206, 61, 3, 1, 7]);
    let behind = parameters + &pem("EC PRIVATE KEY", sec1.as_ref());
    let behind = key::from_pem(&behind).unwrap();
    assert_eq!(behind.public_key_raw(), read.public_key_raw());
    let pkcs8 = pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref());
    assert_eq!(
        read.public_key_raw(),
        key::from_pem(&pkcs8).unwrap().public_key_raw()
    );

    assert!(matches!(
        key::from_pem(&pem("PRIVATE KEY", b"junk")),
        Err(Error::Key)
    ));
}

#[test]
fn signing_keys_belong_together() {
    let (public, private) = signing_keys(&E).unwrap();
    assert!(public.starts_with("-----BEGIN PUBLIC KEY-----\n"));
    assert!(private.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert!(signing_keys_match(&public, &private));
    assert!(!signing_keys_match(&signing_keys(&E).unwrap().0, &private));
    assert!(!signing_keys_match("", &private));
}

#[test]
fn a_kubeconfig_reads_the_same_as_yaml() {
    let ca = authority("kubernetes", validity(), &E).unwrap();
    let pair = sign(&ca, &leaf(Usage::Client), &E).unwrap();
    for user in [
        None,
        Some(("anna: \"#1\"", Some(&pair))),
        Some(("anna", None)),
    ] {
        let input = KubeconfigInput {
            cluster: "tenant-1",
            server: "https://10.0.0.1:6443",
            ca_pem: &ca.cert,
            user,
            context: "anna@tenant-1",
        };
        let value = kubeconfig(&input);
        let yaml = kubeconfig_yaml(&input);
        let read: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(read, value, "{yaml}");
        let typed: kube::config::Kubeconfig = serde_json::from_value(value).unwrap();
        assert_eq!(typed.clusters.len(), 1);
        assert_eq!(typed.auth_infos.len(), usize::from(user.is_some()));
    }
}
