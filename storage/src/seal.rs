//! How values are kept on disk: as they are, or encrypted.
//!
//! # Form
//! That of Kubernetes' encryption at rest: `k8s:enc:PROVIDER:v1:KEY:` and then what the
//! provider makes of the value, with the value's key in the log as authenticated data where
//! the provider has such. The first key of the rule for a value writes, all of its keys
//! read. Values are encrypted on their way to the disk and nowhere else: watches and caches
//! hold them as they were put.
//!
//! # Guarantees
//! A [`Sealing`] is taken only if every value of the store can be read with it
//! ([`crate::Store::seal`]), so that a key that is missing is found before anything depends
//! on it. Values are brought to the form in which they would be written now, those of
//! history included ([`crate::Store::reseal`]): afterwards no key but the first is needed.

mod cipher;

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;

pub use cipher::Cipher;

/// What the values of any provider but identity begin with.
const MARK: &[u8] = b"k8s:enc:";

/// Bytes of a value by which its key is recognised: more than any prefix has.
pub(crate) const HEAD: usize = 512;

/// How long the name of a key may be.
pub const MAX_NAME: usize = 256;

/// One key of a provider.
pub struct Key {
    /// `k8s:enc:PROVIDER:v1:KEY:`; empty for values as they are.
    prefix: Vec<u8>,
    cipher: Option<Cipher>,
}

impl Key {
    /// Values as they are (provider `identity`).
    pub fn identity() -> Self {
        Key {
            prefix: Vec::new(),
            cipher: None,
        }
    }

    /// A key of this name, which is made of at most [`MAX_NAME`] bytes without a colon.
    pub fn new(name: &str, cipher: Cipher) -> Self {
        Key {
            prefix: format!("k8s:enc:{}:v1:{name}:", cipher.provider()).into_bytes(),
            cipher: Some(cipher),
        }
    }

    pub(crate) fn is_identity(&self) -> bool {
        self.cipher.is_none()
    }

    /// What the values that it writes begin with.
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    fn is_of(&self, kept: &[u8]) -> bool {
        match &self.cipher {
            Some(_) => kept.starts_with(&self.prefix),
            None => !kept.starts_with(MARK),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", String::from_utf8_lossy(&self.prefix))
    }
}

/// How the values of some keys of the log are kept.
#[derive(Debug)]
pub struct Rule {
    /// Those that begin with one of these.
    pub prefixes: Vec<String>,
    /// The first writes, all read.
    pub keys: Vec<Key>,
}

/// How all values are kept: by the first rule that covers them, or as they are.
#[derive(Debug, Default)]
pub struct Sealing {
    rules: Vec<Rule>,
}

/// A value cannot be read, or not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// None of the keys is the one that it was encrypted with.
    #[error("{0}")]
    NoKey(String),
    /// The key has its name, and does not open it.
    #[error("the key {0} does not open it: it is another key, or the value was changed")]
    Refused(String),
    /// Neither a value as it is nor of any key that could be named.
    #[error("it is damaged: what it begins with is of no key")]
    Damaged,
    /// There is no randomness, or the value is too large.
    #[error("it cannot be encrypted")]
    Failed,
}

impl Sealing {
    /// # Errors
    /// With the number of a rule without a key.
    pub fn new(rules: Vec<Rule>) -> Result<Self, usize> {
        match rules.iter().position(|rule| rule.keys.is_empty()) {
            Some(position) => Err(position),
            None => Ok(Sealing { rules }),
        }
    }

    /// Whether it encrypts anything.
    pub fn encrypts(&self) -> bool {
        let encrypts = |rule: &Rule| rule.keys.iter().any(|key| key.cipher.is_some());
        self.rules.iter().any(encrypts)
    }

    /// The number of the rule for a value.
    pub(crate) fn rule_of(&self, of: &str) -> Option<usize> {
        let covers = |rule: &Rule| rule.prefixes.iter().any(|it| of.starts_with(it.as_str()));
        self.rules.iter().position(covers)
    }

    fn keys(&self, of: &str) -> &[Key] {
        match self.rule_of(of) {
            Some(rule) => &self.rules[rule].keys,
            None => &[],
        }
    }

    /// The form of a value on disk.
    pub(crate) fn seal(&self, of: &str, value: &[u8]) -> Result<Vec<u8>, SealError> {
        let Some(Key {
            prefix,
            cipher: Some(cipher),
        }) = self.keys(of).first()
        else {
            return Ok(value.to_vec());
        };
        let mut kept = prefix.clone();
        cipher.seal(of.as_bytes(), value, &mut kept)?;
        Ok(kept)
    }

    /// The value again.
    pub(crate) fn open(&self, of: &str, kept: &[u8]) -> Result<Vec<u8>, SealError> {
        let key = self.key_of(of, kept)?;
        let Some(cipher) = key.and_then(|key| key.cipher.as_ref().map(|it| (key, it))) else {
            return Ok(kept.to_vec());
        };
        let (key, cipher) = cipher;
        let sealed = &kept[key.prefix.len()..];
        cipher
            .open(of.as_bytes(), sealed)
            .ok_or_else(|| SealError::Refused(name(&key.prefix)))
    }

    /// The key by which a value can be read, of which `head` is the beginning. None: it is
    /// kept as it is.
    pub(crate) fn key_of(&self, of: &str, head: &[u8]) -> Result<Option<&Key>, SealError> {
        let keys = self.keys(of);
        if let Some(key) = keys.iter().find(|key| key.is_of(head)) {
            return Ok(Some(key));
        }
        match (head.starts_with(MARK), keys.is_empty()) {
            (false, true) => Ok(None),
            (false, false) if is_text(head) => Err(SealError::NoKey(
                "it is not encrypted, and there is no provider identity to read it".to_owned(),
            )),
            (true, _) if names_a_key(head) => Err(SealError::NoKey(format!(
                "it is encrypted with the key {}, which is not among those for it",
                name(head)
            ))),
            _ => Err(SealError::Damaged),
        }
    }

    /// Whether a value is kept as it would be written now.
    pub(crate) fn is_current(&self, of: &str, head: &[u8]) -> bool {
        match self.keys(of).first() {
            Some(key) => key.is_of(head),
            None => !head.starts_with(MARK),
        }
    }
}

/// Whether it is kept as one that is encrypted.
pub(crate) fn is_marked(kept: &[u8]) -> bool {
    kept.starts_with(MARK)
}

/// What is kept, so that it does not pass for a value as it was put.
pub(crate) fn marked(kept: Vec<u8>) -> Vec<u8> {
    match is_marked(&kept) {
        true => kept,
        false => [MARK, &kept].concat(),
    }
}

/// Whether it may be the beginning of a value as it was put, which are texts. What was
/// encrypted and has lost its beginning is none.
fn is_text(head: &[u8]) -> bool {
    // The last character may go on after it.
    std::str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true)
}

/// Whether it is of a provider that is known, and of a key.
fn names_a_key(head: &[u8]) -> bool {
    let mut parts = head.split(|byte| *byte == b':').skip(2);
    let known = parts.next().is_some_and(Cipher::is_provider) && parts.next() == Some(b"v1");
    let name = parts.next().unwrap_or_default();
    // What comes after the colon is of the value.
    known && !name.is_empty() && parts.next().is_some() && std::str::from_utf8(name).is_ok()
}

/// Provider and name of a key, from what a value begins with.
fn name(head: &[u8]) -> String {
    let head = String::from_utf8_lossy(&head[..head.len().min(HEAD)]);
    let mut parts = head.split(':').skip(2);
    let provider = parts.next().unwrap_or_default().to_owned();
    let key = parts.nth(1).unwrap_or_default();
    format!("{key:?} of {provider}")
}

/// The sealing that is in force. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Seals(Arc<RwLock<Arc<Sealing>>>);

impl Seals {
    /// With this one to begin with.
    pub fn new(sealing: Sealing) -> Self {
        Seals(Arc::new(RwLock::new(Arc::new(sealing))))
    }

    /// The one of now. Who has read a value asks after that: whatever wrote it is in force
    /// by then.
    pub(crate) fn current(&self) -> Arc<Sealing> {
        Arc::clone(&self.0.read())
    }

    pub(crate) fn replace(&self, sealing: Arc<Sealing>) {
        *self.0.write() = sealing;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, cipher: fn(&[u8]) -> Option<Cipher>, secret: u8) -> Key {
        Key::new(name, cipher(&[secret; 32]).unwrap())
    }

    fn sealing(keys: Vec<Key>) -> Sealing {
        let rule = Rule {
            prefixes: vec!["/secret/".to_owned()],
            keys,
        };
        Sealing::new(vec![rule]).unwrap()
    }

    /// R9.19: the first key writes, all read, and each value belongs to its place.
    #[test]
    fn what_was_kept_is_read_again() {
        let of = "/secret/a";
        for (provider, cipher) in [
            ("aesgcm", Cipher::aes_gcm as fn(&[u8]) -> Option<Cipher>),
            ("aescbc", Cipher::aes_cbc),
            ("secretbox", Cipher::secretbox),
        ] {
            let one = sealing(vec![key("one", cipher, 1)]);
            for value in [&b""[..], b"{}", &[7; 100_000]] {
                let kept = one.seal(of, value).unwrap();
                let prefix = format!("k8s:enc:{provider}:v1:one:");
                assert!(kept.starts_with(prefix.as_bytes()));
                assert!(value.len() < 3 || !kept.windows(value.len()).any(|it| it == value));
                assert_ne!(kept, one.seal(of, value).unwrap(), "never twice the same");
                assert_eq!(one.open(of, &kept).unwrap(), value);

                let both = sealing(vec![key("two", cipher, 2), key("one", cipher, 1)]);
                assert_eq!(both.open(of, &kept).unwrap(), value);
                assert!(one.is_current(of, &kept) && !both.is_current(of, &kept));

                let other = sealing(vec![key("one", cipher, 3)]);
                let refused = other.open(of, &kept);
                assert!(refused.as_ref() != Ok(&value.to_vec()), "{provider}");
                let missing = sealing(vec![key("two", cipher, 2)]).open(of, &kept);
                let why = missing.unwrap_err().to_string();
                assert!(why.contains(&format!("\"one\" of {provider}")), "{why}");
            }
        }
    }

    #[test]
    fn a_value_is_not_moved_to_another_key_nor_changed() {
        let of = "/secret/a";
        for cipher in [
            Cipher::aes_gcm as fn(&[u8]) -> Option<Cipher>,
            Cipher::secretbox,
        ] {
            let sealing = sealing(vec![key("one", cipher, 1)]);
            let kept = sealing.seal(of, b"value").unwrap();
            let mut changed = kept.clone();
            *changed.last_mut().unwrap() ^= 1;
            assert!(sealing.open(of, &changed).is_err());
            assert!(sealing.open(of, &kept[..kept.len() - 1]).is_err());
            assert!(sealing.open(of, &kept[..24]).is_err());
        }
        let sealing = sealing(vec![key("one", Cipher::aes_gcm, 1)]);
        let kept = sealing.seal(of, b"value").unwrap();
        assert!(sealing.open("/secret/b", &kept).is_err());
    }

    #[test]
    fn what_is_not_encrypted_needs_a_provider_that_says_so() {
        let none = Sealing::default();
        assert_eq!(none.seal("/a", b"{}").unwrap(), b"{}");
        assert_eq!(none.open("/a", b"{}").unwrap(), b"{}");
        assert!(!none.encrypts());
        let strict = sealing(vec![key("one", Cipher::aes_gcm, 1)]);
        assert!(strict.encrypts());
        assert!(strict.open("/secret/a", b"{}").is_err());
        assert_eq!(strict.open("/open/a", b"{}").unwrap(), b"{}", "of no rule");
        let kept = strict.seal("/secret/a", b"{}").unwrap();
        let why = none.open("/secret/a", &kept).unwrap_err().to_string();
        assert!(why.contains("\"one\" of aesgcm"), "{why}");

        let lenient = sealing(vec![key("one", Cipher::aes_gcm, 1), Key::identity()]);
        assert_eq!(lenient.open("/secret/a", b"{}").unwrap(), b"{}");
        assert!(!lenient.is_current("/secret/a", b"{}"));
        let back = sealing(vec![Key::identity(), key("one", Cipher::aes_gcm, 1)]);
        assert_eq!(back.seal("/secret/a", b"{}").unwrap(), b"{}");
        assert_eq!(back.open("/secret/a", &kept).unwrap(), b"{}");
        assert!(!back.is_current("/secret/a", &kept));
        assert_eq!(
            Sealing::new(vec![Rule {
                prefixes: vec![],
                keys: vec![]
            }])
            .unwrap_err(),
            0
        );
    }

    #[test]
    fn keys_have_the_right_length() {
        for length in 0..=64 {
            let secret = vec![1; length];
            let aes = [16, 24, 32].contains(&length);
            assert_eq!(Cipher::aes_gcm(&secret).is_some(), aes, "{length}");
            assert_eq!(Cipher::aes_cbc(&secret).is_some(), aes, "{length}");
            assert_eq!(
                Cipher::secretbox(&secret).is_some(),
                length == 32,
                "{length}"
            );
        }
    }
}
