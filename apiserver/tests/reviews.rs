//! Questions to the cluster, in a process of their own: places for them are the process's.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use apiserver::reviews;
use http_body_util::BodyExt;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::client::Body;

/// A cluster that says nothing about tokens, and how many it is asked about.
fn cluster() -> (kube::Client, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let count = count.clone();
        async move {
            if request.uri().path().ends_with("/tokenreviews") {
                count.fetch_add(1, SeqCst);
                std::future::pending::<()>().await;
            }
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Ok::<_, Infallible>(http::Response::new(Body::from(body.to_vec())))
        }
    });
    (kube::Client::new(service, "default"), asked)
}

/// A flood of tokens takes 50 streams to kube-apiserver and no more, and holds up nobody
/// who is known already. R1.22, R1.30.
#[tokio::test(start_paused = true)]
async fn a_flood_of_tokens_holds_up_no_question_about_rights() {
    let (client, asked) = cluster();
    let token = |n: usize| TokenReview {
        spec: TokenReviewSpec {
            token: format!("t{n}"),
            ..TokenReviewSpec::default()
        },
        ..TokenReview::default()
    };
    let tokens: Vec<TokenReview> = (0..80).map(token).collect();
    let flood = futures::future::join_all(tokens.iter().map(|token| reviews::ask(&client, token)));
    let mut flood = std::pin::pin!(flood);
    let soon = tokio::time::timeout(Duration::from_secs(1), &mut flood).await;
    assert!(soon.is_err());
    assert_eq!(asked.load(SeqCst), 50);
    let right = SubjectAccessReview::default();
    let answer = tokio::time::timeout(Duration::from_secs(1), reviews::ask(&client, &right));
    answer.await.expect("an answer meanwhile").unwrap();
    // And they end within their time.
    let ended = tokio::time::timeout(Duration::from_secs(11), flood)
        .await
        .unwrap();
    assert!(ended.iter().all(Result::is_err));
}
