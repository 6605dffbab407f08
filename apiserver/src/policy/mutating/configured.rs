//! Policies and bindings as the cluster has them, in either version of its API.

use k8s_openapi::api::admissionregistration::{v1 as api, v1beta1};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::policy::Policy;
use crate::policy::definition::{self, Binding};
use crate::policy::matching::may_concern_us;
use crate::policy::source::Configured;

/// One of another version of the API, which says the same in the same words. What could not
/// be read would be a policy without constraints, which refuses what it is asked about.
fn as_v1<T>(other: &impl Serialize) -> T
where
    T: k8s_openapi::Resource + DeserializeOwned + Default,
{
    let value = serde_json::to_value(other).ok();
    let read = value.and_then(|mut value| {
        value["apiVersion"] = Value::from(T::API_VERSION);
        serde_json::from_value(value).ok()
    });
    read.unwrap_or_default()
}

impl Configured for api::MutatingAdmissionPolicy {
    type Kept = Policy;

    fn expressions(&self) -> Option<usize> {
        let Some(spec) = &self.spec else {
            return Some(0);
        };
        let conditions = spec.match_conditions.as_ref();
        let constraints = spec.match_constraints.as_ref();
        let common = definition::expressions(constraints, conditions, spec.variables.as_ref())?;
        let mutations = spec.mutations.iter().flatten();
        let own = mutations.map(|mutation| {
            let patch = mutation.json_patch.as_ref();
            let patch = patch.and_then(|patch| patch.expression.as_ref());
            let config = mutation.apply_configuration.as_ref();
            let config = config.and_then(|config| config.expression.as_ref());
            patch.map_or(0, String::len) + config.map_or(0, String::len)
        });
        Some(common + own.sum::<usize>())
    }

    fn read(self) -> Option<Policy> {
        Some(Policy::read(self))
    }
}

impl Configured for v1beta1::MutatingAdmissionPolicy {
    type Kept = Policy;

    fn expressions(&self) -> Option<usize> {
        as_v1::<api::MutatingAdmissionPolicy>(self).expressions()
    }

    fn read(self) -> Option<Policy> {
        as_v1::<api::MutatingAdmissionPolicy>(&self).read()
    }
}

impl Configured for api::MutatingAdmissionPolicyBinding {
    type Kept = Binding;

    fn expressions(&self) -> Option<usize> {
        let spec = self.spec.as_ref();
        let matching = spec.and_then(|spec| spec.match_resources.as_ref());
        matching.is_none_or(may_concern_us).then_some(0)
    }

    fn read(self) -> Option<Binding> {
        let spec = self.spec.unwrap_or_default();
        Some(Binding::new(
            self.metadata.name.unwrap_or_default(),
            spec.policy_name.unwrap_or_default(),
            spec.match_resources,
            spec.param_ref,
        ))
    }
}

impl Configured for v1beta1::MutatingAdmissionPolicyBinding {
    type Kept = Binding;

    fn expressions(&self) -> Option<usize> {
        as_v1::<api::MutatingAdmissionPolicyBinding>(self).expressions()
    }

    fn read(self) -> Option<Binding> {
        as_v1::<api::MutatingAdmissionPolicyBinding>(&self).read()
    }
}
