//! A tenant in one of the shared servers, as its API server works with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use etcd_client::{Client, GetOptions};
use storage::moving::Side;
use storage::tenancy::{Access, Claim, Data, Stage};

use crate::lab::nats::{self, File};
use crate::lab::sql::{Kine, Server, secret};
use crate::{Driver, Servers, lab};

static NUMBER: AtomicU32 = AtomicU32::new(1);

/// Where a tenant is, and where it goes.
pub struct Ways {
    pub servers: Arc<Servers>,
    pub from: Driver,
    pub to: Driver,
    pub source: Side,
    pub target: Side,
    pub prefix: String,
}

impl Ways {
    /// A tenant that serves in `from`, with names for `to` that nobody has.
    pub async fn new(from: Driver, to: Driver) -> Self {
        let servers = Servers::shared().await;
        let source = servers.tenancy(from);
        let target = servers.tenancy(to);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("/t_{number}");
        let claim = |schema: String, stage, driver: Driver| Claim {
            role: Some(Claim::role_of(&schema, &format!("uid-{number}"))),
            prefix: Some(prefix.clone()),
            stage,
            replicas: driver.is_nats().then_some(1),
            ..lab::claim(&format!("uid-{number}"), &schema, &format!("{schema}_user"))
        };
        let is_etcd = from.is_etcd();
        let schema = match is_etcd {
            true => format!("t_{number}"),
            false => format!("s_{number}"),
        };
        let side = |tenancy, claim| Side {
            tenancy,
            claim,
            password: Some(secret()),
        };
        let source = side(source, claim(schema, Stage::Serving, from));
        let target = side(target, claim(format!("t_{number}"), Stage::Incoming, to));
        let prepared = source
            .tenancy
            .prepare(&source.claim, source.password.as_ref(), Data::New);
        prepared.await.unwrap();
        Ways {
            servers,
            from,
            to,
            source,
            target,
            prefix,
        }
    }

    pub async fn at_source(&self) -> Api {
        Api::new(&self.servers, self.from, &self.source.claim, &[]).await
    }

    pub async fn at_target(&self) -> Api {
        Api::new(&self.servers, self.to, &self.target.claim, &[]).await
    }

    /// With a kine that compacts while the test waits.
    pub async fn at_target_compacting(&self) -> Api {
        let flags = [
            "--compact-interval=1s",
            "--compact-interval-jitter=0",
            "--compact-min-retain=0",
        ];
        Api::new(&self.servers, self.to, &self.target.claim, &flags).await
    }

    /// The source has exactly the rights of one that serves.
    pub async fn source_serves(&self) {
        let claim = self.source.claim.at(Stage::Serving);
        let access = self.source.tenancy.check(&claim, Some(&secret())).await;
        assert_eq!(access, Ok(Access::Exact));
    }

    /// The same of a target that takes no new claim.
    pub async fn target_is_clean_but_full(&self) {
        let target = &self.target;
        let claims = target.tenancy.claims(&target.claim.uid).await.unwrap();
        assert_eq!(claims, []);
        let incoming = target.claim.at(Stage::Incoming);
        assert_eq!(target.tenancy.remaining(&incoming).await, Ok(0));
    }

    /// Nothing of the tenant is at the target.
    pub async fn target_is_clean(&self) {
        let claims = self.target.tenancy.claims(&self.target.claim.uid).await;
        let left = claims
            .unwrap()
            .into_iter()
            .find(|it| it.schema == self.target.claim.schema);
        assert_eq!(left, None);
        // Where nobody has a claim, a new one is refused if anything is left.
        let fresh = self.target.claim.at(Stage::Incoming);
        let tenancy = &self.target.tenancy;
        tenancy
            .prepare(&fresh, Some(&secret()), Data::New)
            .await
            .unwrap();
        tenancy.revoke(&fresh).await.unwrap();
        tenancy.drop_data(&fresh).await.unwrap();
        tenancy.release(&fresh).await.unwrap();
    }
}

/// What a tenant's API server speaks to: its etcd, with the tenant's certificate, or kine,
/// with the tenant's password.
pub struct Api {
    pub client: Client,
    kine: Option<Kine>,
    /// kine reads it whenever it connects.
    _credentials: Option<File>,
}

pub fn endpoint(server: &Server, driver: Driver, claim: &Claim) -> String {
    let (user, password) = (&claim.user, secret());
    let password = password.expose();
    match driver {
        Driver::PostgreSql => format!(
            "postgres://{user}:{password}@{}/{}",
            server.endpoint(),
            claim.schema
        ),
        _ => format!(
            "mysql://{user}:{password}@tcp({})/{}",
            server.endpoint(),
            claim.schema
        ),
    }
}

impl Api {
    pub async fn new(servers: &Servers, driver: Driver, claim: &Claim, flags: &[&str]) -> Self {
        if driver.is_etcd() {
            let etcd = servers.etcd(driver);
            let client = etcd.client(&etcd.authority.client(&claim.user)).await;
            return Api {
                client,
                kine: None,
                _credentials: None,
            };
        }
        let (authority, endpoint, credentials) = match driver.is_nats() {
            true => {
                let (server, file) = (servers.nats(driver), File::of(claim));
                let endpoint = nats::endpoint(server, claim, &file);
                (server.directory().join("ca.crt"), endpoint, Some(file))
            }
            false => {
                let server = servers.sql(driver);
                let endpoint = endpoint(server, driver, claim);
                (server.directory().join("ca.crt"), endpoint, None)
            }
        };
        let mut kine = Kine::start_flags(&authority, &endpoint, flags);
        let client = kine.client().await;
        Api {
            client,
            kine: Some(kine),
            _credentials: credentials,
        }
    }

    pub fn log(&self) -> String {
        self.kine.as_ref().map(Kine::log).unwrap_or_default()
    }

    /// All keys below a prefix with their values and revisions, and the newest revision.
    pub async fn list(&mut self, prefix: &str) -> (BTreeMap<String, (Vec<u8>, i64)>, i64) {
        let mut found = BTreeMap::new();
        let mut from = format!("{prefix}/");
        let mut revision = 0;
        loop {
            let mut options = GetOptions::new()
                .with_range(format!("{prefix}0"))
                .with_limit(500);
            if revision > 0 {
                options = options.with_revision(revision);
            }
            let page = get(&mut self.client, &from, Some(options)).await;
            revision = match revision {
                0 => page.header().unwrap().revision(),
                known => known,
            };
            for pair in page.kvs() {
                let key = pair.key_str().unwrap();
                let key = key.strip_prefix(prefix).unwrap().to_owned();
                found.insert(key, (pair.value().to_vec(), pair.mod_revision()));
            }
            match page.kvs().last() {
                Some(last) if page.more() => from = format!("{}\0", last.key_str().unwrap()),
                _ => return (found, revision),
            }
        }
    }
}

/// etcd asks to repeat what met a change of users or roles, here of other tests.
pub fn is_old_revision(error: &etcd_client::Error) -> bool {
    error.to_string().contains("revision of auth store is old")
}

/// Creates a key as an API server does.
pub async fn create(client: &mut Client, key: &str) -> Result<bool, etcd_client::Error> {
    loop {
        match Kine::create(client, key).await {
            Err(error) if is_old_revision(&error) => {}
            done => return done,
        }
    }
}

/// Reads as often as it has to.
pub async fn get(
    client: &mut Client,
    key: &str,
    options: Option<GetOptions>,
) -> etcd_client::GetResponse {
    loop {
        match client.get(key, options.clone()).await {
            Err(error) if is_old_revision(&error) => {}
            done => return done.unwrap(),
        }
    }
}
