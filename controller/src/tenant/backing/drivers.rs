//! What the controller asks of a driver by name: a row for each. What all of the API ask is
//! [`Driver`]'s own; how a database is spoken to is a module of `storage::tenancy`.

use apiservice::condition::reason;
use apiservice::names::key;
use apiservice::v1alpha1::Driver;
use storage::tenancy::{Claim, Password, nats};

/// What there is to know of a driver here.
pub struct Row {
    /// What to do about a database that takes no more writes.
    pub remedy_of_full: &'static str,
    /// Reason of the condition that tells of a server that does not keep tenants apart.
    pub not_separated: &'static str,
    /// A claim is found at once under the names that a tenant wishes for, without reading
    /// all claims. Of a database that has few of them, all are read: the names of what was
    /// moved there may be others.
    pub has_many_claims: bool,
    /// What is stored of a claim after its grant, where that is more than was asked for: of
    /// a database with so many endpoints.
    pub stored: Option<fn(&Claim, usize) -> Claim>,
    /// How kine reaches it; none where the API server does so itself.
    pub kine: Option<Kine>,
}

/// How kine reaches a database.
pub struct Kine {
    /// The value of its `KINE_ENDPOINT`.
    pub endpoint: fn(&Place<'_>) -> String,
    /// The `host:port`s in such a value; `None` if it is another driver's.
    pub endpoints: fn(&str) -> Option<Vec<String>>,
    /// The file with which it enters, if it needs one.
    pub credentials: Option<Credentials>,
}

/// A file with credentials.
#[derive(Clone, Copy)]
pub struct Credentials {
    /// Its key in the Secret, and its name.
    pub key: &'static str,
    /// What is in it.
    pub make: fn(&Claim, &Password) -> Option<String>,
}

/// Where a tenant's data is.
pub struct Place<'a> {
    /// `host:port` each.
    pub endpoints: &'a [String],
    /// What was claimed there.
    pub claim: &'a Claim,
    /// Database or bucket.
    pub schema: &'a str,
    /// What the kubelet makes user and password of.
    pub login: &'a str,
    /// The directory in which the file with credentials is.
    pub files: &'a str,
}

/// What there is to know of a driver. Nothing is run on one that is not recognized.
pub fn row(driver: Driver) -> &'static Row {
    match driver {
        Driver::Etcd | Driver::Unrecognized => &ETCD,
        Driver::PostgreSQL => &POSTGRESQL,
        Driver::MySQL => &MYSQL,
        Driver::NATS => &NATS,
    }
}

/// All rows.
pub static ALL: [&Row; 4] = [&ETCD, &POSTGRESQL, &MYSQL, &NATS];

/// The same of all databases that keep what they have on a volume like any other.
const ROOM: &str = "Make room on its volume";

static ETCD: Row = Row {
    remedy_of_full: "Compact and defragment it or raise its quota, then disarm the alarm",
    not_separated: reason::VERSION_TOO_OLD,
    has_many_claims: true,
    stored: None,
    kine: None,
};

static POSTGRESQL: Row = Row {
    remedy_of_full: ROOM,
    not_separated: reason::TENANTS_NOT_SEPARATED,
    has_many_claims: false,
    stored: None,
    kine: Some(Kine {
        // Go takes no list with IPv6 addresses where a URL has its host.
        endpoint: |place| {
            let (hosts, ports): (Vec<_>, Vec<_>) = place
                .endpoints
                .iter()
                .filter_map(|at| at.rsplit_once(':'))
                .map(|(host, port)| (host.trim_matches(['[', ']']), port))
                .unzip();
            format!(
                "postgres://{}/{}?host={}&port={}&target_session_attrs=read-write",
                place.login,
                place.schema,
                hosts.join(","),
                ports.join(",")
            )
        },
        endpoints: |value| {
            let (_, query) = value.strip_prefix("postgres://")?.split_once('?')?;
            let list = |name: &str| {
                let mut all = query.split('&');
                all.find_map(|it| it.strip_prefix(name)?.strip_prefix('='))
            };
            let both = list("host")?.split(',').zip(list("port")?.split(','));
            let both = both.map(|(host, port)| match host.contains(':') {
                true => format!("[{host}]:{port}"),
                false => format!("{host}:{port}"),
            });
            Some(both.collect())
        },
        credentials: None,
    }),
};

static MYSQL: Row = Row {
    remedy_of_full: ROOM,
    not_separated: reason::TENANTS_NOT_SEPARATED,
    has_many_claims: false,
    stored: None,
    kine: Some(Kine {
        // The driver for Go takes one address.
        endpoint: |place| {
            let first = place.endpoints.first().map_or("", String::as_str);
            format!("mysql://{}tcp({first})/{}", place.login, place.schema)
        },
        endpoints: |value| {
            let (_, address) = value.strip_prefix("mysql://")?.split_once("@tcp(")?;
            Some(vec![address.split_once(')')?.0.to_owned()])
        },
        credentials: None,
    }),
};

/// How an endpoint of NATS begins.
const NATS_SCHEME: &str = "nats://";

static NATS: Row = Row {
    remedy_of_full: ROOM,
    not_separated: reason::TENANTS_NOT_SEPARATED,
    has_many_claims: false,
    // How many copies the bucket has.
    stored: Some(|claim, endpoints| Claim {
        replicas: Some(nats::copies(claim, endpoints)),
        ..claim.clone()
    }),
    kine: Some(Kine {
        // What applies to all stands with the first. Without `noEmbed` kine would run a NATS
        // of its own.
        endpoint: |place| {
            let replicas = nats::copies(place.claim, place.endpoints.len());
            let query = format!(
                "?bucket={}&noEmbed&replicas={replicas}&credsFile={}/{}",
                place.schema,
                place.files,
                key::NATS_CREDENTIALS
            );
            let (first, others) = match place.endpoints.split_first() {
                Some((first, others)) => (first.as_str(), others),
                None => ("", &[][..]),
            };
            let others = others.iter().map(|at| format!(",{NATS_SCHEME}{at}"));
            format!("{NATS_SCHEME}{first}{query}{}", others.collect::<String>())
        },
        endpoints: |value| {
            if !value.starts_with(NATS_SCHEME) {
                return None;
            }
            let servers = value
                .split(',')
                .filter_map(|at| at.strip_prefix(NATS_SCHEME));
            let servers = servers.map(|at| at.split('?').next().unwrap_or(at).to_owned());
            Some(servers.collect())
        },
        credentials: Some(Credentials {
            key: key::NATS_CREDENTIALS,
            make: |claim, password| nats::credentials(claim, password).ok(),
        }),
    }),
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Both say whether kine stands between.
    #[test]
    fn rows_agree_with_the_api() {
        for name in Driver::BUILT.replace(" or ", ", ").split(", ") {
            let driver: Driver = serde_json::from_value(name.into()).unwrap();
            let through_kine = row(driver).kine.is_some();
            assert_eq!(through_kine, driver.is_through_kine(), "{name}");
            let is_listed = ALL.iter().any(|it| std::ptr::eq(*it, row(driver)));
            assert!(is_listed, "{name}");
        }
    }
}
