//! ResourceQuotas that count our objects (contract 7.4): `count/PLURAL.GROUP`.
//!
//! # Flow
//! A creation that all others let pass is counted in `status.used` of each quota of its
//! namespace before it is stored, by compare-and-set. What is deleted is taken off again by
//! the quota controller of the cluster, which follows our kinds as any other.
//!
//! # Guarantees
//! * Of two creations at a time no more pass than there is room for: they take turns in a
//!   namespace, and servers of the same cluster meet at the compare-and-set.
//! * Without an answer of the cluster nothing is created.
//! * An update or a deletion is never held up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use tokio::time::Instant;

use super::attributes::Attributes;
use super::cel::Quantity;
use crate::reviews;
use crate::status::Failure;
use crate::turns::Turns;

/// All that counting one creation may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Attempts against writers that come in between.
const ATTEMPTS: usize = 4;
/// How long it is remembered that a namespace has no quota for a kind.
const REMEMBERED: Duration = Duration::from_secs(1);
/// Namespaces with a turn that are remembered.
const NAMESPACES: usize = 4_096;
/// Quotas of one namespace that are looked at. With more nothing is created: one that is not
/// seen must not count as one that there is not.
const QUOTAS: usize = 500;
/// How many are read at a time.
const PAGE: u32 = 5;
/// Bytes of those that count our objects, as they are written.
pub(crate) const BYTES: usize = 4 * 1024 * 1024;

/// See the module.
pub struct ResourceQuotas {
    client: Option<kube::Client>,
    /// Whose turn it is in a namespace, and since when it is known to have no quota.
    turns: Turns<(String, &'static str), Option<Instant>>,
}

/// Says whether there is an object of the name already.
pub type Present<'a> = dyn Fn() -> BoxFuture<'a, Result<bool, Failure>> + Sync + 'a;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// There is no quota for it.
    None,
    /// In each, or for a dry run there is room.
    All,
    /// In none: there is such an object, so that nothing may be created.
    Present,
}

/// Why a quota has no room.
#[derive(Debug, PartialEq, Eq)]
enum Full {
    Unknown(String),
    Exceeded(String),
}

impl Full {
    fn words(self) -> String {
        match self {
            Self::Unknown(why) | Self::Exceeded(why) => why,
        }
    }
}

impl ResourceQuotas {
    /// Of a cluster; none: there are no quotas.
    pub fn new(client: Option<kube::Client>) -> Self {
        Self {
            client,
            turns: Turns::default(),
        }
    }

    /// Counts one object more, or for a dry run looks whether there is room. `present` says
    /// whether there is such an object already: it is not counted again, since nobody would
    /// count it off.
    ///
    /// # Errors
    /// 403 in the words of the quota plug-in; 500 if the cluster cannot be asked in time.
    pub async fn count(
        &self,
        attributes: &Attributes<'_>,
        present: &Present<'_>,
    ) -> Result<Counted, Failure> {
        let (Some(client), Some(namespace)) = (&self.client, attributes.namespace) else {
            return Ok(Counted::None);
        };
        let key = (namespace.to_owned(), attributes.resource.plural);
        // Those that nobody waits for say nothing that could not be asked again.
        let turn = self.turns.of(key, NAMESPACES);
        let counted = async {
            let mut none_since = turn.lock().await;
            if none_since.is_some_and(|since| since.elapsed() < REMEMBERED) {
                return Ok(Counted::None);
            }
            let api: Api<ResourceQuota> = Api::namespaced(client.clone(), namespace);
            let counted = count(&api, attributes, present).await?;
            *none_since = (counted == Counted::None).then(Instant::now);
            Ok(counted)
        };
        let until = attributes.deadline.min(Instant::now() + PATIENCE);
        let counted = tokio::time::timeout_at(until, counted).await;
        counted.unwrap_or_else(|_| {
            let why = "resource quota evaluation timed out";
            Err(Failure::Internal(why.to_owned()))
        })
    }
}

/// Counts the object in all quotas of its namespace.
async fn count(
    api: &Api<ResourceQuota>,
    attributes: &Attributes<'_>,
    present: &Present<'_>,
) -> Result<Counted, Failure> {
    let key = format!("count/{}.{}", attributes.resource.plural, apiservice::GROUP);
    let mut counted = BTreeSet::new();
    for _ in 0..ATTEMPTS {
        let mut quotas = Counting::all(api, &key, attributes).await?;
        quotas.retain(|quota| !counted.contains(&quota.name_any()));
        if quotas.is_empty() {
            return Ok(match counted.is_empty() {
                true => Counted::None,
                false => Counted::All,
            });
        }
        if counted.is_empty() && present().await? {
            return Ok(Counted::Present);
        }
        for quota in &mut quotas {
            add(quota, &key).map_err(|full| attributes.refused(&full.words()))?;
        }
        if attributes.dry_run {
            return Ok(Counted::All);
        }
        for quota in quotas {
            let name = quota.name_any();
            match api
                .replace_status(&name, &PostParams::default(), &quota)
                .await
            {
                Ok(_) => {
                    counted.insert(name);
                }
                // Somebody else was faster: what is there now is looked at anew.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(why) => return Err(failed(&why)),
            }
        }
    }
    let why = "the resource quotas of the namespace are changed all the time";
    Err(Failure::Internal(why.to_owned()))
}

/// Those of a namespace that count our objects.
#[derive(Default)]
struct Counting {
    quotas: Vec<ResourceQuota>,
    bytes: usize,
    seen: usize,
}

/// There are more than are looked at.
#[derive(Debug, PartialEq, Eq)]
struct TooMany;

impl Counting {
    async fn all(
        api: &Api<ResourceQuota>,
        key: &str,
        attributes: &Attributes<'_>,
    ) -> Result<Vec<ResourceQuota>, Failure> {
        let mut all = Self::default();
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = api.list(&page).await.map_err(|why| failed(&why))?;
            all.add(list.items, key).map_err(|TooMany| {
                attributes.refused(&format!(
                    "the namespace has more resource quotas than this server looks at ({QUOTAS}, \
                     and {BYTES} bytes of those with {key})"
                ))
            })?;
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(all.quotas),
            }
        }
    }

    fn add(&mut self, page: Vec<ResourceQuota>, key: &str) -> Result<(), TooMany> {
        self.seen += page.len();
        for mut quota in page.into_iter().filter(|quota| counts(quota, key)) {
            // Whoever updates a status says nothing of its managers by that.
            quota.metadata.managed_fields = None;
            self.bytes += serde_json::to_string(&quota).map_or(BYTES, |text| text.len());
            self.quotas.push(quota);
            if self.bytes > BYTES {
                return Err(TooMany);
            }
        }
        match self.seen > QUOTAS {
            true => Err(TooMany),
            false => Ok(()),
        }
    }
}

fn failed(why: &kube::Error) -> Failure {
    let why = reviews::describe(why);
    let why = apiservice::told::cut(why, apiservice::told::MAX_TEXT);
    Failure::Internal(format!("resolving quota: {why}"))
}

/// Whether a quota is about these objects. Those of a scope are about pods and the like.
fn counts(quota: &ResourceQuota, key: &str) -> bool {
    let spec = quota.spec.as_ref();
    let scoped = spec.is_some_and(|spec| {
        let scopes = spec
            .scopes
            .as_ref()
            .is_some_and(|scopes| !scopes.is_empty());
        scopes || spec.scope_selector.is_some()
    });
    !scoped && of(quota, Which::Hard).is_some_and(|hard| hard.contains_key(key))
}

#[derive(Clone, Copy)]
enum Which {
    Hard,
    Used,
}

fn of(quota: &ResourceQuota, which: Which) -> Option<&BTreeMap<String, Text>> {
    let status = quota.status.as_ref()?;
    match which {
        Which::Hard => status.hard.as_ref(),
        Which::Used => status.used.as_ref(),
    }
}

/// One object more in a quota.
fn add(quota: &mut ResourceQuota, key: &str) -> Result<(), Full> {
    let name = quota.name_any();
    let unknown = || {
        Full::Unknown(format!(
            "status unknown for quota: {name}, resources: {key}"
        ))
    };
    let number = |which| {
        let text = of(quota, which)?.get(key)?;
        Quantity::parse(&text.0)?.rounded()
    };
    let (Some(hard), Some(used)) = (number(Which::Hard), number(Which::Used)) else {
        return Err(unknown());
    };
    if used >= hard {
        return Err(Full::Exceeded(format!(
            "exceeded quota: {name}, requested: {key}=1, used: {key}={used}, limited: {key}={hard}"
        )));
    }
    let status = quota.status.get_or_insert_default();
    let all = status.used.get_or_insert_default();
    all.insert(key.to_owned(), Text((used + 1).to_string()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::attributes::testing::Asked;
    use serde_json::json;

    const KEY: &str = "count/tenantcontrolplanes.steward.butlerlabs.dev";

    fn quota(spec: serde_json::Value, hard: Option<&str>, used: Option<&str>) -> ResourceQuota {
        let mut quota = json!({"metadata": {"name": "q"}, "spec": spec, "status": {"hard": {}, "used": {"pods": "1"}}});
        if let Some(hard) = hard {
            quota["status"]["hard"][KEY] = hard.into();
        }
        if let Some(used) = used {
            quota["status"]["used"][KEY] = used.into();
        }
        serde_json::from_value(quota).unwrap()
    }

    #[test]
    fn quotas_are_counted() {
        let exceeded = |used: &str, hard: &str| {
            Err(Full::Exceeded(format!(
                "exceeded quota: q, requested: {KEY}=1, used: {KEY}={used}, limited: {KEY}={hard}"
            )))
        };
        let unknown = || {
            let why = format!("status unknown for quota: q, resources: {KEY}");
            Err(Full::Unknown(why))
        };
        let cases = [
            ("2", Some("0"), Ok("1")),
            ("2", Some("1"), Ok("2")),
            ("2", Some("2"), exceeded("2", "2")),
            ("0", Some("0"), exceeded("0", "0")),
            ("1k", Some("999"), Ok("1000")),
            ("1k", Some("1k"), exceeded("1000", "1000")),
            ("2", Some("7"), exceeded("7", "2")),
            ("2", None, unknown()),
            ("2", Some("x"), unknown()),
        ];
        for (hard, used, expected) in cases {
            let mut quota = quota(json!({}), Some(hard), used);
            assert!(counts(&quota, KEY));
            let added = add(&mut quota, KEY).map(|()| {
                let used = of(&quota, Which::Used).unwrap();
                assert_eq!(used["pods"].0, "1");
                used[KEY].0.clone()
            });
            assert_eq!(added, expected.map(str::to_owned), "{hard} {used:?}");
        }
    }

    #[test]
    fn quotas_of_others_do_not_count() {
        assert!(!counts(&quota(json!({}), None, None), KEY));
        let scoped = json!({"scopes": ["BestEffort"]});
        assert!(!counts(&quota(scoped, Some("1"), Some("0")), KEY));
        let selected = json!({"scopeSelector": {"matchExpressions": []}});
        assert!(!counts(&quota(selected, Some("1"), Some("0")), KEY));
        assert!(counts(
            &quota(json!({"scopes": []}), Some("1"), Some("0")),
            KEY
        ));
    }

    /// None is left out in silence.
    #[test]
    fn too_many_quotas_are_refused() {
        let other = || quota(json!({}), None, None);
        let mut all = Counting::default();
        for _ in 0..QUOTAS {
            assert_eq!(all.add(vec![other()], KEY), Ok(()));
        }
        assert_eq!(all.add(vec![other()], KEY), Err(TooMany));
        let mut large = quota(json!({}), Some("1"), Some("0"));
        let text = "x".repeat(BYTES / 2 - 1024);
        large.metadata.annotations = Some([("a".to_owned(), text)].into());
        let mut all = Counting::default();
        assert_eq!(all.add(vec![large.clone(), large.clone()], KEY), Ok(()));
        assert_eq!(all.quotas.len(), 2);
        assert_eq!(all.add(vec![large], KEY), Err(TooMany));
    }

    /// A creation that finds such an object is not counted, and must not pass either
    /// when that object goes in between.
    #[tokio::test]
    async fn what_is_there_already_is_said() {
        let answer = json!({"apiVersion": "v1", "kind": "ResourceQuotaList", "metadata": {},
            "items": [quota(json!({}), Some("2"), Some("1"))]});
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            let body = kube::client::Body::from(answer.to_string().into_bytes());
            async move { Ok::<_, std::convert::Infallible>(http::Response::new(body)) }
        });
        let client = kube::Client::new(service, "n");
        let quotas = ResourceQuotas::new(Some(client));
        let asked = Asked::by_user("a");
        let attributes = Attributes {
            dry_run: true,
            ..asked.creation()
        };
        for there in [true, false] {
            let present: &Present<'_> = &|| Box::pin(async move { Ok(there) });
            let counted = quotas.count(&attributes, present).await.unwrap();
            assert_eq!(counted == Counted::Present, there);
        }
    }

    #[test]
    fn turns_are_bounded() {
        let quotas = ResourceQuotas::new(None);
        let turn = |namespace: &str| quotas.turns.of((namespace.to_owned(), "x"), NAMESPACES);
        let kept = turn("kept");
        for n in 0..3 * NAMESPACES {
            turn(&n.to_string());
        }
        assert!(quotas.turns.remembered() <= NAMESPACES);
        assert!(std::sync::Arc::ptr_eq(&kept, &turn("kept")));
    }
}
