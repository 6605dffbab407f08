//! Parameters of policies: objects of any kind, read when they are needed with the rights of
//! this server.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1 as api;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiResource, Scope};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use super::rules::Selector;
use crate::reviews;

/// How long all that is asked for one binding may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Kinds of parameters that are remembered, and for how long.
const KINDS: usize = 64;
const REMEMBERED: Duration = Duration::from_secs(60);
/// Parameters that one binding may select.
const MOST: u32 = 50;

/// The kind of a policy's parameters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ParamKind {
    pub api_version: String,
    pub kind: String,
}

impl From<api::ParamKind> for ParamKind {
    fn from(kind: api::ParamKind) -> Self {
        Self {
            api_version: kind.api_version.unwrap_or_default(),
            kind: kind.kind.unwrap_or_default(),
        }
    }
}

impl ParamKind {
    /// As Kubernetes prints it.
    fn shown(&self) -> String {
        format!(
            "&ParamKind{{APIVersion:{},Kind:{},}}",
            self.api_version, self.kind
        )
    }
}

/// How a kind is served.
#[derive(Clone, Debug)]
struct Served {
    resource: ApiResource,
    namespaced: bool,
    since: Instant,
}

/// See the module.
pub struct Params {
    client: Option<kube::Client>,
    kinds: Mutex<HashMap<ParamKind, Served>>,
}

impl Params {
    /// From a cluster.
    pub fn new(client: Option<kube::Client>) -> Self {
        Self {
            client,
            kinds: Mutex::default(),
        }
    }

    /// What a binding is evaluated with: once with nothing if it has no parameters.
    ///
    /// # Errors
    /// Why there are none, in the words of Kubernetes where it has any.
    pub async fn collect(
        &self,
        kind: Option<&ParamKind>,
        by: Option<&api::ParamRef>,
        namespace: Option<&str>,
    ) -> Result<Vec<Value>, String> {
        let (Some(kind), Some(by)) = (kind, by) else {
            return Ok(vec![Value::Null]);
        };
        let unknown = || format!("paramKind kind `{}` not known", kind.shown());
        let client = self.client.as_ref().ok_or_else(unknown)?;
        let found = async {
            let served = self.served(client, kind).await?;
            let api = scoped(client, &served, by, namespace)?;
            find(&api, by).await
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        let found = found.map_err(|_| {
            format!(
                "paramKind kind `{}` not yet synced to use for admission",
                kind.shown()
            )
        })??;
        if found.is_empty() && by.parameter_not_found_action.as_deref() == Some("Deny") {
            let why = "no params found for policy binding with `Deny` parameterNotFoundAction";
            return Err(why.to_owned());
        }
        Ok(found)
    }

    async fn served(&self, client: &kube::Client, kind: &ParamKind) -> Result<Served, String> {
        let known = self.kinds.lock().get(kind).cloned();
        if let Some(known) = known.filter(|known| known.since.elapsed() < REMEMBERED) {
            return Ok(known);
        }
        let (group, version) = match kind.api_version.split_once('/') {
            Some(parts) => parts,
            None => ("", kind.api_version.as_str()),
        };
        let wanted = GroupVersionKind::gvk(group, version, &kind.kind);
        let found = kube::discovery::pinned_kind(client, &wanted).await;
        let (resource, capabilities) = found.map_err(|why| {
            let why = reviews::describe(&why);
            tracing::warn!(
                kind = kind.shown(),
                why,
                "the kind of a policy's parameters"
            );
            format!("paramKind kind `{}` not known", kind.shown())
        })?;
        let served = Served {
            resource,
            namespaced: capabilities.scope == Scope::Namespaced,
            since: Instant::now(),
        };
        let mut kinds = self.kinds.lock();
        if kinds.len() >= KINDS {
            kinds.clear();
        }
        kinds.insert(kind.clone(), served.clone());
        Ok(served)
    }
}

/// Where the parameters of a binding are.
fn scoped(
    client: &kube::Client,
    served: &Served,
    by: &api::ParamRef,
    namespace: Option<&str>,
) -> Result<Api<DynamicObject>, String> {
    let given = by.namespace.as_deref().filter(|given| !given.is_empty());
    match (served.namespaced, given, namespace) {
        (false, Some(_), _) => Err(
            "paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned(),
        ),
        (false, None, _) => Ok(Api::all_with(client.clone(), &served.resource)),
        (true, Some(namespace), _) | (true, None, Some(namespace)) => Ok(Api::namespaced_with(
            client.clone(),
            namespace,
            &served.resource,
        )),
        (true, None, None) => Err(
            "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                .to_owned(),
        ),
    }
}

async fn find(api: &Api<DynamicObject>, by: &api::ParamRef) -> Result<Vec<Value>, String> {
    let failed = |why: kube::Error| reviews::describe(&why);
    let value = |object: DynamicObject| serde_json::to_value(object).unwrap_or_default();
    match (
        by.name.as_deref().filter(|name| !name.is_empty()),
        &by.selector,
    ) {
        (Some(_), Some(_)) => {
            Err("paramRef.name and paramRef.selector are mutually exclusive".to_owned())
        }
        (Some(name), None) => {
            let found = api.get_opt(name).await.map_err(failed)?;
            Ok(found.map(value).into_iter().collect())
        }
        (None, Some(selector)) => {
            let selector = Selector::new(Some(selector))?;
            let page = ListParams::default()
                .limit(MOST)
                .labels(&selector.to_string());
            let list = api.list(&page).await.map_err(failed)?;
            if list
                .metadata
                .continue_
                .is_some_and(|token| !token.is_empty())
            {
                return Err(format!("the binding selects more than {MOST} parameters"));
            }
            let types = list.types.clone();
            let items = list.items.into_iter().map(|mut item| {
                // Items of a list say no kind themselves.
                if item.types.is_none() {
                    let mut types = types.clone();
                    types.kind = types.kind.trim_end_matches("List").to_owned();
                    item.types = Some(types);
                }
                value(item)
            });
            Ok(items.collect())
        }
        (None, None) => Err("one of name or selector must be provided".to_owned()),
    }
}
