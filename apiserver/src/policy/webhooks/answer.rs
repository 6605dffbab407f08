//! What becomes of the answer of a webhook.

use serde_json::Value;

use super::question::Refused;
use crate::aside;
use crate::merge;
use crate::policy::asked::Making;
use crate::policy::hooks::Hook;
use crate::policy::review::{self, Verdict};
use crate::status::Failure;

/// Whether it lets the request pass.
pub(super) fn allowed(hook: &Hook, verdict: &Verdict) -> Result<(), Refused> {
    match verdict.allowed {
        true => Ok(()),
        false => {
            let denied = review::denied(&hook.name, verdict.status.clone());
            Err(Refused::Failure(Failure::Denied(Box::new(denied))))
        }
    }
}

/// Does what an answer says, and tells whether that changed anything.
pub(super) async fn apply(
    caller: &str,
    hook: &Hook,
    verdict: &Verdict,
    object: &mut Option<Value>,
    making: &dyn Making,
) -> Result<bool, Refused> {
    allowed(hook, verdict)?;
    if verdict.patch.is_empty() {
        return Ok(false);
    }
    let unasked = |why: String| Refused::Unasked {
        why: format!("failed calling webhook {:?}: {why}", hook.name),
        code: 503,
    };
    let internal = |why: String| Refused::Failure(Failure::Internal(why));
    let patched = || {
        let (patch, _) = merge::json(&verdict.patch).map_err(|why| {
            unasked(format!(
                "received undecodable patch in webhook response: {why}"
            ))
        })?;
        if patch.is_empty() {
            return Ok(false);
        }
        let Some(object) = object.as_mut() else {
            return Err(internal(format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                hook.name
            )));
        };
        if verdict.patch_type != "JSONPatch" {
            return Err(unasked(format!(
                "unsupported patch type {:?}",
                verdict.patch_type
            )));
        }
        let mut patched = object.clone();
        let applied = patch.apply(&mut patched);
        applied.map_err(|why| internal(why.to_string()))?;
        making.complete(&mut patched).map_err(Refused::Failure)?;
        let changed = patched != *object;
        *object = patched;
        Ok(changed)
    };
    // A short patch of a short object may take long.
    let changed = aside::long(caller, patched).await?;
    if let Some(object) = object.as_ref().filter(|_| changed) {
        // Before the next is asked: none adds to what is too large already.
        making.hold(object).await.map_err(Refused::Failure)?;
    }
    Ok(changed)
}
