//! Sends tenants away from a DataStore that is to be emptied, by their subresource `migrate`, as
//! anybody could.

use apiservice::condition::reason;
use apiservice::v1alpha1::TenantControlPlane;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::cluster::name::NamespacedName;
use crate::context::Context;
use crate::datastores::drain::{self, Answer};
use crate::datastores::plan::Outcome;
use crate::datastores::world::World;
use crate::process::lease::Unfinished;
use crate::process::timing;

/// Asks for a move of the tenant's data to wherever there is room, and remembers the answer.
/// Nothing is known of one that is another than was read: it may tolerate the taint by now.
pub async fn send_away(ctx: &Context, world: &World, tenant: &TenantControlPlane) -> Outcome {
    let store = &world.store;
    // Another one may have been told that there is no room.
    if ctx.drains.no_room(store, tenant).is_some() {
        return Outcome::Unchanged;
    }
    let name = NamespacedName::of(&tenant.metadata);
    let answer = match request(ctx, &name, tenant).await {
        Ok(target) => Some(Answer::Goes(target)),
        Err((code, why)) => drain::refusal(code, &why),
    };
    let Some(answer) = answer else {
        return Outcome::Unchanged;
    };
    if let Answer::Goes(target) = &answer {
        let message = format!(
            "DataStore {} is being emptied (taint with effect NoExecute): the data goes to \
             DataStore {target}",
            world.name()
        );
        tracing::info!(tenant = %name, "{message}");
        let events = &ctx.events;
        events.tell(tenant, false, reason::DRAINING, &message).await;
    }
    ctx.drains.note(store, tenant, &answer);
    Outcome::Done
}

/// Where the API server sends it.
async fn request(
    ctx: &Context,
    name: &NamespacedName,
    tenant: &TenantControlPlane,
) -> Result<String, (u16, String)> {
    let tenants: Api<TenantControlPlane> = Api::namespaced(ctx.client.clone(), &name.namespace);
    let body = json!({
        "metadata": {
            "name": name.name, "uid": tenant.metadata.uid,
            "resourceVersion": tenant.metadata.resource_version,
        },
        "spec": {},
    });
    let params = PostParams::default();
    let call = tenants.create_subresource::<Value, Value>("migrate", &name.name, &params, &body);
    let silent = |why: &str| Err((0, why.to_owned()));
    match ctx.leadership.within(timing::CALL_DEADLINE, call).await {
        Ok(Ok(answer)) => match answer["spec"]["target"].as_str() {
            Some(target) => Ok(target.to_owned()),
            None => silent("the API server does not say where it goes"),
        },
        Ok(Err(kube::Error::Api(status))) => Err((status.code, status.message.clone())),
        Ok(Err(error)) => silent(&error.to_string()),
        Err(Unfinished::Late(_)) => silent("the API server does not answer"),
        Err(ended) => silent(&ended.to_string()),
    }
}
