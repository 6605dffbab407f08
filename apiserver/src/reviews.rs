//! Questions that are asked of kube-apiserver: who is this, and may they (R1.22, R1.30).
//!
//! Each has 10 s in all, and is asked again when the answer says nothing about the
//! question: connection errors, 429 and 5xx.

use std::fmt::Debug;
use std::time::Duration;

use apiservice::told;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::api::{Api, PostParams};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::Semaphore;

/// All the time that one question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Reviews of tokens under way.
pub(crate) const AT_ONCE: usize = 50;
const FIRST_DELAY: Duration = Duration::from_millis(500);
const TRIES: u32 = 5;

/// A kind of question, with how many of it are under way at once: each occupies a
/// stream to kube-apiserver. Apart, so that a flood of tokens holds up nobody who is
/// known already.
pub trait Question {
    fn under_way() -> &'static Semaphore;
}

impl Question for TokenReview {
    fn under_way() -> &'static Semaphore {
        static UNDER_WAY: Semaphore = Semaphore::const_new(AT_ONCE);
        &UNDER_WAY
    }
}

impl Question for SubjectAccessReview {
    fn under_way() -> &'static Semaphore {
        static UNDER_WAY: Semaphore = Semaphore::const_new(200);
        &UNDER_WAY
    }
}

/// Posts a review object and returns it with its status filled in.
///
/// # Errors
/// The last error, as text, when no answer came in time.
pub async fn ask<K>(client: &kube::Client, review: &K) -> Result<K, String>
where
    K: Question
        + kube::Resource<Scope = k8s_openapi::ClusterResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::all(client.clone());
    let mut last = "no answer within 10 s".to_owned();
    let asking = async {
        let mut delay = FIRST_DELAY;
        for turn in 1..=TRIES {
            // The semaphore is never closed, so that acquiring can only wait.
            let _slot = K::under_way().acquire().await;
            match api.create(&PostParams::default(), review).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    // It may quote what was asked, and is remembered.
                    last = told::cut(describe(&error), told::MAX_TEXT);
                    if turn == TRIES || !passes(&error) {
                        return Err(());
                    }
                }
            }
            drop(_slot);
            tokio::time::sleep(delay.mul_f64(rand::random_range(1.0..1.2))).await;
            delay = delay.mul_f64(1.5);
        }
        Err(())
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(())) | Err(_) => Err(last),
    }
}

/// Whether the error may be gone the next time.
fn passes(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 429 || status.code >= 500,
        kube::Error::SerdeError(_) | kube::Error::BuildRequest(_) => false,
        _ => true,
    }
}

/// The error with its causes, each once. Of a refusal by kube-apiserver, its own words:
/// kube prints the whole Status after them.
pub fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(kube::Error::Api(status)) = cause.downcast_ref() {
            return format!("{} ({})", status.message, status.code);
        }
        let words = cause.to_string();
        if !text.contains(&words) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}
