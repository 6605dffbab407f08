//! Bootstrap tokens as the Secrets that Kubernetes makes of them.

use std::collections::BTreeMap;

use apiservice::names;
use apiservice::pki::{self, Entropy};
use apiservice::told;
use apiservice::v1alpha1::{JoinToken, JoinTokenUsage};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::asked::Asked;

/// The type of these Secrets.
pub(super) const TYPE: &str = "bootstrap.kubernetes.io/token";
const PREFIX: &str = "bootstrap-token-";
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const ID: usize = 6;
const SECRET: usize = 16;

/// The name of the Secret of a token.
pub(super) fn name(id: &str) -> String {
    format!("{PREFIX}{id}")
}

/// Whether this is the id of a token.
pub(super) fn is_id(text: &str) -> bool {
    is_of(text, ID)
}

/// Whether this is the secret of a token.
pub(super) fn is_secret(text: &str) -> bool {
    is_of(text, SECRET)
}

fn is_of(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

/// A token that is being made. It has no Debug: its secret must not reach a log.
pub(super) struct Token {
    pub(super) id: String,
    secret: String,
}

impl Token {
    /// One that nobody can guess.
    pub(super) fn new(entropy: &Entropy) -> Result<Token, pki::Error> {
        Ok(Token {
            id: random(entropy, ID)?,
            secret: random(entropy, SECRET)?,
        })
    }

    /// `ID.SECRET`.
    pub(super) fn whole(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }

    /// A text of somebody else's in which the secret does not stand.
    pub(super) fn redact(&self, text: &str) -> String {
        let coded = STANDARD.encode(&self.secret);
        text.replace(&self.secret, "[secret]")
            .replace(&coded, "[secret]")
    }

    /// The Secret for the tenant.
    pub(super) fn secret(&self, asked: &Asked, expires: &str, user: &str) -> Value {
        let mut data = BTreeMap::from([
            ("token-id", self.id.clone()),
            ("token-secret", self.secret.clone()),
            ("expiration", expires.to_owned()),
        ]);
        for usage in &asked.usages {
            data.insert(usage_key(*usage), "true".to_owned());
        }
        if !asked.groups.is_empty() {
            data.insert("auth-extra-groups", asked.groups.join(","));
        }
        if !asked.description.is_empty() {
            data.insert("description", asked.description.clone());
        }
        let data: BTreeMap<&str, String> = data
            .into_iter()
            .map(|(key, value)| (key, STANDARD.encode(value)))
            .collect();
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": name(&self.id),
                "namespace": names::TOKEN_NAMESPACE,
                "annotations": {
                    names::ANNOTATION_REQUESTED_BY: told::short(user, told::MAX_TEXT),
                },
            },
            "type": TYPE,
            "data": data,
        })
    }
}

/// Letters and digits, all of them as likely: bytes beyond the last multiple of their
/// number are thrown away.
fn random(entropy: &Entropy, length: usize) -> Result<String, pki::Error> {
    let mut text = String::with_capacity(length);
    let mut bytes = [0; 32];
    while text.len() < length {
        entropy.fill(&mut bytes)?;
        text.extend(letters(&bytes).take(length - text.len()));
    }
    Ok(text)
}

fn letters(bytes: &[u8]) -> impl Iterator<Item = char> {
    let most = u8::MAX - u8::MAX % ALPHABET.len() as u8;
    let bytes = bytes.iter().filter(move |byte| **byte < most);
    bytes.map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
}

fn usage_key(usage: JoinTokenUsage) -> &'static str {
    match usage {
        JoinTokenUsage::Authentication => "usage-bootstrap-authentication",
        JoinTokenUsage::Signing => "usage-bootstrap-signing",
    }
}

/// A Secret as a tenant shows it; what is not read is not kept, the secret of the token
/// before all.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stored {
    metadata: Metadata,
    r#type: String,
    data: Data,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: String,
    uid: String,
    resource_version: String,
    annotations: Annotations,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "steward.butlerlabs.dev/requested-by")]
    requested_by: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Data {
    expiration: Option<String>,
    usage_bootstrap_authentication: Option<String>,
    usage_bootstrap_signing: Option<String>,
    auth_extra_groups: Option<String>,
    description: Option<String>,
}

/// A Secret that is to go: this one and no other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) uid: String,
    pub(super) resource_version: String,
}

/// Bytes of one text of a token, and groups, that are listed.
const LISTED_TEXT: usize = 4 * 1024;
const LISTED_GROUPS: usize = 32;

impl Stored {
    /// Without what is no token.
    pub(super) fn token(self) -> Option<JoinToken> {
        let id = self.id()?.to_owned();
        // Anybody in the tenant may have made it, with whatever lengths.
        let text = |value: Option<String>| -> Option<String> {
            let bytes = STANDARD.decode(value?).ok()?;
            let text = told::cut(String::from_utf8_lossy(&bytes).into_owned(), LISTED_TEXT);
            Some(text).filter(|text| !text.is_empty())
        };
        let data = self.data;
        let usages = [
            (
                JoinTokenUsage::Authentication,
                data.usage_bootstrap_authentication,
            ),
            (JoinTokenUsage::Signing, data.usage_bootstrap_signing),
        ];
        let usages = usages
            .into_iter()
            .filter(|(_, value)| text(value.clone()).is_some_and(|value| value == "true"));
        let groups = text(data.auth_extra_groups).unwrap_or_default();
        let groups = groups.split(',').filter(|group| !group.is_empty());
        let groups = groups.take(LISTED_GROUPS);
        Some(JoinToken {
            id,
            expiration_timestamp: text(data.expiration),
            usages: usages.map(|(usage, _)| usage.as_str().to_owned()).collect(),
            groups: groups.map(str::to_owned).collect(),
            description: text(data.description),
            requested_by: self
                .metadata
                .annotations
                .requested_by
                .map(|user| told::cut(user, LISTED_TEXT)),
        })
    }

    pub(super) fn found(self) -> Option<Found> {
        self.id()?;
        Some(Found {
            uid: self.metadata.uid,
            resource_version: self.metadata.resource_version,
        })
    }

    fn id(&self) -> Option<&str> {
        let id = self.metadata.name.strip_prefix(PREFIX)?;
        (self.r#type == TYPE && is_id(id)).then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        Asked {
            seconds: 60,
            usages: JoinTokenUsage::ALL.to_vec(),
            groups: vec![
                "system:bootstrappers:a".to_owned(),
                "system:bootstrappers:b".to_owned(),
            ],
            description: "for rack 7".to_owned(),
        }
    }

    /// Anybody in the tenant may make such a Secret.
    #[test]
    fn what_is_listed_of_a_token_is_short() {
        let long = STANDARD.encode("a,".repeat(90_000));
        let stored: Stored = serde_json::from_value(serde_json::json!({
            "type": TYPE,
            "metadata": {
                "name": name("abcdef"),
                "annotations": {"steward.butlerlabs.dev/requested-by": "u".repeat(100_000)},
            },
            "data": {"auth-extra-groups": long, "description": long, "expiration": long},
        }))
        .unwrap();
        let token = stored.token().unwrap();
        assert_eq!(token.groups.len(), LISTED_GROUPS);
        let size = serde_json::to_vec(&token).unwrap().len();
        assert!(size < 4 * LISTED_TEXT, "{size}");
    }

    #[test]
    fn a_secret_is_what_kubernetes_reads_and_is_listed_without_its_secret() {
        let token = Token::new(&Entropy).unwrap();
        assert!(is_id(&token.id) && is_secret(&token.secret));
        let secret = token.secret(&asked(), "2030-01-01T00:00:00Z", "alice");
        assert_eq!(secret["metadata"]["name"], name(&token.id));
        assert_eq!(secret["metadata"]["namespace"], "kube-system");
        assert_eq!(secret["type"], TYPE);
        let decode = |key: &str| {
            let bytes = STANDARD.decode(secret["data"][key].as_str().unwrap());
            String::from_utf8(bytes.unwrap()).unwrap()
        };
        for (key, value) in [
            ("token-id", token.id.as_str()),
            ("token-secret", &token.secret),
            ("expiration", "2030-01-01T00:00:00Z"),
            ("usage-bootstrap-authentication", "true"),
            ("usage-bootstrap-signing", "true"),
            (
                "auth-extra-groups",
                "system:bootstrappers:a,system:bootstrappers:b",
            ),
            ("description", "for rack 7"),
        ] {
            assert_eq!(decode(key), value, "{key}");
        }
        let stored: Stored = serde_json::from_value(secret.clone()).unwrap();
        let listed = stored.token().unwrap();
        assert_eq!(listed.requested_by.as_deref(), Some("alice"));
        let listed = serde_json::to_string(&listed).unwrap();
        assert!(listed.contains(&token.id) && !listed.contains(&token.secret));
        assert!(!listed.contains(&STANDARD.encode(&token.secret)));

        let told = format!("denied: {} {secret}", token.whole());
        let told = token.redact(&told);
        assert!(!told.contains(&token.secret), "{told}");
        assert!(!told.contains(&STANDARD.encode(&token.secret)), "{told}");
    }

    #[test]
    fn what_is_no_token_is_not_listed() {
        let stored = |name: &str, kind: &str| -> Stored {
            serde_json::from_value(json!({"metadata": {"name": name}, "type": kind})).unwrap()
        };
        for (name, kind) in [
            ("bootstrap-token-abcdef", "Opaque"),
            ("bootstrap-token-abcde", TYPE),
            ("bootstrap-token-ABCDEF", TYPE),
            ("abcdef", TYPE),
        ] {
            assert_eq!(stored(name, kind).found(), None, "{name} {kind}");
            assert_eq!(stored(name, kind).token(), None, "{name} {kind}");
        }
        assert!(stored("bootstrap-token-abcdef", TYPE).found().is_some());
    }

    #[test]
    fn every_letter_is_as_likely() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        let mut counts = BTreeMap::new();
        for letter in letters(&all) {
            *counts.entry(letter).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 36);
        assert!(counts.values().all(|count| *count == 7), "{counts:?}");
        let two = [(); 2].map(|()| Token::new(&Entropy).unwrap().whole());
        assert_ne!(two[0], two[1]);
    }
}
