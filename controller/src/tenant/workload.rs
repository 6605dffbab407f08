//! The Deployment of a tenant, built whole and written in one step (features
//! 2.8), so that one change of the manifest is one roll.

pub mod arguments;
pub mod containers;
pub mod files;
pub mod flags;
pub mod konnectivity;
pub mod kubelet_probes;
pub mod live;
pub mod pods;
pub mod versions;
pub mod volumes;

use std::collections::BTreeMap;

use apiservice::names;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::tenant::backing::backed::Backing;
use crate::tenant::backing::{moving, wiring};
use crate::tenant::network::exposure::Exposure;
use crate::tenant::network::service;
use crate::tenant::objects;
use crate::tenant::pki::certificates::Keys;
use crate::tenant::plan::{Object, Plan};
use crate::tenant::rolls::{self, Change};
use crate::tenant::world::World;

/// Keeps the Deployment once everything that its pods mount is there or is
/// written before it, and the tenant may use its data.
///
/// A Deployment that is already there is left as it is while one of these is
/// missing: its pods serve. So it is while its pods would be rolled and it is others'
/// turn (rule 29).
pub fn plan(world: &World, keys: &Keys, place: &Backing, plan: &mut Plan) {
    let Some(exposure) = keys.exposure.as_ref().filter(|_| keys.complete) else {
        return;
    };
    let wanted_beside = world.overrides.iter().filter(|of| of.wanted).count();
    if !place.is_complete() || place.overrides.len() < wanted_beside {
        return;
    }
    // A pod that starts while nothing can be written does not become ready.
    if moving::is_frozen(world) {
        return;
    }
    let mut wanted = wanted(world, keys, place, exposure);
    plan.compared = true;
    let why = rolls::change(world, plan, &wanted);
    plan.rolls = why == Change::Asked;
    if let Change::Fleet(by) = why {
        plan.roll_by(by);
        if !rolls::may(world) && by.is_none_or(|by| world.now < by) {
            rolls::wait(world, plan);
            if let Some(by) = by {
                plan.revisit_at(by);
            }
            return;
        }
    }
    rolls::note(world, plan, why, &mut wanted);
    let live = world.deployment();
    objects::keep(
        world,
        plan,
        Object::Deployment(wanted),
        live.map(|live| (&live.metadata, live)),
    );
}

/// When the pods began with an empty database in place of one that was lost.
fn begun(world: &World) -> Option<&str> {
    let live = world
        .deployment()
        .filter(|live| world.ours(&live.metadata))?;
    let template = live.spec.as_ref()?.template.metadata.as_ref()?;
    objects::annotation(template, names::ANNOTATION_STORAGE_BEGUN)
}

/// Nobody rolls a tenant back by hand, for the Deployment would be put right; one
/// old ReplicaSet shows what there was before.
const OLD_REPLICA_SETS: i32 = 1;

fn wanted(world: &World, keys: &Keys, place: &Backing, exposure: &Exposure) -> Deployment {
    let settings = &world.tenant.spec.control_plane.deployment;
    let mut metadata = objects::meta(
        world,
        &names::workload(world.name()),
        names::component::DEPLOYMENT,
    );
    objects::add_metadata(&mut metadata, settings.additional_metadata.as_ref());
    if let Some(extra) = settings
        .extra_args
        .as_ref()
        .filter(|extra| !extra.api_server.is_empty())
    {
        let arguments = BTreeMap::from([(String::new(), extra.api_server.join("\n"))]);
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(
            names::ANNOTATION_API_SERVER_ARGS.to_owned(),
            objects::checksum(&arguments),
        );
    }
    let live = world.deployment();
    let noted = live.and_then(|live| {
        objects::annotation(&live.metadata, names::ANNOTATION_DATA_STORE).map(str::to_owned)
    });
    if let Some(settings) = place.settings.clone().or(noted) {
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(names::ANNOTATION_DATA_STORE.to_owned(), settings);
    }
    let beside = wiring::settings(place);
    if !beside.is_empty() {
        metadata.annotations.get_or_insert_default().extend(beside);
    }
    let name = place.data_store.as_ref();
    if let Some(name) = name.filter(|name| !moving::fits_a_label(name)) {
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(names::ANNOTATION_DATA_STORE_NAME.to_owned(), name.clone());
    }
    Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: Some(settings.replicas),
            revision_history_limit: Some(OLD_REPLICA_SETS),
            selector: LabelSelector {
                match_labels: Some(service::selector(world)),
                match_expressions: None,
            },
            strategy: Some(strategy(&settings.strategy)),
            template: PodTemplateSpec {
                metadata: Some(template_meta(world, keys, place)),
                spec: Some(pods::spec(world, exposure, place)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// All new pods first, then the old ones go, unless the user says otherwise.
fn strategy(given: &DeploymentStrategy) -> DeploymentStrategy {
    if given.type_.as_deref() == Some("Recreate") {
        return DeploymentStrategy {
            type_: given.type_.clone(),
            rolling_update: None,
        };
    }
    let rolling = given.rolling_update.clone().unwrap_or_default();
    DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: rolling
                .max_surge
                .or(Some(IntOrString::String("100%".to_owned()))),
            max_unavailable: rolling.max_unavailable.or(Some(IntOrString::Int(0))),
        }),
    }
}

/// Labels and annotations of the pods. The checksums make pods roll when what
/// they mount changes. Nobody else's have keys of ours, so that nobody stops that or
/// hides the pods from Service and Deployment.
fn template_meta(world: &World, keys: &Keys, place: &Backing) -> ObjectMeta {
    let settings = &world.tenant.spec.control_plane.deployment;
    let mut labels = names::labels(world.name(), names::component::DEPLOYMENT);
    for (part, checksum) in &keys.checksums {
        labels.insert(names::pod_hash_label(part), checksum.clone());
    }
    let name = place.data_store.as_ref();
    if let Some(name) = name.filter(|name| moving::fits_a_label(name)) {
        labels.insert(names::LABEL_POD_DATASTORE.to_owned(), name.clone());
    }
    let mut annotations = BTreeMap::new();
    for (annotation, checksum) in [
        (names::ANNOTATION_STORAGE_CONFIG, &place.config_checksum),
        (
            names::ANNOTATION_STORAGE_CERTIFICATE,
            &place.certificate_checksum,
        ),
    ] {
        annotations.extend(
            checksum
                .clone()
                .map(|checksum| (annotation.to_owned(), checksum)),
        );
    }
    annotations.extend(wiring::annotations(place));
    let begun = match place.anew {
        true => Some(world.now.to_string()),
        false => begun(world).map(str::to_owned),
    };
    annotations.extend(begun.map(|at| (names::ANNOTATION_STORAGE_BEGUN.to_owned(), at)));
    let mut metadata = ObjectMeta {
        labels: Some(labels),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    };
    objects::add_metadata(&mut metadata, settings.pod_additional_metadata.as_ref());
    metadata
}
