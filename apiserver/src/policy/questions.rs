//! What expressions ask the authorizer of the cluster about the user of a request.
//!
//! # Flow
//! Expressions are evaluated without waiting. One that has a question without an answer ends
//! there; [`evaluate`] asks all that came up, and evaluates anew.
//!
//! # Guarantees
//! Of one object that is admitted there are at most [`MOST`] different questions, of
//! [`BYTES`] together, while it is changed and again while it is validated; each is asked
//! once, and one after the other. Those of all requests have [`ROOM`], and a caller as much of
//! it as of everything: who has no more is refused, whatever the failure policy is. All
//! evaluations of one piece of work take no longer than one may. An answer is as old as those
//! to requests may be, as [`Authorizer`] has it. Without an answer the expression fails, and
//! the failure policy decides.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use apiservice::told;
use parking_lot::Mutex;

use super::attributes::Attributes;
use super::cel::{self, Answer, Question, ResourceCheck, Text, Unusable, Val, Who};
use crate::aside::Places;
use crate::authn::Identity;
use crate::authz::{self, Authorizer};
use crate::limits;
use crate::pool::{Hold, Pool};
use crate::status::Failure;

/// Different questions about one object.
pub const MOST: usize = 100;
/// Bytes of their texts.
pub const BYTES: usize = 64 * 1024;
/// What the questions of all requests may take, with their answers.
pub const ROOM: usize = 4 * 1024 * 1024;
/// What one takes beside its texts: those of an answer, and its places.
const ONE: usize = 2 * told::MAX_TEXT + 2 * size_of::<Question>() + size_of::<Answer>();

/// Who is asked, and the room that questions take.
pub struct Asking {
    authorizer: Arc<Authorizer>,
    room: Pool,
}

impl Asking {
    /// This one.
    pub fn new(authorizer: Arc<Authorizer>) -> Self {
        Self {
            authorizer,
            room: Pool::new(ROOM),
        }
    }
}

/// What an expression sees of an answer.
type Answered = Result<Arc<Answer>, Unusable>;

/// The questions about one object, and their answers.
pub struct Questions<'a> {
    attributes: &'a Attributes<'a>,
    authorizer: &'a Authorizer,
    known: Mutex<Known>,
}

struct Known {
    answers: HashMap<Question, Answered>,
    /// What came up since it was asked last.
    open: Vec<Question>,
    /// Of the texts of all of them.
    bytes: usize,
    /// What they take.
    room: Hold,
}

impl<'a> Questions<'a> {
    /// Nothing was asked yet.
    pub fn new(attributes: &'a Attributes<'a>, asking: &'a Asking) -> Self {
        Self {
            attributes,
            authorizer: &asking.authorizer,
            known: Mutex::new(Known {
                answers: HashMap::new(),
                open: Vec::new(),
                bytes: 0,
                room: asking.room.hold(attributes.caller()),
            }),
        }
    }

    /// The variable `authorizer`.
    pub fn variable(&self) -> Val<'a> {
        let attributes = self.attributes;
        Val::authorizer(ResourceCheck {
            who: Who::Caller,
            group: Text::Borrowed(apiservice::GROUP),
            resource: Text::Borrowed(attributes.resource.plural),
            subresource: Text::Borrowed(attributes.subresource),
            namespace: Text::Borrowed(attributes.namespace.unwrap_or_default()),
            name: Text::Borrowed(&attributes.name),
            ..ResourceCheck::default()
        })
    }

    /// The answer to a question.
    ///
    /// # Errors
    /// [`Unusable::Unasked`] if there is none yet; why there will be none.
    pub fn answer(&self, question: Question) -> Answered {
        let mut known = self.known.lock();
        if let Some(answered) = known.answers.get(&question) {
            return answered.clone();
        }
        if known.open.contains(&question) {
            return Err(Unusable::Unasked);
        }
        let bytes = known.bytes.saturating_add(question.bytes());
        if known.answers.len() + known.open.len() >= MOST || bytes > BYTES {
            return Err(Unusable::Error(format!(
                "policies ask the authorizer more than {MOST} questions, or of more than {BYTES} bytes, about one object"
            )));
        }
        known.bytes = bytes;
        known.open.push(question);
        Err(Unusable::Unasked)
    }

    /// Whether any came up that was not asked yet.
    pub fn has_open(&self) -> bool {
        !self.known.lock().open.is_empty()
    }

    /// Asks what came up.
    async fn ask(&self) -> Result<(), Failure> {
        let open = std::mem::take(&mut self.known.lock().open);
        for question in open {
            self.known.lock().room.grow(question.bytes() + ONE)?;
            let asked = self.asked(&question);
            let answered = tokio::time::timeout_at(self.attributes.deadline, asked).await;
            self.attributes.in_time()?;
            let late = || Err(Unusable::Error("the authorizer did not answer".to_owned()));
            let answered = answered.unwrap_or_else(|_| late());
            self.known.lock().answers.insert(question, answered);
        }
        Ok(())
    }

    async fn asked(&self, question: &Question) -> Answered {
        let caller = self.attributes.identity;
        let account;
        let identity = match &question.who {
            Who::Caller => caller,
            Who::ServiceAccount { namespace, name } => {
                account = service_account(namespace, name);
                &account
            }
        };
        let attributes = authz::Attributes {
            verb: question.verb.clone(),
            group: question.group.clone(),
            version: match question.path {
                Some(_) => String::new(),
                None => "*".to_owned(),
            },
            resource: question.resource.clone(),
            subresource: question.subresource.clone(),
            namespace: question.namespace.clone(),
            name: question.name.clone(),
            path: question.path.clone(),
            field_selector: question.field_selector.clone(),
            label_selector: question.label_selector.clone(),
        };
        match self.authorizer.reviewed(identity, &attributes).await {
            Ok(reviewed) => Ok(Arc::new(Answer {
                allowed: reviewed.decision.is_allowed(),
                reason: reviewed.decision.into_reason(),
                error: reviewed.error,
            })),
            Err(failure) => {
                let why = match failure {
                    Failure::Internal(why) => why,
                    other => other.to_string(),
                };
                Err(Unusable::Error(format!(
                    "the authorizer could not be asked: {why}"
                )))
            }
        }
    }
}

/// As Kubernetes makes the user of a ServiceAccount.
fn service_account(namespace: &str, name: &str) -> Identity {
    Identity {
        user: format!("system:serviceaccount:{namespace}:{name}"),
        uid: None,
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
        ],
        extra: BTreeMap::new(),
    }
}

/// Each evaluation may take [`super::cel::MEMORY`].
pub(super) static PLACES: Places = Places::new();

/// Evaluates a policy, or the conditions of a webhook, while other tasks of this worker of the
/// runtime go on elsewhere, until no question is left. `work` is told when it has to end; it
/// is done anew after each answer, and what it said before is forgotten.
///
/// # Errors
/// 403 if it cannot begin in time, 504 when that is over while the authorizer is asked, 429
/// when there is no room for questions.
pub async fn evaluate<T>(
    questions: &Questions<'_>,
    mut work: impl FnMut(Instant) -> T,
) -> Result<T, Failure> {
    let attributes = questions.attributes;
    let caller = limits::holder(attributes.identity);
    let mut left = cel::TIME;
    loop {
        let timed = || {
            let began = Instant::now();
            let until = attributes.deadline.into_std().min(began + left);
            (work(until), began.elapsed())
        };
        let done = PLACES.run_by(attributes.deadline, caller, timed).await;
        let Some((done, took)) = done else {
            return Err(attributes.refused("no time was left to evaluate policies and conditions"));
        };
        if !questions.has_open() {
            return Ok(done);
        }
        drop(done);
        left = left.saturating_sub(took);
        // Apart: a call of kube-apiserver is large, and few requests make one here.
        Box::pin(questions.ask()).await?;
    }
}

#[cfg(test)]
mod tests;
