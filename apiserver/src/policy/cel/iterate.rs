//! Comprehensions.

use super::syntax::{Each, Fold, What};
use super::{Evaluated, Run, Scope, Unusable, Val, value};

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
                (_, Err(Unusable::OutOfBudget)) => return Err(Unusable::OutOfBudget),
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
                (_, Ok(_)) => return value::no_overload(),
                (_, Err(why)) => return Err(why),
            }
        }
        match (each.what, failed) {
            (What::TransformList, _) => Val::list(list),
            (What::TransformMap, _) => Val::map(map, self.budget),
            (What::ExistsOne, _) => Ok(Val::Bool(count == 1)),
            (_, Some(why)) => Err(why),
            (what, None) => Ok(Val::Bool(what == What::All)),
        }
    }
}
