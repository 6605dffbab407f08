//! Comprehensions.

use super::syntax::{Each, Fold, What};
use super::{Evaluated, Run, Scope, Unusable, Val, lists, value};

impl<'a> Run<'_, 'a> {
    pub(super) fn fold(&self, fold: &Fold, scope: &Scope<'_, 'a>, depth: usize) -> Evaluated<'a> {
        let range = self.eval(&fold.range, scope, depth)?;
        let items = range.items().ok_or_else(value::overload)?;
        self.budget.take(range.length().unwrap_or(0) as u64)?;
        let first = self.eval(&fold.first, scope, depth)?;
        let collected = scope.with(&fold.collected, first);
        for item in items {
            let inner = collected.with(&fold.item, item);
            match self.eval(&fold.goes_on, &inner, depth)? {
                Val::Bool(true) => {}
                _ => break,
            }
            let next = self.step(fold, &inner, depth)?;
            if let Scope::Name(_, cell, _) = &collected {
                *cell.borrow_mut() = next;
            }
        }
        self.eval(&fold.result, &collected, depth)
    }

    /// An error of one item is kept: `exists` and `all` may be decided by another.
    fn step(&self, fold: &Fold, inner: &Scope<'_, 'a>, depth: usize) -> Evaluated<'a> {
        match self.eval(&fold.step, inner, depth) {
            Err(Unusable::Error(why)) => Ok(Val::Failed(why.into())),
            other => other,
        }
    }

    pub(super) fn each(&self, each: &Each, scope: &Scope<'_, 'a>, depth: usize) -> Evaluated<'a> {
        let range = self.eval(&each.range, scope, depth)?;
        if matches!(each.what, What::OptMap | What::OptFlatMap) {
            let Val::Optional(value) = range else {
                return value::no_overload();
            };
            let Some(value) = value else {
                return Ok(Val::Optional(None));
            };
            let inner = scope.with(&each.value, value.as_ref().clone());
            let made = self.eval(&each.body, &inner, depth)?;
            return match (each.what, made) {
                (What::OptMap, made) => Val::some(made),
                (_, made @ Val::Optional(_)) => Ok(made),
                _ => value::no_overload(),
            };
        }
        if each.what == What::SortBy {
            return self.sort_by(each, &range, scope, depth);
        }
        let pairs = range.pairs().ok_or_else(value::overload)?;
        self.budget.take(range.length().unwrap_or(0) as u64)?;
        let (mut list, mut map, mut count) = (Vec::new(), Vec::new(), 0);
        let mut failed = None;
        for (key, item) in pairs {
            let outer = scope.with(&each.key, key.clone());
            let inner = outer.with(&each.value, item);
            if let Some(filter) = &each.filter
                && !matches!(self.eval(filter, &inner, depth)?, Val::Bool(true))
            {
                continue;
            }
            let made = self.eval(&each.body, &inner, depth);
            match (each.what, made) {
                (_, Err(why)) if why.ends_all() => return Err(why),
                (What::All, Ok(Val::Bool(false))) => return Ok(Val::Bool(false)),
                (What::Exists, Ok(Val::Bool(true))) => return Ok(Val::Bool(true)),
                (What::All | What::Exists, Ok(Val::Bool(_))) => {}
                (What::All | What::Exists, Err(why)) => failed = failed.or(Some(why)),
                (What::ExistsOne, Ok(Val::Bool(found))) => count += usize::from(found),
                // Twice: a list that grows has room for as many again.
                (What::TransformList, Ok(made)) => {
                    self.budget.items(2)?;
                    list.push(made);
                }
                (What::TransformMap, Ok(made)) => {
                    self.budget.items(4)?;
                    map.push((key, made));
                }
                (What::TransformMapEntry, Ok(made)) if made.is_map() => {
                    self.budget
                        .items(made.length().unwrap_or(0).saturating_mul(4))?;
                    map.extend(made.pairs().into_iter().flatten());
                }
                (_, Ok(_)) => return value::no_overload(),
                (_, Err(why)) => return Err(why),
            }
        }
        match (each.what, failed) {
            (What::TransformList, _) => Val::list(list),
            (What::TransformMap, _) => Val::map(map, self.budget),
            (What::TransformMapEntry, _) => Val::map(map, self.budget).map_err(|why| match why {
                Unusable::Error(why) => Unusable::Error(twice(why)),
                other => other,
            }),
            (What::ExistsOne, _) => Ok(Val::Bool(count == 1)),
            (_, Some(why)) => Err(why),
            (what, None) => Ok(Val::Bool(what == What::All)),
        }
    }

    /// The items of a list in the order of what is made of each.
    fn sort_by(
        &self,
        each: &Each,
        range: &Val<'a>,
        scope: &Scope<'_, 'a>,
        depth: usize,
    ) -> Evaluated<'a> {
        if !range.is_list() {
            return value::no_overload();
        }
        let mut keys = Vec::new();
        for item in range.listed() {
            // Twice: a list that grows has room for as many again.
            self.budget.items(2)?;
            let inner = scope.with(&each.value, item);
            keys.push(self.eval(&each.body, &inner, depth)?);
        }
        lists::sorted(self, range, keys)
    }
}

/// What Kubernetes says when two entries are made with one key.
fn twice(why: String) -> String {
    match why.strip_prefix("Failed with repeated key: ") {
        Some(key) => format!("insert failed: key {key} already exists"),
        None => why,
    }
}
