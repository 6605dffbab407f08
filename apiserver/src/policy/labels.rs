//! The labels of the namespace that a request is in, asked for once.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::rules::Selector;
use crate::namespaces::{Namespaces, Unlabelled};
use crate::status::{Failure, Subject};

/// See the module.
pub struct NamespaceLabels<'a> {
    namespaces: &'a Namespaces,
    /// None for an object that is in none.
    namespace: Option<&'a str>,
    found: OnceCell<Arc<BTreeMap<String, String>>>,
}

impl<'a> NamespaceLabels<'a> {
    /// Of this namespace.
    pub fn new(namespaces: &'a Namespaces, namespace: Option<&'a str>) -> Self {
        Self {
            namespaces,
            namespace,
            found: OnceCell::new(),
        }
    }

    /// Whether a selector selects the namespace; objects in none are always selected.
    ///
    /// # Errors
    /// 404 for a namespace that is gone, 500 when the cluster does not say.
    pub async fn selected(&self, selector: &Selector) -> Result<bool, Failure> {
        let Some(namespace) = self.namespace.filter(|_| !selector.is_empty()) else {
            return Ok(true);
        };
        let ask = || async {
            let labels = self.namespaces.labels(namespace).await;
            labels.map_err(|why| match why {
                Unlabelled::Missing => Failure::NotFound(Subject::new("", "namespaces", namespace)),
                Unlabelled::Unknown(why) => Failure::Internal(why),
            })
        };
        let labels = self.found.get_or_try_init(ask).await?;
        Ok(selector.matches(labels))
    }
}
