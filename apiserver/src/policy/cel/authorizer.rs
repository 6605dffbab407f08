//! What an expression asks the authorizer of the cluster, as Kubernetes' library has it:
//! `authorizer.group('').resource('pods').check('get').allowed()`.
//!
//! # Flow
//! Checks are built step by step. The last one, `check`, makes a [`Question`] of it, which
//! whoever gives variables their values answers; what was not asked yet ends the evaluation
//! with [`super::Unusable::Unasked`], and it begins anew once there is an answer.

use std::rc::Rc;
use std::sync::Arc;

use super::value::{Text, Val, overload};
use super::{Evaluated, Run, error};

/// Steps of a check: two of them fit into an expression.
const CHECK: u64 = 350_000;
/// Bytes of all texts of a question.
pub const LONGEST: usize = 16 * 1024;

/// Whose rights are asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Who<T> {
    /// Who sent the request.
    #[default]
    Caller,
    ServiceAccount {
        namespace: T,
        name: T,
    },
}

/// What is asked. Empty text means "none".
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Question {
    pub who: Who<String>,
    pub verb: String,
    /// Of a question that is about no resource.
    pub path: Option<String>,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
}

impl Question {
    /// Bytes of its texts.
    pub fn bytes(&self) -> usize {
        let who = match &self.who {
            Who::Caller => 0,
            Who::ServiceAccount { namespace, name } => namespace.len() + name.len(),
        };
        let rest = [
            &self.verb,
            &self.group,
            &self.resource,
            &self.subresource,
            &self.namespace,
            &self.name,
            &self.field_selector,
            &self.label_selector,
        ];
        let path = self.path.as_ref().map_or(0, String::len);
        who + path + rest.iter().map(|text| text.len()).sum::<usize>()
    }
}

/// What the authorizer said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub allowed: bool,
    pub reason: String,
    /// What went wrong meanwhile.
    pub error: String,
}

/// A step on the way to a question, or what was answered.
#[derive(Clone, Debug)]
pub enum Authz<'a> {
    Authorizer {
        who: Who<Text<'a>>,
        /// What the request is about; of the variable `authorizer` alone.
        request: Option<Rc<ResourceCheck<'a>>>,
    },
    Path {
        who: Who<Text<'a>>,
        path: Text<'a>,
    },
    Group {
        who: Who<Text<'a>>,
        group: Text<'a>,
    },
    Resource(ResourceCheck<'a>),
    Decision(Arc<Answer>),
}

/// A resource, and what of it.
#[derive(Clone, Debug, Default)]
pub struct ResourceCheck<'a> {
    pub who: Who<Text<'a>>,
    pub group: Text<'a>,
    pub resource: Text<'a>,
    pub subresource: Text<'a>,
    pub namespace: Text<'a>,
    pub name: Text<'a>,
    pub field_selector: Text<'a>,
    pub label_selector: Text<'a>,
}

impl<'a> Val<'a> {
    /// The variable `authorizer` of a request that is about this.
    pub fn authorizer(request: ResourceCheck<'a>) -> Self {
        Val::Authz(Rc::new(Authz::Authorizer {
            who: Who::Caller,
            request: Some(Rc::new(request)),
        }))
    }
}

impl<'a> Authz<'a> {
    /// The name of its type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Authorizer { .. } => "kubernetes.authorization.Authorizer",
            Self::Path { .. } => "kubernetes.authorization.PathCheck",
            Self::Group { .. } => "kubernetes.authorization.GroupCheck",
            Self::Resource(_) => "kubernetes.authorization.ResourceCheck",
            Self::Decision(_) => "kubernetes.authorization.Decision",
        }
    }

    /// `authorizer.requestResource`.
    pub fn field(&self, name: &str) -> Evaluated<'a> {
        match self {
            Self::Authorizer {
                request: Some(request),
                ..
            } if name == "requestResource" => Ok(Val::Authz(Rc::new(Authz::Resource(
                request.as_ref().clone(),
            )))),
            _ => Err(overload()),
        }
    }

    fn question(&self, verb: &str) -> Option<Question> {
        let owned = |who: &Who<Text<'a>>| match who {
            Who::Caller => Who::Caller,
            Who::ServiceAccount { namespace, name } => Who::ServiceAccount {
                namespace: namespace.to_string(),
                name: name.to_string(),
            },
        };
        let verb = verb.to_owned();
        match self {
            Self::Path { who, path } => Some(Question {
                who: owned(who),
                verb,
                path: Some(path.to_string()),
                ..Question::default()
            }),
            Self::Resource(check) => Some(Question {
                who: owned(&check.who),
                verb,
                path: None,
                group: check.group.to_string(),
                resource: check.resource.to_string(),
                subresource: check.subresource.to_string(),
                namespace: check.namespace.to_string(),
                name: check.name.to_string(),
                field_selector: check.field_selector.to_string(),
                label_selector: check.label_selector.to_string(),
            }),
            _ => None,
        }
    }

    /// Bytes of the texts that a question has of it.
    fn bytes(&self) -> usize {
        let of = |who: &Who<Text<'a>>| match who {
            Who::Caller => 0,
            Who::ServiceAccount { namespace, name } => namespace.len() + name.len(),
        };
        match self {
            Self::Path { who, path } => of(who) + path.len(),
            Self::Resource(check) => {
                let texts = [
                    &check.group,
                    &check.resource,
                    &check.subresource,
                    &check.namespace,
                    &check.name,
                    &check.field_selector,
                    &check.label_selector,
                ];
                of(&check.who) + texts.iter().map(|text| text.len()).sum::<usize>()
            }
            _ => 0,
        }
    }
}

/// The functions of this library; nothing for others.
pub fn call<'a>(run: &Run<'_, 'a>, name: &str, args: &[Val<'a>]) -> Option<Evaluated<'a>> {
    let (Val::Authz(of), rest) = args.split_first()? else {
        return None;
    };
    let made = |authz: Authz<'a>| {
        run.budget.allocate(size_of::<Authz<'a>>())?;
        Ok(Val::Authz(Rc::new(authz)))
    };
    let is_empty = |text: &Text<'_>| text.trim().is_empty();
    Some(match (&**of, name, rest) {
        (Authz::Authorizer { .. }, "path", [Val::Text(path)]) if is_empty(path) => {
            error("path must not be empty")
        }
        (Authz::Authorizer { who, .. }, "path", [Val::Text(path)]) => made(Authz::Path {
            who: who.clone(),
            path: path.clone(),
        }),
        (Authz::Authorizer { who, .. }, "group", [Val::Text(group)]) => made(Authz::Group {
            who: who.clone(),
            group: group.clone(),
        }),
        (Authz::Authorizer { .. }, "serviceAccount", [Val::Text(namespace), Val::Text(name)]) => {
            // No name is longer: what is, is no name, and is not looked through.
            let is = |text: &str, most, complaints: fn(&str) -> Vec<String>| {
                text.len() <= most && complaints(text).is_empty()
            };
            if !is(name, 253, apiservice::forms::subdomain_complaints) {
                return Some(error("Invalid service account name"));
            }
            if !is(namespace, 63, apiservice::forms::label_complaints) {
                return Some(error("Invalid service account namespace"));
            }
            made(Authz::Authorizer {
                who: Who::ServiceAccount {
                    namespace: namespace.clone(),
                    name: name.clone(),
                },
                request: None,
            })
        }
        (Authz::Group { .. }, "resource", [Val::Text(resource)]) if is_empty(resource) => {
            error("resource must not be empty")
        }
        (Authz::Group { who, group }, "resource", [Val::Text(resource)]) => {
            made(Authz::Resource(ResourceCheck {
                who: who.clone(),
                group: group.clone(),
                resource: resource.clone(),
                ..ResourceCheck::default()
            }))
        }
        (Authz::Resource(_) | Authz::Path { .. }, "check", [Val::Text(verb)]) => {
            asked(run, of, verb)
        }
        (Authz::Resource(check), part, [Val::Text(text)]) => {
            let mut check = check.clone();
            let place = match part {
                "subresource" => &mut check.subresource,
                "namespace" => &mut check.namespace,
                "name" => &mut check.name,
                "fieldSelector" => &mut check.field_selector,
                "labelSelector" => &mut check.label_selector,
                _ => return None,
            };
            *place = text.clone();
            if part.ends_with("Selector")
                && let Err(why) = run.budget.take(selector(text.len() as u64))
            {
                return Some(Err(why));
            }
            made(Authz::Resource(check))
        }
        (Authz::Decision(answer), "allowed", []) => Ok(Val::Bool(answer.allowed)),
        (Authz::Decision(answer), "errored", []) => Ok(Val::Bool(!answer.error.is_empty())),
        (Authz::Decision(answer), "reason", []) => run.text(&answer.reason),
        (Authz::Decision(answer), "error", []) => run.text(&answer.error),
        _ => return None,
    })
}

/// What reading a selector takes, as Kubernetes counts it: a list, and for every second
/// character a requirement.
fn selector(length: u64) -> u64 {
    10 + length.div_ceil(10) + 50 * length.div_ceil(2)
}

fn asked<'a>(run: &Run<'_, 'a>, of: &Authz<'a>, verb: &str) -> Evaluated<'a> {
    run.budget.take(CHECK)?;
    let bytes = of.bytes().saturating_add(verb.len());
    if bytes > LONGEST {
        return error(format!(
            "a question to the authorizer has more than {LONGEST} bytes"
        ));
    }
    run.budget.copy(bytes)?;
    let question = of.question(verb).ok_or_else(overload)?;
    let answer = run.variables.ask(question)?;
    Ok(Val::Authz(Rc::new(Authz::Decision(answer))))
}
