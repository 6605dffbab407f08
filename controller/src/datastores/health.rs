//! What a datastore says, in the words of facts and conditions.

use storage::tenancy::{Access, Alarm, Claim, Health, TenancyError};

use crate::datastores::credentials::ConnectError;
use crate::tenant::backing::facts::{
    AccessFact, CompactedBy, StoreHealth, StoreProblem, StoreProblemKind as Kind, StoreReport,
};

/// From an answer.
pub fn report(health: &Health, compacted: Option<CompactedBy>) -> StoreReport {
    let separates_tenants = match health.gaps.is_empty() {
        true => Ok(()),
        false => Err(health.gaps.join(" ")),
    };
    let problem = |kind, message: &str| {
        Err(StoreProblem {
            kind,
            message: message.into(),
        })
    };
    let served = if !health.authentication {
        problem(Kind::Insecure, "authentication is off")
    } else if health.alarms.contains(&Alarm::NoSpace) {
        problem(Kind::Full, "its quota is used up (alarm NOSPACE)")
    } else if health.alarms.contains(&Alarm::Corrupt) {
        problem(
            Kind::Unhealthy,
            "its members disagree about the data (alarm CORRUPT)",
        )
    } else {
        Ok(StoreHealth {
            version: health.version.clone(),
            warnings: health.gaps.clone(),
        })
    };
    StoreReport {
        health: served,
        separates_tenants,
        compacted,
    }
}

/// Whether the settings by which it was asked work: a datastore that is full was reached.
pub fn serves(report: &StoreReport) -> Result<(), StoreProblem> {
    match &report.health {
        Err(problem) if problem.kind != Kind::Full => Err(problem.clone()),
        _ => Ok(()),
    }
}

/// From a failure.
pub fn problem_of(error: &TenancyError) -> StoreProblem {
    let (kind, message) = match error {
        TenancyError::Unreachable(message) => (Kind::Unreachable, message.clone()),
        TenancyError::Unauthenticated(message) => (Kind::Unauthenticated, message.clone()),
        TenancyError::NoSpace(message) => (Kind::Full, message.clone()),
        other => (Kind::Unhealthy, other.to_string()),
    };
    StoreProblem { kind, message }
}

/// Why there is not even a connection.
pub fn refused(error: &ConnectError) -> StoreReport {
    StoreReport::failed(StoreProblem {
        kind: Kind::Unauthenticated,
        message: error.to_string(),
    })
}

/// The claim that a tenant is given: `wished` if it holds that, else the oldest
/// that it holds, for that is where its data is; `wished` again if it holds none.
pub fn settle(wished: &Claim, found: &[Claim]) -> Claim {
    let same = found.iter().find(|claim| claim.is_same_hold(wished));
    let own = || found.iter().find(|claim| claim.uid == wished.uid);
    same.or_else(own).unwrap_or(wished).clone()
}

/// What a check found.
pub fn access(access: Access) -> AccessFact {
    match access {
        Access::Exact | Access::Former | Access::Outdated => AccessFact::Granted,
        Access::Differs(how) => AccessFact::Revoked(how),
        Access::Unclaimed => AccessFact::Unclaimed,
        Access::Lost(what) => AccessFact::Lost(what),
    }
}

/// What a failure says about the tenant's rights, if anything.
pub fn access_of(error: &TenancyError) -> Option<AccessFact> {
    match error {
        TenancyError::SchemaTaken {
            uid,
            namespace,
            name,
            ..
        } => Some(AccessFact::Taken {
            by: format!("{namespace}/{name} ({uid})"),
        }),
        TenancyError::Refused(why) => Some(AccessFact::Refused(why.clone())),
        TenancyError::DataLost(what) => Some(AccessFact::Lost(what.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use storage::tenancy::Stage;

    use super::*;
    use crate::tenant::testing::Lab;

    fn health() -> Health {
        Health {
            version: "3.6.15".into(),
            revision: 7,
            authentication: true,
            alarms: vec![],
            gaps: vec![],
            size: 1,
            used: 1,
            quota: None,
        }
    }

    #[test]
    fn what_is_held_outranks_what_is_wished_for() {
        let claim = |uid: &str, schema: &str| Claim {
            stage: Stage::Serving,
            prefix: None,
            replicas: None,
            uid: uid.into(),
            namespace: "n".into(),
            name: "t".into(),
            schema: schema.into(),
            user: schema.into(),
            role: None,
        };
        let wished = claim("1", "wished");
        let found = [claim("2", "not-its"), claim("1", "a"), claim("1", "b")];
        assert_eq!(settle(&wished, &found), claim("1", "a"));
        assert_eq!(settle(&claim("1", "b"), &found), claim("1", "b"));
        assert_eq!(settle(&wished, &[claim("2", "not-its")]), wished);
    }

    /// rule 15: Ready is lost by what a tenant has lost, and by nothing that is merely to be
    /// written anew.
    #[test]
    fn what_takes_nothing_from_a_tenant_leaves_it_ready() {
        use apiservice::condition::tenant::READY;
        for (found, ready) in [
            (Access::Exact, true),
            (Access::Former, true),
            (Access::Outdated, true),
            (Access::Differs("the user does not exist".into()), false),
            (Access::Lost("the bucket does not exist".into()), false),
        ] {
            let mut lab = Lab::ready();
            lab.later(4);
            lab.world.store.access = Some(access(found.clone()));
            let plan = lab.pass();
            assert_eq!(
                lab.condition(READY).starts_with("True"),
                ready,
                "{found:?}: {}",
                lab.told()
            );
            assert!(!ready || plan.is_quiet(), "{found:?}: {plan}");
        }
    }

    #[test]
    fn what_keeps_a_datastore_from_serving() {
        assert!(report(&health(), None).health.is_ok());
        let kind = |health: Health| report(&health, None).health.unwrap_err().kind;
        assert_eq!(
            kind(Health {
                authentication: false,
                ..health()
            }),
            Kind::Insecure
        );
        assert_eq!(
            kind(Health {
                alarms: vec![Alarm::NoSpace],
                ..health()
            }),
            Kind::Full
        );
        let full = Health {
            alarms: vec![Alarm::NoSpace],
            ..health()
        };
        let open = Health {
            authentication: false,
            ..health()
        };
        assert!(serves(&report(&full, None)).is_ok(), "it was reached");
        assert!(serves(&report(&open, None)).is_err());
        let old = Health {
            gaps: vec!["Tenants can compact.".into()],
            ..health()
        };
        let report = report(&old, None);
        assert!(report.health.is_ok(), "a warning, not an end");
        assert!(report.separates_tenants.is_err());
    }
}
