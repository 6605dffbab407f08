//! The management cluster's audit log: who asked for what, and whether it was
//! granted.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

use serde::Deserialize;

/// Users of our two programs.
pub const CONTROLLER: &str = "system:serviceaccount:steward-system:steward-controller";
pub const API_SERVER: &str = "system:serviceaccount:steward-system:steward-apiserver";
/// User of the Job that sets etcd up.
pub const ETCD_SETUP: &str = "system:serviceaccount:steward-system:steward-etcd-setup";

/// One request. Names are those of the audit API.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Request {
    pub stage: String,
    pub verb: String,
    pub user: User,
    pub user_agent: String,
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    pub object_ref: Option<Reference>,
    pub response_status: Status,
    pub annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct User {
    pub username: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reference {
    pub api_group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    pub code: u16,
}

impl Request {
    /// Creates, changes or deletes something. A review asks a question.
    pub fn writes(&self) -> bool {
        let verb = ["create", "update", "patch", "delete", "deletecollection"];
        let review = ["authorization.k8s.io", "authentication.k8s.io"];
        verb.contains(&self.verb.as_str())
            && self
                .object_ref
                .as_ref()
                .is_some_and(|it| !review.contains(&it.api_group.as_str()))
    }

    /// Verb and object on one line.
    pub fn line(&self) -> String {
        let what = match &self.object_ref {
            None => self.request_uri.clone(),
            Some(it) => {
                let sub = if it.subresource.is_empty() {
                    String::new()
                } else {
                    format!("/{}", it.subresource)
                };
                format!("{}{sub} {}/{}", it.resource, it.namespace, it.name)
            }
        };
        format!("{} {what} ({})", self.verb, self.response_status.code)
    }
}

/// The log, from a moment on.
pub struct Log {
    path: PathBuf,
    mark: u64,
}

impl Log {
    /// From its beginning.
    pub fn all(path: PathBuf) -> Self {
        Self { path, mark: 0 }
    }

    /// From now on.
    pub fn from_now(path: PathBuf) -> Self {
        let mark = std::fs::metadata(&path).unwrap().len();
        Self { path, mark }
    }

    /// The requests of one of the users that are finished by now.
    pub fn since(&self, users: &[&str]) -> Vec<Request> {
        let mut file = File::open(&self.path).unwrap();
        file.seek(SeekFrom::Start(self.mark)).unwrap();
        let lines = BufReader::new(file).lines().map_while(Result::ok);
        lines
            .filter(|line| users.iter().any(|user| line.contains(user)))
            .filter_map(|line| serde_json::from_str::<Request>(&line).ok())
            .filter(|it| users.contains(&it.user.username.as_str()))
            .collect()
    }
}
