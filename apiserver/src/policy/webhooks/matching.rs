//! Whether a webhook is to be asked.

use std::sync::Arc;

use serde_json::Value;

use crate::policy::asked::Objects;
use crate::policy::attributes::Attributes;
use crate::policy::cel::{Answer, Named, Question, Resolve, Unusable, Val};
use crate::policy::conditions::holds;
use crate::policy::hooks::{Hook, NAMES};
use crate::policy::labels::NamespaceLabels;
use crate::policy::questions::{Questions, evaluate};
use crate::status::Failure;

/// See the module.
pub(super) async fn matches(
    hook: &Hook,
    attributes: &Attributes<'_>,
    labels: &NamespaceLabels<'_>,
    objects: Objects<'_>,
    questions: &Questions<'_>,
) -> Result<bool, Failure> {
    if !hook.rules.iter().any(|rule| rule.matches(attributes)) {
        return Ok(false);
    }
    let internal = |why: &String| Failure::Internal(why.clone());
    let selector = hook.objects.as_ref().map_err(internal)?;
    if !selector.matches_any([objects.new, objects.old]) {
        return Ok(false);
    }
    let selector = hook.namespaces.as_ref().map_err(internal)?;
    if !labels.selected(selector).await? {
        return Ok(false);
    }
    if hook.conditions.is_empty() {
        return Ok(true);
    }
    let request = Value::Object(attributes.to_request(""));
    let null = Value::Null;
    let held = evaluate(questions, |until| {
        let variables = [
            (NAMES[0], Val::from(objects.new.unwrap_or(&null))),
            (NAMES[1], Val::from(objects.old.unwrap_or(&null))),
            (NAMES[2], Val::from(&request)),
            (NAMES[3], questions.variable()),
        ];
        let subjects = Subjects {
            named: Named(&variables),
            questions,
        };
        holds(&hook.conditions, &subjects, until)
    });
    match held.await? {
        Ok(held) => Ok(held),
        // What was cut off by the request's own time was not passed over by anybody.
        Err(_) if hook.ignores_failures => attributes.in_time().map(|()| false),
        Err(why) => attributes.in_time().and(Err(attributes.refused(&why))),
    }
}

/// What conditions of a webhook are about.
struct Subjects<'n, 'a> {
    named: Named<'n, 'a>,
    questions: &'n Questions<'n>,
}

impl<'a> Resolve<'a> for Subjects<'_, 'a> {
    fn resolve(&self, name: &str) -> Option<Result<Val<'a>, Unusable>> {
        self.named.resolve(name)
    }

    fn ask(&self, question: Question) -> Result<Arc<Answer>, Unusable> {
        self.questions.answer(question)
    }
}
