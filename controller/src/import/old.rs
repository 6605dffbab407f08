//! How another operator calls things, and calls to the management cluster.

use apiservice::names;
use http::{Method, Request};
use kube::Client;
use serde_json::{Value, json};

use super::told::Error;
use crate::args::Operator;

/// Objects read at a time.
const PAGE: usize = 50;

/// Another operator, by the domain of all its names.
#[derive(Debug)]
pub struct Old {
    pub domain: &'static str,
    /// The value of its label on all that it made.
    pub project: &'static str,
}

impl Old {
    pub fn of(operator: Operator) -> Self {
        let (domain, project) = match operator {
            Operator::Kamaji => ("kamaji.clastix.io", "kamaji"),
            Operator::Steward => (apiservice::GROUP, names::PROJECT),
        };
        Self { domain, project }
    }

    /// Whether its objects cannot be told from ours by their group.
    pub fn is_our_group(&self) -> bool {
        self.domain == apiservice::GROUP
    }

    /// `apiVersion` of its objects.
    pub fn version(&self) -> String {
        format!("{}/v1alpha1", self.domain)
    }

    pub fn path(&self, plural: &str) -> String {
        format!("/apis/{}/{plural}", self.version())
    }

    /// One of its own keys of labels and annotations.
    pub fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.domain)
    }

    /// Whether a finalizer is one of its own.
    pub fn is_finalizer(&self, finalizer: &str) -> bool {
        let domain = finalizer.split('/').next().unwrap_or_default();
        domain == self.domain || domain == format!("finalizer.{}", self.domain)
    }

    /// Refuses to work beside the operator: it would put right what is changed, and delete
    /// what is not its own any more.
    pub async fn refuse_running(&self, api: &Api, deployment: &str) -> Result<(), Error> {
        let Some((namespace, name)) = deployment.split_once('/') else {
            return Err(Error::Refused(format!(
                "--operator {deployment:?} is not NAMESPACE/NAME of its Deployment"
            )));
        };
        let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}");
        let running = match api.find(&path).await? {
            None => false,
            Some(found) => {
                found["spec"]["replicas"] != 0
                    || found["status"]["replicas"].as_u64().unwrap_or(0) > 0
            }
        };
        if running {
            return Err(Error::Refused(format!(
                "the operator still runs. Stop it first: kubectl -n {namespace} scale deployment \
                 {name} --replicas=0"
            )));
        }
        Ok(())
    }

    /// Webhooks that would be asked about its objects, and that nobody answers any more.
    pub async fn webhooks(&self, api: &Api) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        for plural in [
            "mutatingwebhookconfigurations",
            "validatingwebhookconfigurations",
        ] {
            let path = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
            for one in api.list(&path).await? {
                let hooks = one["webhooks"].as_array().into_iter().flatten();
                let mut rules = hooks.flat_map(|it| it["rules"].as_array().into_iter().flatten());
                let group = json!(self.domain);
                if rules.any(|rule| {
                    let groups = rule["apiGroups"].as_array();
                    groups.is_some_and(|groups| groups.contains(&group))
                }) {
                    let name = one["metadata"]["name"].as_str().unwrap_or_default();
                    found.push(format!("{plural}/{name}"));
                }
            }
        }
        Ok(found)
    }
}

/// The management cluster, for an administrator's program that runs once.
pub struct Api(Client);

impl Api {
    pub fn new(client: Client) -> Self {
        Self(client)
    }

    /// One call; `None` if there is no such thing.
    async fn call(
        &self,
        method: Method,
        path: &str,
        content: &str,
        body: Option<&Value>,
    ) -> Result<Option<Value>, Error> {
        let failed = |error: kube::Error| Error::Api {
            what: format!("{method} {path}"),
            error: Box::new(error),
        };
        let bytes = body.map(|body| body.to_string().into_bytes());
        let request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header(http::header::CONTENT_TYPE, content)
            .body(bytes.unwrap_or_default())
            .map_err(|error| Error::Refused(format!("{path}: {error}")))?;
        match self.0.request::<Value>(request).await {
            Ok(answer) => Ok(Some(answer)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    pub async fn find(&self, path: &str) -> Result<Option<Value>, Error> {
        self.call(Method::GET, path, "application/json", None).await
    }

    /// All objects of a path; none where the kind is not served.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, Error> {
        let (mut all, mut next) = (Vec::new(), String::new());
        loop {
            let join = if path.contains('?') { '&' } else { '?' };
            let page = format!("{path}{join}limit={PAGE}&continue={next}");
            let Some(mut list) = self.find(&page).await? else {
                return Ok(all);
            };
            if let Some(items) = list["items"].as_array_mut() {
                all.append(items);
            }
            match list["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => next = token.to_owned(),
                _ => return Ok(all),
            }
        }
    }

    /// Creates an object. `false`: its namespace is not there.
    pub async fn create(&self, path: &str, object: &Value) -> Result<bool, Error> {
        let created = self.call(Method::POST, path, "application/json", Some(object));
        Ok(created.await?.is_some())
    }

    pub async fn merge(&self, path: &str, patch: &Value) -> Result<(), Error> {
        let content = "application/merge-patch+json";
        self.call(Method::PATCH, path, content, Some(patch))
            .await
            .map(drop)
    }

    /// Deletes the object of this uid and no other.
    pub async fn delete(&self, path: &str, uid: &str, propagation: &str) -> Result<(), Error> {
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
            "preconditions": {"uid": uid},
        });
        self.call(Method::DELETE, path, "application/json", Some(&options))
            .await
            .map(drop)
    }
}
