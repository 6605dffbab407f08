//! Whether the tenant has less in its DataStore than it may have there.

use apiservice::condition::reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::report::judgement::{self, Judgement};
use crate::tenant::World;
use crate::tenant::backing::limits::{self, MARGIN, Standing};

/// What the condition says. `None`: there is no limit, or what was said stands.
pub fn within(world: &World, before: Option<&Condition>) -> Option<Judgement> {
    let limits = limits::of(world.data_store.as_deref())?;
    let size = &world.size;
    let standing = size.standing(Some(limits), &world.tenant);
    let told = limits::told(size, Some(limits), &world.tenant, &judgement::now(world));
    let known = told.filter(|_| size.usage.is_some() && standing != Standing::Unknown);
    let Some(told) = known else {
        if size.standing.is_none() && before.is_some() {
            return None;
        }
        let message = "How much the tenant has in its DataStore has not been measured yet, or \
                       could not be for long. Nothing is refused because of that.";
        return Some(Judgement::unknown(reason::UNKNOWN, message));
    };
    let figures = limits::figures(limits, &told);
    let has = format!("The tenant has {figures} of what each tenant of its DataStore may have");
    let remedy = "Delete objects in the tenant that are not needed, or raise spec.tenantLimits \
                  of the DataStore.";
    Some(match standing {
        Standing::Exceeded => Judgement::no(
            reason::LIMIT_EXCEEDED,
            format!(
                "{has}. It refuses to create objects until that is less than {} %; reads, \
                 updates and deletions pass. {remedy}",
                100 - MARGIN
            ),
        ),
        Standing::Near => Judgement::yes(
            reason::NEAR_LIMIT,
            format!("{has}. At 100 % it refuses to create objects. {remedy}"),
        ),
        Standing::Within | Standing::Unknown => Judgement::yes(reason::AS_EXPECTED, has),
    })
}
