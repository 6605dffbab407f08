//! Events as an `EventList`, posted to a webhook that a kubeconfig names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::BodyExt;
use kube::client::Body;
use tokio_util::sync::CancellationToken;

use super::event;
use crate::{kubeconfig, reviews};

/// Batches on their way at a time.
pub const AT_ONCE: usize = 16;
/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Attempts for one batch, and how the time between them grows.
const ATTEMPTS: u32 = 5;
const FACTOR: f64 = 1.5;
const JITTER: f64 = 0.2;
/// And how long it is at the end of the process.
const PAUSE: Duration = Duration::from_millis(500);
/// Bytes of an answer that are read so that its connection can be used again.
const ANSWER: usize = 64 * 1024;

/// Why there is no webhook.
#[derive(Debug, thiserror::Error)]
#[error("initializing audit webhook: {path:?}: {why}")]
pub struct Error {
    path: PathBuf,
    why: String,
}

/// See the module.
#[derive(Clone)]
pub struct Webhook {
    client: kube::Client,
    path: String,
    backoff: Duration,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Webhook")
            .field("path", &self.path)
            .finish()
    }
}

impl Webhook {
    /// The webhook of a kubeconfig. Nobody is asked yet.
    ///
    /// # Errors
    /// When the file cannot be read or used.
    pub async fn open(path: &Path, backoff: Duration) -> Result<Self, Error> {
        let failed = |error: &dyn std::error::Error| Error {
            path: path.to_owned(),
            why: error.to_string(),
        };
        let config = kubeconfig::read(path).await;
        let mut config = config.map_err(|error| failed(&error))?;
        // The client puts a path of its own behind that of the server: the whole URL is
        // where events go, as by Kubernetes.
        let url = std::mem::take(&mut config.cluster_url);
        let query = url.path_and_query().map_or("/", |path| path.as_str());
        let mut parts = url.clone().into_parts();
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
        config.cluster_url = http::Uri::from_parts(parts).map_err(|error| failed(&error))?;
        config.connect_timeout = Some(Duration::from_secs(5));
        config.read_timeout = Some(TIMEOUT);
        Ok(Webhook {
            client: kube::Client::try_from(config).map_err(|error| failed(&error))?,
            path: query.to_owned(),
            backoff,
        })
    }

    /// Posts events, several times if need be; once the process ends, in quick succession.
    ///
    /// # Errors
    /// That of the last attempt.
    pub async fn send(&self, events: &[Bytes], stop: &CancellationToken) -> Result<(), String> {
        let list = Bytes::from(event::list(events));
        let mut delay = self.backoff;
        let mut attempt = 1;
        loop {
            let posted = tokio::time::timeout(TIMEOUT, self.post(list.clone())).await;
            let error = match posted {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => format!("no answer within {} s", TIMEOUT.as_secs()),
            };
            if attempt == ATTEMPTS {
                return Err(error);
            }
            attempt += 1;
            let wait = delay.mul_f64(rand::random_range(1.0..1.0 + JITTER));
            let most = tokio::time::sleep(wait.saturating_sub(PAUSE));
            stop.run_until_cancelled(most).await;
            tokio::time::sleep(wait.min(PAUSE)).await;
            delay = delay.mul_f64(FACTOR);
        }
    }

    async fn post(&self, list: Bytes) -> Result<(), String> {
        let request = Request::post(self.path.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .body(Body::from(list))
            .map_err(|error| error.to_string())?;
        let answer = self.client.send(request).await;
        let answer = answer.map_err(|error| reviews::describe(&error))?;
        let status = answer.status();
        let (mut body, mut read) = (answer.into_body(), 0);
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > ANSWER {
                break;
            }
        }
        match status.is_success() {
            true => Ok(()),
            false => Err(format!("the webhook answered {status}")),
        }
    }
}
