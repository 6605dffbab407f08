//! Calls tenants whose pods are to be rolled ([`crate::fleet`]).

use apiservice::condition::reason;

use crate::cluster::key::Key;
use crate::context::Context;

/// Calls those whose turn it is, and tells who holds all others up.
pub async fn call(ctx: &Context) {
    if !ctx.leadership.leads() {
        return;
    }
    let Some(call) = ctx.fleet.next_call(&ctx.seen()) else {
        return;
    };
    for name in call.called {
        ctx.queue.add(Key::Tenant(name));
    }
    let others = call.others;
    for holder in call.stuck {
        let tenant = ctx.caches.tenants.all().into_iter();
        let mut tenant = tenant.filter(|it| it.metadata.uid.as_deref() == Some(&holder.uid));
        if let Some(tenant) = tenant.next() {
            let message = "Its pods were rolled for a reason other than its spec. It was Ready \
                           before and is not since, so other tenants wait.";
            let told = ctx
                .events
                .tell(tenant.as_ref(), true, reason::ROLLS_HALTED, message);
            if told.await {
                let tenant = holder.name;
                tracing::warn!(%tenant, others, "rolls are halted: {message}");
            }
        }
    }
}
