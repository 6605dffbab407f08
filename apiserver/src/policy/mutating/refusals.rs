//! The answer to a request whose policies failed.

use apiservice::told;

use crate::audit::secrets;
use crate::policy::attributes::Attributes;
use crate::policy::definition::{self, Binding, Definition, Misconfigured};
use crate::status::Failure;

/// What is wrong with policies that are not to be passed over: the first of each are told.
#[derive(Default)]
pub(super) struct Refusals {
    /// With what they are made of.
    misconfigured: Vec<String>,
    /// With what became of them.
    failed: Vec<String>,
    /// How many were passed over, and why the first was.
    ignored: (usize, Option<String>),
}

/// Causes of one kind that an answer has at most.
pub(super) const MOST_CAUSES: usize = told::MAX_PATHS / 2;

impl Refusals {
    pub(super) fn misconfigured(&mut self, definition: &Definition, why: &Misconfigured) {
        if definition.ignores_failures {
            self.ignore(definition, &why.message());
        } else if self.misconfigured.len() < MOST_CAUSES {
            let binding = why.binding.as_deref();
            let told = refusal(definition, binding, &why.message());
            self.misconfigured.push(told);
        }
    }

    pub(super) fn failed(&mut self, definition: &Definition, binding: &Binding, errors: &[String]) {
        let Some(first) = errors.first() else {
            return;
        };
        if definition.ignores_failures {
            self.ignore(definition, first);
            return;
        }
        let room = MOST_CAUSES.saturating_sub(self.failed.len());
        let told = errors.iter().take(room);
        let told = told.map(|why| refusal(definition, Some(binding), why));
        self.failed.extend(told);
    }

    fn ignore(&mut self, definition: &Definition, why: &str) {
        let (count, first) = &mut self.ignored;
        *count += 1;
        first.get_or_insert_with(|| {
            let why = told::short(why, told::MAX_TEXT);
            format!("policy {:?}: {why}", definition.name)
        });
    }

    pub(super) fn answer(self, attributes: &Attributes<'_>) -> Result<(), Failure> {
        // Once for a request, however many there are.
        if let (count, Some(first)) = &self.ignored {
            // It may quote the object.
            let first = match secrets::are_kept(attributes.resource.plural) {
                true => "",
                false => first.as_str(),
            };
            tracing::warn!(count, first, "mutating policies failed and are passed over");
        }
        let reason = match (self.misconfigured.is_empty(), self.failed.is_empty()) {
            (true, true) => return Ok(()),
            (true, false) => "Invalid",
            (false, _) => "Forbidden",
        };
        let mut causes = self.misconfigured;
        causes.extend(self.failed);
        let message = causes.first().cloned().unwrap_or_default();
        let refused = definition::denied(attributes, (reason, 403), message, &causes);
        Err(refused)
    }
}

fn refusal(definition: &Definition, binding: Option<&Binding>, why: &str) -> String {
    let name = &definition.name;
    let why = told::short(why, told::MAX_TEXT);
    match binding {
        Some(Binding { name: binding, .. }) => {
            format!("policy '{name}' with binding '{binding}' denied request: {why}")
        }
        None => format!("policy {name:?} denied request: {why}"),
    }
}
