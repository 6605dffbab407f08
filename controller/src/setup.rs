//! `setup-etcd`: makes an etcd ready for tenants. Every step is skipped when
//! it was done before, so that it can be run again at any time, by as many at
//! once as like to.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use apiservice::{
    pki::{self, Entropy, Leaf, Pair, Subject, Usage, Validity},
    v1alpha1::DataStore,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::PostParams};
use serde_json::json;
use storage::tenancy::{self, Connection, TenancyError};
use tokio::time::Instant;

use crate::{args::SetupEtcdArgs, clock::Clock, requeue};

const CA_CRT: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const TLS_CRT: &str = "tls.crt";
const TLS_KEY: &str = "tls.key";
/// How long the authority and the certificates are valid: there is no rotation
/// yet.
const LIFETIME: SignedDuration = SignedDuration::from_hours(24 * 365 * 10);

/// Why the set-up did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call to the management cluster failed.
    #[error("{what}: {source}")]
    Api {
        what: String,
        #[source]
        source: Box<kube::Error>,
    },
    /// A certificate could not be made.
    #[error("certificates: {0}")]
    Certificates(#[from] pki::Error),
    /// A Secret is there but not what it must be.
    #[error(
        "Secret {namespace}/{name} has no key {key}; delete it if no tenant uses this etcd, else restore the key"
    )]
    Incomplete {
        namespace: String,
        name: String,
        key: &'static str,
    },
    /// The etcd does not become ready.
    #[error("etcd at {endpoints}: {source}")]
    Etcd {
        endpoints: String,
        #[source]
        source: TenancyError,
    },
    /// Our own API does not answer.
    #[error("the API of Steward does not accept the DataStore {name} in time: {source}")]
    DataStore {
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
    /// The manifest of the DataStore cannot be made.
    #[error("DataStore: {0}")]
    Manifest(#[from] serde_json::Error),
}

/// Does all steps.
pub async fn etcd(args: SetupEtcdArgs, client: Client, clock: Clock) -> Result<(), Error> {
    let until = Instant::now() + Duration::from_secs(args.timeout);
    let entropy = Entropy;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &args.common.namespace);
    let (authority, root) = client_secret(&args, &secrets, clock.now(), &entropy).await?;
    server_secret(&args, &secrets, &authority, clock.now(), &entropy).await?;
    tracing::info!("certificates are there");
    authentication(&args, &authority, &root, until).await?;
    tracing::info!("etcd authenticates its clients");
    if !args.data_store.is_empty() {
        data_store(&args, &client, until).await?;
    }
    tracing::info!("done");
    Ok(())
}

fn validity(now: Timestamp) -> Validity {
    Validity {
        not_before: now.checked_sub(SignedDuration::from_mins(5)).unwrap_or(now),
        not_after: now.checked_add(LIFETIME).unwrap_or(now),
    }
}

/// The authority and root's certificate, from the Secret or made for it.
async fn client_secret(
    args: &SetupEtcdArgs,
    secrets: &Api<Secret>,
    now: Timestamp,
    entropy: &Entropy,
) -> Result<(Pair, Pair), Error> {
    let authority = pki::authority("steward-etcd", validity(now), entropy)?;
    let root = pki::sign(
        &authority,
        &Leaf {
            subject: Subject {
                common_name: "root".into(),
                organizations: vec![],
            },
            usage: Usage::Client,
            dns_names: vec![],
            ip_addresses: vec![],
            validity: validity(now),
        },
        entropy,
    )?;
    let secret = keep(
        secrets,
        &args.client_secret,
        [
            (CA_CRT, &authority.cert),
            (CA_KEY, &authority.key),
            (TLS_CRT, &root.cert),
            (TLS_KEY, &root.key),
        ],
    )
    .await?;
    let read = |key| text(args, &args.client_secret, &secret, key);
    Ok((
        Pair {
            cert: read(CA_CRT)?,
            key: read(CA_KEY)?,
        },
        Pair {
            cert: read(TLS_CRT)?,
            key: read(TLS_KEY)?,
        },
    ))
}

/// The certificate that the members serve and speak to each other with.
async fn server_secret(
    args: &SetupEtcdArgs,
    secrets: &Api<Secret>,
    authority: &Pair,
    now: Timestamp,
    entropy: &Entropy,
) -> Result<(), Error> {
    let (dns_names, ip_addresses) = alternative_names(args);
    let server = pki::sign(
        authority,
        &Leaf {
            subject: Subject {
                common_name: args.service.clone(),
                organizations: vec![],
            },
            usage: Usage::Both,
            dns_names,
            ip_addresses,
            validity: validity(now),
        },
        entropy,
    )?;
    keep(
        secrets,
        &args.server_secret,
        [
            (CA_CRT, &authority.cert),
            (TLS_CRT, &server.cert),
            (TLS_KEY, &server.key),
        ],
    )
    .await?;
    Ok(())
}

/// Every name by which a member may be called.
fn alternative_names(args: &SetupEtcdArgs) -> (Vec<String>, Vec<IpAddr>) {
    let namespace = &args.common.namespace;
    let service = &args.service;
    let mut names = vec!["localhost".to_owned()];
    let mut addresses = vec![IpAddr::from([127, 0, 0, 1])];
    let hosts = (0..args.members).map(|member| format!("{service}-{member}.{service}"));
    for host in hosts.chain([service.clone(), format!("{service}-client")]) {
        names.push(format!("{host}.{namespace}.svc.{}", args.cluster_domain));
        names.push(format!("{host}.{namespace}.svc"));
        names.push(format!("{host}.{namespace}"));
        names.push(host);
    }
    for endpoint in &args.endpoints {
        let host = endpoint
            .rsplit_once(':')
            .map_or(endpoint.as_str(), |parts| parts.0);
        match host.trim_matches(['[', ']']).parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(host.to_owned()),
        }
    }
    (names, addresses)
}

/// Creates a Secret unless it exists; returns the one that is there.
async fn keep<const N: usize>(
    secrets: &Api<Secret>,
    name: &str,
    data: [(&'static str, &String); N],
) -> Result<Secret, Error> {
    let failed = |source| Error::Api {
        what: format!("Secret {name}"),
        source: Box::new(source),
    };
    if let Some(found) = secrets.get_opt(name).await.map_err(failed)? {
        return Ok(found);
    }
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([(
                "app.kubernetes.io/managed-by".to_owned(),
                "steward".to_owned(),
            )])),
            ..ObjectMeta::default()
        },
        data: Some(
            data.into_iter()
                .map(|(key, value)| (key.to_owned(), ByteString(value.clone().into_bytes())))
                .collect(),
        ),
        ..Secret::default()
    };
    match secrets.create(&PostParams::default(), &secret).await {
        Ok(created) => Ok(created),
        // Another run was faster: what it made counts.
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            secrets.get(name).await.map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

fn text(
    args: &SetupEtcdArgs,
    name: &str,
    secret: &Secret,
    key: &'static str,
) -> Result<String, Error> {
    secret
        .data
        .as_ref()
        .and_then(|data| String::from_utf8(data.get(key)?.0.clone()).ok())
        .filter(|value| !value.is_empty())
        .ok_or_else(|| Error::Incomplete {
            namespace: args.common.namespace.clone(),
            name: name.to_owned(),
            key,
        })
}

fn endpoints(args: &SetupEtcdArgs) -> Vec<String> {
    if !args.endpoints.is_empty() {
        return args.endpoints.clone();
    }
    (0..args.members)
        .map(|member| {
            format!(
                "{service}-{member}.{service}.{}.svc.{}:{}",
                args.common.namespace,
                args.cluster_domain,
                args.port,
                service = args.service,
            )
        })
        .collect()
}

/// Waits for etcd and turns authentication on.
async fn authentication(
    args: &SetupEtcdArgs,
    authority: &Pair,
    root: &Pair,
    until: Instant,
) -> Result<(), Error> {
    let connection = Connection {
        driver: "etcd".into(),
        endpoints: endpoints(args),
        ca_pem: Some(authority.cert.clone().into_bytes()),
        client_cert: Some(root.cert.clone().into_bytes()),
        client_key: Some(root.key.clone().into_bytes()),
        username: None,
        password: None,
        deadline: requeue::STORE_REQUEST,
    };
    let mut told = false;
    loop {
        let Err(source) = tenancy::etcd::bootstrap(connection.clone()).await else {
            return Ok(());
        };
        let worth_repeating = matches!(
            source,
            TenancyError::Unreachable(_) | TenancyError::Other(_)
        );
        if !worth_repeating || Instant::now() >= until {
            return Err(Error::Etcd {
                endpoints: connection.endpoints.join(", "),
                source,
            });
        }
        if !told {
            tracing::info!("waiting for etcd: {source}");
            told = true;
        }
        tokio::time::sleep(requeue::SETUP_EVERY).await;
    }
}

/// Waits for our API and posts the DataStore unless one of that name exists.
async fn data_store(args: &SetupEtcdArgs, client: &Client, until: Instant) -> Result<(), Error> {
    let reference = |key: &str| {
        json!({"secretReference": {
            "name": args.client_secret,
            "namespace": args.common.namespace,
            "keyPath": key,
        }})
    };
    let store: DataStore = serde_json::from_value(json!({
        "apiVersion": apiservice::api_version(),
        "kind": "DataStore",
        "metadata": {"name": args.data_store},
        "spec": {
            "driver": "etcd",
            "endpoints": endpoints(args),
            "tlsConfig": {
                "certificateAuthority": {
                    "certificate": reference(CA_CRT),
                    "privateKey": reference(CA_KEY),
                },
                "clientCertificate": {
                    "certificate": reference(TLS_CRT),
                    "privateKey": reference(TLS_KEY),
                },
            },
        },
    }))?;
    let api: Api<DataStore> = Api::all(client.clone());
    let mut told = false;
    loop {
        let post = async {
            if api.get_opt(&args.data_store).await?.is_some() {
                return Ok(false);
            }
            api.create(&PostParams::default(), &store)
                .await
                .map(|_| true)
        };
        let error = match post.await {
            Ok(true) => {
                tracing::info!("created DataStore {}", args.data_store);
                return Ok(());
            }
            Ok(false) => return Ok(()),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => return Ok(()),
            Err(error) => error,
        };
        // A path that nobody serves yet is a 404; a refusal stays one.
        let worth_repeating = match &error {
            kube::Error::Api(status) => {
                status.code == 404 || status.code == 429 || status.code >= 500
            }
            _ => true,
        };
        if !worth_repeating || Instant::now() >= until {
            return Err(Error::DataStore {
                name: args.data_store.clone(),
                source: Box::new(error),
            });
        }
        if !told {
            tracing::info!("waiting for the API of Steward: {error}");
            told = true;
        }
        tokio::time::sleep(requeue::SETUP_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser;

    fn args(more: &[&str]) -> SetupEtcdArgs {
        let line = ["steward-controller", "setup-etcd", "--namespace=ops"];
        let args = Args::parse_from(line.iter().chain(more));
        match args.command {
            Some(Command::SetupEtcd(args)) => *args,
            _ => panic!("setup-etcd expected"),
        }
    }

    #[test]
    fn endpoints_are_the_members_unless_named() {
        assert_eq!(
            endpoints(&args(&["--members=2"])),
            [
                "steward-etcd-0.steward-etcd.ops.svc.cluster.local:2379",
                "steward-etcd-1.steward-etcd.ops.svc.cluster.local:2379",
            ]
        );
        assert_eq!(
            endpoints(&args(&["--endpoints=10.0.0.1:1"])),
            ["10.0.0.1:1"]
        );
    }

    #[test]
    fn the_certificate_covers_every_endpoint() {
        let args = args(&["--endpoints=10.0.0.1:1,[fd00::1]:2,etcd.example:3"]);
        let (names, addresses) = alternative_names(&args);
        for name in [
            "steward-etcd-0.steward-etcd.ops.svc.cluster.local",
            "steward-etcd-client.ops.svc",
            "etcd.example",
        ] {
            assert!(names.iter().any(|one| one == name), "{name}");
        }
        for address in ["10.0.0.1", "fd00::1", "127.0.0.1"] {
            assert!(addresses.contains(&address.parse().unwrap()), "{address}");
        }
    }
}
