//! What has to be written in a tenant, out of what was found there. Without I/O, as
//! the plan for its outside.

use std::fmt;

use serde_json::Value;

use crate::inside::objects::title;
use crate::inside::rbac;
use crate::tenant::drift;

/// What was found in a tenant; the same order as [`wanted`].
#[derive(Clone, Debug)]
pub struct Inside {
    /// What is kept there, each with the object of its name. `None`: there is none.
    pub found: Vec<(Kept, Option<Value>)>,
}

/// An object that is kept in a tenant.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The object, whole.
    pub value: Value,
    /// Made where it is missing, and the tenant's from then on.
    pub seed: bool,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// There is no object of this name.
    Create(Value),
    /// There is one with other fields.
    Apply(Value),
    /// What differs cannot be changed: it is deleted and made anew.
    Replace {
        /// The new object.
        object: Value,
        /// The one that is deleted.
        uid: String,
    },
}

/// What is kept in a tenant, in the order in which it can be created. `first`: no
/// control plane of it was ever Ready, and its API server has not made its own yet.
pub fn wanted(first: bool) -> Vec<Kept> {
    let seeds = first.then(rbac::default_roles).unwrap_or_default();
    let seeds = seeds.into_iter().map(|value| Kept { value, seed: true });
    let kept = rbac::bindings();
    let kept = kept.into_iter().map(|value| Kept { value, seed: false });
    seeds.chain(kept).collect()
}

/// The writes that make a tenant what it is to be. None if it is.
pub fn plan(inside: &Inside) -> Vec<Step> {
    let steps = inside.found.iter().filter_map(|(kept, live)| {
        let object = || kept.value.clone();
        let Some(live) = live else {
            return Some(Step::Create(object()));
        };
        if kept.seed {
            return None;
        }
        let differs = drift::first(&kept.value, live)?;
        // The role of a binding cannot be changed.
        if differs.starts_with("roleRef") {
            let uid = live["metadata"]["uid"].as_str().unwrap_or_default();
            return Some(Step::Replace {
                object: object(),
                uid: uid.to_owned(),
            });
        }
        Some(Step::Apply(object()))
    });
    steps.collect()
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Create(object) => write!(f, "create {}", title(object)),
            Step::Apply(object) => write!(f, "apply {}", title(object)),
            Step::Replace { object, .. } => write!(f, "replace {}", title(object)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::testing::golden;
    use serde_json::json;

    /// A tenant without anything.
    fn empty(first: bool) -> Inside {
        let found = wanted(first).into_iter().map(|kept| (kept, None));
        Inside {
            found: found.collect(),
        }
    }

    /// Carries out the steps.
    fn pass(inside: &mut Inside) -> Vec<String> {
        let steps = plan(inside);
        for step in &steps {
            let (Step::Create(object) | Step::Apply(object) | Step::Replace { object, .. }) = step;
            let mut live = object.clone();
            live["metadata"]["uid"] = json!(format!("uid of {}", title(object)));
            let (_, slot) = find(inside, &title(object));
            *slot = Some(live);
        }
        steps.iter().map(ToString::to_string).collect()
    }

    fn find<'a>(inside: &'a mut Inside, name: &str) -> &'a mut (Kept, Option<Value>) {
        let mut all = inside.found.iter_mut();
        all.find(|(kept, _)| title(&kept.value) == name).unwrap()
    }

    fn live<'a>(inside: &'a mut Inside, name: &str) -> &'a mut Value {
        find(inside, name).1.as_mut().unwrap()
    }

    #[test]
    fn a_first_start_writes_everything_once() {
        let mut inside = empty(true);
        let steps = pass(&mut inside);
        let objects = wanted(true);
        let text = objects
            .iter()
            .map(|kept| serde_json::to_string_pretty(&kept.value).unwrap());
        let text: Vec<String> = steps.iter().cloned().chain(text).collect();
        golden("inside", &(text.join("\n") + "\n"));
        assert_eq!(pass(&mut inside), [] as [String; 0]);
    }

    #[test]
    fn default_roles_are_the_tenants_once_they_are_there() {
        let mut inside = empty(true);
        pass(&mut inside);
        // The tenant's controller manager puts it together out of others.
        live(&mut inside, "ClusterRole view")["rules"] = json!([]);
        assert_eq!(pass(&mut inside), [] as [String; 0]);
        // Later they are nobody's business.
        let later = empty(false);
        let titles: Vec<String> = plan(&later).iter().map(ToString::to_string).collect();
        assert!(!titles.contains(&"create ClusterRole view".to_owned()));
        assert!(titles.contains(&"create ClusterRole cluster-admin".to_owned()));
    }

    #[test]
    fn what_is_changed_or_missing_is_put_right() {
        let mut inside = empty(false);
        pass(&mut inside);
        let admin = "ClusterRoleBinding steward:admin";
        live(&mut inside, admin)["subjects"] = json!([]);
        assert_eq!(pass(&mut inside), [format!("apply {admin}")]);
        live(&mut inside, admin)["roleRef"]["name"] = json!("view");
        assert_eq!(
            plan(&inside),
            [Step::Replace {
                object: find(&mut inside, admin).0.value.clone(),
                uid: format!("uid of {admin}"),
            }]
        );
        assert_eq!(pass(&mut inside), [format!("replace {admin}")]);
        find(&mut inside, admin).1 = None;
        assert_eq!(pass(&mut inside), [format!("create {admin}")]);
        // What others add is theirs.
        live(&mut inside, admin)["metadata"]["annotations"] = json!({"note": "x"});
        assert_eq!(pass(&mut inside), [] as [String; 0]);
    }
}
