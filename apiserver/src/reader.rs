//! The store without what writes, which is all of it that anybody gets but
//! `registry/write.rs`.

use storage::{Entry, Error, Page, Revision, Store, Watch};

/// A [`Store`] to read from. Clones share it.
#[derive(Clone)]
pub struct Reader(Store);

impl From<Store> for Reader {
    fn from(store: Store) -> Self {
        Self(store)
    }
}

impl Reader {
    /// As [`Store::feeder`].
    pub fn feeder(&self) -> Self {
        Self(self.0.feeder())
    }

    /// As [`Store::get`].
    ///
    /// # Errors
    /// Those of [`Store::get`].
    pub async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), Error> {
        self.0.get(key).await
    }

    /// As [`Store::range`].
    ///
    /// # Errors
    /// Those of [`Store::range`].
    pub async fn range(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: Option<usize>,
        at: Option<Revision>,
    ) -> Result<Page, Error> {
        self.0.range(prefix, after, limit, at).await
    }

    /// As [`Store::watch`].
    ///
    /// # Errors
    /// Those of [`Store::watch`].
    pub async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        self.0.watch(prefix, after).await
    }

    /// As [`Store::revision`].
    ///
    /// # Errors
    /// Those of [`Store::revision`].
    pub async fn revision(&self) -> Result<Revision, Error> {
        self.0.revision().await
    }

    /// As [`Store::written`].
    pub fn written(&self) -> (u64, Revision) {
        self.0.written()
    }

    /// As [`Store::compacted`].
    pub fn compacted(&self) -> Revision {
        self.0.compacted()
    }
}

/// Tests put there what an older release wrote, compact, and close.
#[cfg(test)]
impl std::ops::Deref for Reader {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.0
    }
}
