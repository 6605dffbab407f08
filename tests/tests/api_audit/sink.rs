//! A webhook for audit events: a server of HTTPS in this process that remembers what was
//! posted.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// See the module.
pub struct Sink {
    port: u16,
    authority: String,
    posted: Arc<Posted>,
}

#[derive(Default)]
pub struct Posted {
    /// Path, token and body of each.
    pub all: Mutex<Vec<(String, String, Value)>>,
    /// How many are refused before one is taken.
    pub refuses: Mutex<u32>,
}

impl Sink {
    pub async fn start() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        let own = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let posted = Arc::<Posted>::default();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(serve(listener, acceptor, posted.clone()));
        Self {
            port,
            authority: authority.pem(),
            posted,
        }
    }

    /// Writes a kubeconfig that leads here, with a path and a token.
    pub fn write_kubeconfig(&self, file: &Path) {
        let authority = file.with_extension("ca");
        std::fs::write(&authority, &self.authority).unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "a",
            "clusters": [{"name": "a", "cluster": {
                "server": format!("https://127.0.0.1:{}/audit/events?of=ours", self.port),
                "certificate-authority": authority,
            }}],
            "users": [{"name": "a", "user": {"token": "opens-it"}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        });
        std::fs::write(file, config.to_string()).unwrap();
    }

    pub fn posted(&self) -> &Posted {
        &self.posted
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Value> {
        let all = self.posted.all.lock();
        let lists = all
            .iter()
            .map(|(_, _, list)| list["items"].as_array().unwrap().clone());
        lists.flatten().collect()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, posted: Arc<Posted>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        let (acceptor, posted) = (acceptor.clone(), posted.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(socket).await else {
                return;
            };
            let service = service_fn(move |request| answer(request, posted.clone()));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    posted: Arc<Posted>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let url = request.uri().to_string();
    let token = request.headers()["authorization"]
        .to_str()
        .unwrap()
        .to_owned();
    let method = request.method().clone();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let refused = {
        let mut refuses = posted.refuses.lock();
        *refuses = refuses.saturating_sub(1);
        *refuses > 0
    };
    if refused {
        return Ok(Response::builder()
            .status(503)
            .body(Full::default())
            .unwrap());
    }
    let list = serde_json::from_slice(&body).unwrap();
    posted
        .all
        .lock()
        .push((format!("{method} {url}"), token, list));
    Ok(Response::new(Full::default()))
}
