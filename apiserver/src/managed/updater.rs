//! How ownership moves (R5.9, R5.17): the rules, without what surrounds them.

use serde_json::Value;

use super::conflict::Conflicts;
use super::fields;
use super::managers::{Entry, Id, Managers, Owned};
use super::schema::Types;
use super::set::Set;
use super::typed::Changes;
use super::value;

/// Merge types of a kind, the version that it is written in, and what the endpoint does not
/// take (R5.24).
pub struct Updater<'a> {
    pub types: &'a Types,
    pub version: &'a str,
    pub ignored: &'a Set,
}

impl Updater<'_> {
    /// Takes what changed from the other managers, and returns it for who changed it.
    pub fn update(&self, before: &Value, after: &Value, managers: &mut Managers) -> Set {
        let changes = self.types.compare(before, after).without(self.ignored);
        managers.retain(self.version);
        let gone = Set::union_of([
            changes.removed,
            changes.modified.clone(),
            changes.added.clone(),
        ]);
        if !gone.is_empty() {
            // Nothing is read of those whom the change is no concern of.
            let written = fields::encode(&gone);
            for entry in managers.0.values_mut() {
                match &entry.owned {
                    Owned::Written(fields) if !fields::touches(&written, fields) => continue,
                    _ => {}
                }
                let set = entry.owned.set();
                self.types.reconcile(set);
                *set = std::mem::take(set).difference(&gone);
            }
            managers.retain(self.version);
        }
        changes.modified.union(changes.added)
    }

    /// The live object with a configuration merged into it, and without what its manager
    /// applied before and nobody owns any more. Nothing if that is the live object.
    ///
    /// # Errors
    /// The conflicts, unless it is forced.
    pub fn apply(
        &self,
        live: &Value,
        config: &Value,
        managers: &mut Managers,
        applier: &Id,
        force: bool,
    ) -> Result<Option<Value>, Conflicts> {
        managers.retain(self.version);
        for entry in managers.0.values_mut() {
            self.types.reconcile(entry.owned.set());
        }
        let merged = self.types.merge(live, config);
        let set = self.types.field_set(config);
        let entry = Entry {
            version: self.version.to_owned(),
            time: None,
            owned: Owned::Set(set.recursive_difference(self.ignored)),
        };
        let last = managers.0.insert(applier.clone(), entry);
        if let (Some(last), Some(entry)) = (&last, managers.0.get_mut(applier)) {
            entry.time = last.time;
        }
        let new = match last {
            Some(mut last) => self.prune(merged, managers, last.owned.set()),
            None => merged,
        };
        let changes = self.types.compare(live, &new).without(self.ignored);
        self.settle(changes, managers, applier, force)?;
        Ok((!value::equal(live, &new)).then_some(new))
    }

    /// Whoever owns what changes loses it; without force that is a conflict.
    fn settle(
        &self,
        changes: Changes,
        managers: &mut Managers,
        applier: &Id,
        force: bool,
    ) -> Result<(), Conflicts> {
        let Changes {
            removed,
            modified,
            added,
        } = changes;
        let changed = modified.union(added);
        let others = managers.0.iter_mut().filter(|(id, _)| *id != applier);
        if !force {
            let others = others.map(|(id, entry)| {
                let both = entry.owned.set().intersection(&changed);
                (id.clone(), both)
            });
            let conflicts = Conflicts::new(others.collect());
            if !conflicts.is_empty() {
                return Err(conflicts);
            }
        }
        let gone = changed.union(removed);
        for (id, entry) in &mut managers.0 {
            if id != applier {
                let set = entry.owned.set();
                *set = std::mem::take(set).difference(&gone);
            }
        }
        managers.retain(self.version);
        Ok(())
    }

    /// R5.18: removes what was applied before, as far as nobody owns it.
    fn prune(&self, merged: Value, managers: &mut Managers, last: &Set) -> Value {
        if last.is_empty() {
            return merged;
        }
        let types = self.types;
        let last = types.with_named_fields(last);
        let pruned = types.without(&merged, &last);
        // Back comes what somebody owns, with what it stands in.
        let all = managers.0.values_mut();
        let owned = Set::union_of(all.map(|entry| entry.owned.set().clone()));
        let before = types.with_named_fields(&types.field_set(&merged));
        let kept = types
            .with_named_fields(&types.field_set(&pruned))
            .union(types.with_named_fields(&owned));
        let pruned = types.without(&merged, &before.clone().difference(&kept));
        // And what was not applied before, but stands in what was removed.
        let after = types.with_named_fields(&types.field_set(&pruned));
        let gone = before.difference(&after).intersection(&last);
        types.without(&merged, &gone)
    }
}

/// What nobody owns: the server's own, and what identifies an object (R5.10).
pub fn without_identity(set: Set) -> Set {
    const METADATA: [&str; 9] = [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ];
    let metadata = METADATA.map(|name| Set::path(&["metadata", name]));
    let others = ["apiVersion", "kind", "metadata"].map(|name| Set::path(&[name]));
    set.difference(&Set::union_of(metadata.into_iter().chain(others)))
}
