//! Kinds that a management cluster may have or not, and whether it has them. They may
//! come and go while the controller runs.

use std::collections::BTreeMap;

use k8s_openapi::Resource;
use kube::Client;
use serde_json::Value;

use crate::cluster::kinds::ObjectKind;
use crate::cluster::routes::{Gateway, IngressRouteTcp, TlsRoute, TlsRouteV1Alpha2};
use crate::process::timing;

/// A kind that a management cluster may have or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Optional {
    /// Routes of the Gateway API.
    TlsRoute,
    /// The same in an older version, which is used only where that one is missing.
    TlsRouteV1Alpha2,
    /// Gateways, which routes refer to.
    Gateway,
    /// Routes of Traefik.
    IngressRouteTcp,
}

impl Optional {
    /// All of them.
    pub const ALL: [Optional; 4] = [
        Optional::TlsRoute,
        Optional::TlsRouteV1Alpha2,
        Optional::Gateway,
        Optional::IngressRouteTcp,
    ];

    /// Whether it is this one.
    pub fn is<K: kube::Resource<DynamicType = ()>>(self) -> bool {
        self.resource() == (&*K::api_version(&()), &*K::plural(&()))
    }

    /// Group and version, and the name in URLs.
    fn resource(self) -> (&'static str, &'static str) {
        fn of<K: Resource>() -> (&'static str, &'static str) {
            (K::API_VERSION, K::URL_PATH_SEGMENT)
        }
        match self {
            Optional::TlsRoute => of::<TlsRoute>(),
            Optional::TlsRouteV1Alpha2 => of::<TlsRouteV1Alpha2>(),
            Optional::Gateway => of::<Gateway>(),
            Optional::IngressRouteTcp => of::<IngressRouteTcp>(),
        }
    }
}

impl ObjectKind {
    /// What has to be served for it; `None` for kinds that every cluster has.
    pub fn optional(self) -> Option<Optional> {
        match self {
            ObjectKind::TlsRoute => Some(Optional::TlsRoute),
            ObjectKind::TlsRouteV1Alpha2 => Some(Optional::TlsRouteV1Alpha2),
            ObjectKind::IngressRouteTcp => Some(Optional::IngressRouteTcp),
            _ => None,
        }
    }
}

/// Which optional kinds the management cluster serves, as far as it has said so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served(BTreeMap<Optional, bool>);

impl Served {
    /// Whether a kind is served; `None` while that is not known.
    pub fn has(&self, kind: Optional) -> Option<bool> {
        self.0.get(&kind).copied()
    }

    /// The same of a kind of objects of ours.
    pub fn can_have(&self, kind: ObjectKind) -> Option<bool> {
        kind.optional().map_or(Some(true), |kind| self.has(kind))
    }

    /// The kind in which routes of the Gateway API are written; `Some(None)`: there is
    /// none, `None`: that is not known.
    pub fn tls_route(&self) -> Option<Option<ObjectKind>> {
        match self.has(Optional::TlsRoute)? {
            true => Some(Some(ObjectKind::TlsRoute)),
            false => match self.has(Optional::TlsRouteV1Alpha2)? {
                true => Some(Some(ObjectKind::TlsRouteV1Alpha2)),
                false => Some(None),
            },
        }
    }

    /// Notes what was answered. Of two versions of a kind, only the newer one counts:
    /// objects of one are seen in the other as well.
    pub fn learn(&mut self, kind: Optional, served: bool) {
        self.0.insert(kind, served);
        if self.has(Optional::TlsRoute) == Some(true) {
            self.0.insert(Optional::TlsRouteV1Alpha2, false);
        }
    }
}

/// Asks the management cluster which optional kinds it serves. What it does not answer
/// stays as it was.
pub async fn look(client: &Client, known: &Served) -> Served {
    let mut found = known.clone();
    let mut answers: BTreeMap<&str, Option<Vec<String>>> = BTreeMap::new();
    for kind in Optional::ALL {
        let (version, plural) = kind.resource();
        if !answers.contains_key(version) {
            answers.insert(version, resources(client, version).await);
        }
        if let Some(Some(resources)) = answers.get(version) {
            found.learn(kind, resources.iter().any(|it| it == plural));
        }
    }
    found
}

/// The names of a version's resources; none if it is not served, `None` if there was no
/// answer.
async fn resources(client: &Client, version: &str) -> Option<Vec<String>> {
    let request = http::Request::get(format!("/apis/{version}"))
        .body(vec![])
        .ok()?;
    let call = client.request::<Value>(request);
    match tokio::time::timeout(timing::LOOK_DEADLINE, call).await {
        Ok(Ok(list)) => {
            let all = list["resources"].as_array()?.iter();
            Some(
                all.filter_map(|it| Some(it["name"].as_str()?.to_owned()))
                    .collect(),
            )
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Some(Vec::new()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_written_in_the_newest_version_that_is_served() {
        let mut served = Served::default();
        assert_eq!(served.tls_route(), None);
        assert_eq!(served.can_have(ObjectKind::Service), Some(true));
        assert_eq!(served.can_have(ObjectKind::TlsRoute), None);
        served.learn(Optional::TlsRoute, false);
        assert_eq!(served.tls_route(), None, "the other one may be");
        served.learn(Optional::TlsRouteV1Alpha2, false);
        assert_eq!(served.tls_route(), Some(None));
        served.learn(Optional::TlsRouteV1Alpha2, true);
        assert_eq!(served.tls_route(), Some(Some(ObjectKind::TlsRouteV1Alpha2)));
        for _ in 0..2 {
            served.learn(Optional::TlsRoute, true);
            served.learn(Optional::TlsRouteV1Alpha2, true);
            assert_eq!(served.tls_route(), Some(Some(ObjectKind::TlsRoute)));
            assert_eq!(served.has(Optional::TlsRouteV1Alpha2), Some(false));
        }
    }
}
