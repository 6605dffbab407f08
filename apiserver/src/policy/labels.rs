//! The labels of the namespace that a request is in, asked for once.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::rules::Selector;
use crate::namespaces::{Namespaces, Unlabelled};
use crate::status::Failure;

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
    /// 500 when the cluster does not say.
    pub async fn selected(&self, selector: &Selector) -> Result<bool, Failure> {
        let Some(namespace) = self.namespace.filter(|_| !selector.is_empty()) else {
            return Ok(true);
        };
        let ask = || async {
            match self.namespaces.labels(namespace).await {
                Ok(labels) => Ok(labels),
                // Nothing can be created in a namespace that is gone. What was left in one
                // while this server was not installed has to be deletable, and has no
                // labels around it any more.
                Err(Unlabelled::Missing) => Ok(Arc::default()),
                Err(Unlabelled::Unknown(why)) => Err(Failure::Internal(why)),
            }
        };
        let labels = self.found.get_or_try_init(ask).await?;
        Ok(selector.matches(labels))
    }
}
