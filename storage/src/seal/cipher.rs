//! The ciphers of Kubernetes' providers, in the form in which it keeps their values.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey,
    PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::{FixedLength, IV_LEN_128_BIT};
use crypto_secretbox::XSalsa20Poly1305;
use crypto_secretbox::aead::{Aead, KeyInit};

use super::SealError;

/// A provider with one key.
pub struct Cipher(Kind);

enum Kind {
    /// Nonce of 12 bytes, then the text with its tag; the place is authenticated.
    AesGcm(LessSafeKey),
    /// Initial vector of 16 bytes, then the text, padded; nothing is authenticated.
    AesCbc {
        seal: Box<PaddedBlockEncryptingKey>,
        open: Box<PaddedBlockDecryptingKey>,
    },
    /// Nonce of 24 bytes, then the text with its tag; the place is not authenticated.
    SecretBox(XSalsa20Poly1305),
}

const BOX_NONCE: usize = 24;

impl Cipher {
    /// AES-GCM with a key of 16, 24 or 32 bytes.
    pub fn aes_gcm(secret: &[u8]) -> Option<Self> {
        let algorithm = match secret.len() {
            16 => &AES_128_GCM,
            24 => &AES_192_GCM,
            32 => &AES_256_GCM,
            _ => return None,
        };
        let key = UnboundKey::new(algorithm, secret).ok()?;
        Some(Cipher(Kind::AesGcm(LessSafeKey::new(key))))
    }

    /// AES-CBC with a key of 16, 24 or 32 bytes.
    pub fn aes_cbc(secret: &[u8]) -> Option<Self> {
        let algorithm = match secret.len() {
            16 => &AES_128,
            24 => &AES_192,
            32 => &AES_256,
            _ => return None,
        };
        let key = || UnboundCipherKey::new(algorithm, secret).ok();
        Some(Cipher(Kind::AesCbc {
            seal: PaddedBlockEncryptingKey::cbc_pkcs7(key()?).ok()?.into(),
            open: PaddedBlockDecryptingKey::cbc_pkcs7(key()?).ok()?.into(),
        }))
    }

    /// XSalsa20 and Poly1305 with a key of 32 bytes.
    pub fn secretbox(secret: &[u8]) -> Option<Self> {
        let key = XSalsa20Poly1305::new_from_slice(secret).ok()?;
        Some(Cipher(Kind::SecretBox(key)))
    }

    /// As Kubernetes calls the provider.
    pub fn provider(&self) -> &'static str {
        match &self.0 {
            Kind::AesGcm(_) => "aesgcm",
            Kind::AesCbc { .. } => "aescbc",
            Kind::SecretBox(_) => "secretbox",
        }
    }

    /// Whether there is a provider of this name.
    pub(super) fn is_provider(name: &[u8]) -> bool {
        [&b"aesgcm"[..], b"aescbc", b"secretbox"].contains(&name)
    }

    /// Appends a value of the place `of` to `kept`.
    pub(super) fn seal(
        &self,
        of: &[u8],
        value: &[u8],
        kept: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        match &self.0 {
            Kind::AesGcm(key) => {
                let nonce: [u8; NONCE_LEN] = random()?;
                let mut text = value.to_vec();
                key.seal_in_place_append_tag(
                    Nonce::assume_unique_for_key(nonce),
                    Aad::from(of),
                    &mut text,
                )
                .map_err(|_| SealError::Failed)?;
                kept.extend_from_slice(&nonce);
                kept.extend_from_slice(&text);
            }
            Kind::AesCbc { seal, .. } => {
                let iv: [u8; IV_LEN_128_BIT] = random()?;
                let mut text = value.to_vec();
                let context = EncryptionContext::Iv128(FixedLength::from(iv));
                seal.less_safe_encrypt(&mut text, context)
                    .map_err(|_| SealError::Failed)?;
                kept.extend_from_slice(&iv);
                kept.extend_from_slice(&text);
            }
            Kind::SecretBox(key) => {
                let nonce: [u8; BOX_NONCE] = random()?;
                let text = key
                    .encrypt(&nonce.into(), value)
                    .map_err(|_| SealError::Failed)?;
                kept.extend_from_slice(&nonce);
                kept.extend_from_slice(&text);
            }
        }
        Ok(())
    }

    /// None: it was made with another key, of another place where that is authenticated, or
    /// is damaged.
    pub(super) fn open(&self, of: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        match &self.0 {
            Kind::AesGcm(key) => {
                let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>()?;
                let mut text = text.to_vec();
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let length = key
                    .open_in_place(nonce, Aad::from(of), &mut text)
                    .ok()?
                    .len();
                text.truncate(length);
                Some(text)
            }
            Kind::AesCbc { open, .. } => {
                let (iv, text) = sealed.split_first_chunk::<IV_LEN_128_BIT>()?;
                let mut text = text.to_vec();
                let context = DecryptionContext::Iv128(FixedLength::from(*iv));
                let length = open.decrypt(&mut text, context).ok()?.len();
                text.truncate(length);
                Some(text)
            }
            Kind::SecretBox(key) => {
                let (nonce, text) = sealed.split_first_chunk::<BOX_NONCE>()?;
                key.decrypt(&(*nonce).into(), text).ok()
            }
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SealError::Failed)?;
    Ok(bytes)
}
