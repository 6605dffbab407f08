//! A webhook: a server of HTTPS in this process that remembers what it was asked and
//! answers as its path says.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// See the module.
pub struct Webhook {
    pub port: u16,
    /// PEM.
    pub authority: String,
    /// What was asked, by the first part of the path: the path and the body.
    asked: Arc<Asked>,
}

#[derive(Default)]
struct Asked(
    Mutex<BTreeMap<String, Vec<(String, Value)>>>,
    /// Whom "loop" asks.
    Mutex<Option<kube::Client>>,
);

impl Webhook {
    /// One that can be reached at these addresses.
    pub async fn start(addresses: &[Ipv4Addr]) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        let own = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let names = addresses
            .iter()
            .map(|address| SanType::IpAddress((*address).into()));
        params.subject_alt_names = names.collect();
        let certificate = params.signed_by(&own, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(own.serialize_der()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Asked>::default();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(serve(listener, acceptor, asked.clone()));
        Self {
            port,
            authority: authority.pem(),
            asked,
        }
    }

    /// Has "loop" ask this server before it answers.
    pub fn asks(&self, client: kube::Client) {
        *self.asked.1.lock() = Some(client);
    }

    /// What was asked below a path since it was last looked at.
    pub fn take(&self, side: &str) -> Vec<(String, Value)> {
        self.asked.0.lock().remove(side).unwrap_or_default()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, asked: Arc<Asked>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        let (acceptor, asked) = (acceptor.clone(), asked.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(socket).await else {
                return;
            };
            let service = service_fn(move |request| answer(request, asked.clone()));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    asked: Arc<Asked>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path_and_query().unwrap().as_str().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let side = parts.next().unwrap_or_default().to_owned();
    let rest = parts.next().unwrap_or_default().to_owned();
    let does = rest.split('?').next().unwrap_or_default().to_owned();
    if !does.starts_with("ready-") {
        let mut all = asked.0.lock();
        all.entry(side).or_default().push((rest, review.clone()));
    }
    let mut code = 200;
    let body = match does.as_str() {
        "slow" => {
            tokio::time::sleep(Duration::from_secs(3)).await;
            said(&review, json!({"allowed": true}))
        }
        "loop" => {
            let client = asked.1.lock().clone().unwrap();
            let path = format!("{}?dryRun=All", crate::side::COLLECTION);
            let mut other = review["request"]["object"].clone();
            other["metadata"] = json!({"name": "other", "labels": {"marker": "loop"}});
            for request in [
                Request::get(crate::side::COLLECTION).body(Vec::new()),
                Request::post(path).body(other.to_string().into_bytes()),
            ] {
                let answer = client.request::<Value>(request.unwrap()).await;
                assert!(answer.is_ok(), "{answer:?}");
            }
            said(&review, json!({"allowed": true}))
        }
        "garbage" => "hello".to_owned(),
        "empty" => "{}".to_owned(),
        "absent" => {
            json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}).to_string()
        }
        "error" => {
            code = 500;
            "it broke".to_owned()
        }
        "missing" => {
            code = 404;
            "no".to_owned()
        }
        "kindless" => {
            json!({"response": {"uid": review["request"]["uid"], "allowed": true}}).to_string()
        }
        "other-uid" => said(&review, json!({"allowed": true, "uid": "other"})),
        does => said(&review, response(does, &review["request"])),
    };
    let response = Response::builder()
        .status(code)
        .header("content-type", "application/json");
    Ok(response.body(Full::from(body)).unwrap())
}

fn said(review: &Value, mut response: Value) -> String {
    if response.get("uid").is_none() {
        response["uid"] = review["request"]["uid"].clone();
    }
    json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response})
        .to_string()
}

fn patch(operations: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}

fn response(does: &str, request: &Value) -> Value {
    let object = &request["object"];
    let labels = object["metadata"].get("labels").is_some();
    let annotations = object["metadata"].get("annotations").is_some();
    match does {
        "allow" => json!({"allowed": true}),
        "deny" => json!({"allowed": false, "status": {"message": "we do not like it"}}),
        "deny-reason" => json!({"allowed": false, "status": {"reason": "NotToday", "code": 422}}),
        "deny-bare" => json!({"allowed": false}),
        "deny-whole" => json!({"allowed": false, "status": {"status": "Failure", "code": 403,
            "message": "no", "reason": "Forbidden", "details": {"name": "x", "kind": "y",
            "causes": [{"message": "because", "field": "spec.x", "reason": "FieldValueInvalid"}], "retryAfterSeconds": 7}}}),
        "deny-code" => json!({"allowed": false, "status": {"code": 200, "message": "odd"}}),
        "warn" => json!({"allowed": true, "warnings": ["be careful", "and \"quoted\""],
            "auditAnnotations": {"seen": "yes"}}),
        "label" if labels => {
            patch(json!([{"op": "add", "path": "/metadata/labels/hooked", "value": "yes"}]))
        }
        "label" => {
            patch(json!([{"op": "add", "path": "/metadata/labels", "value": {"hooked": "yes"}}]))
        }
        "replicas" => patch(
            json!([{"op": "replace", "path": "/spec/controlPlane/deployment/replicas", "value": 1}]),
        ),
        "invalid" => patch(json!([{"op": "replace", "path": "/spec/dataStore", "value": 5}])),
        "unknown" => patch(json!([{"op": "add", "path": "/spec/nonsense", "value": {"a": 1}}])),
        "default" => {
            patch(json!([{"op": "remove", "path": "/spec/controlPlane/deployment/replicas"}]))
        }
        "status" => patch(
            json!([{"op": "add", "path": "/status", "value": {"kubernetesResources": {"version": {"status": "Ready"}}}}]),
        ),
        "meta" => patch(json!([
            {"op": "add", "path": "/metadata/uid", "value": "00000000-0000-0000-0000-000000000000"},
            {"op": "add", "path": "/metadata/creationTimestamp", "value": "2001-01-01T00:00:00Z"},
            {"op": "add", "path": "/metadata/generation", "value": 70}])),
        "managers" => patch(
            json!([{"op": "add", "path": "/metadata/managedFields", "value": [{"manager": "x", "operation": "Nothing"}]}]),
        ),
        "view" => patch(json!([{"op": "replace", "path": "/spec/role", "value": "view"}])),
        "scale" => patch(json!([{"op": "replace", "path": "/spec/replicas", "value": 4}])),
        "bad" => patch(json!([{"op": "remove", "path": "/nope"}])),
        "undecodable" => {
            json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode("hello")})
        }
        "untyped" => json!({"allowed": true, "patch": STANDARD.encode("[]")}),
        "merge" => {
            json!({"allowed": true, "patchType": "MergePatch", "patch": STANDARD.encode("[{\"op\":\"test\",\"path\":\"/a\"}]")})
        }
        "nothing" => patch(json!([])),
        "count" => {
            let before = object["metadata"]["annotations"]["count"]
                .as_str()
                .unwrap_or("");
            let value = format!("{before}i");
            match annotations {
                true => patch(
                    json!([{"op": "add", "path": "/metadata/annotations/count", "value": value}]),
                ),
                false => patch(
                    json!([{"op": "add", "path": "/metadata/annotations", "value": {"count": value}}]),
                ),
            }
        }
        does if does.starts_with("ready-") => {
            json!({"allowed": false, "status": {"message": does}})
        }
        other => panic!("no such answer: {other}"),
    }
}
