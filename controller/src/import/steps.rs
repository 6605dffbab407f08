//! Everything for one object, in an order that can be ended at any moment and begun anew.

use std::collections::BTreeMap;
use std::time::Duration;

use apiservice::names;
use serde_json::{Value, json};
use storage::tenancy::Claim;

use super::found::Found;
use super::old::{Api, Old};
use super::owned::{self, Tenant};
use super::place::{self, Place};
use super::proof;
use super::told::{Error, Told};
use super::translate::{self, Translated};
use crate::args::ImportArgs;
use crate::process::clock::Clock;

/// The value of the pause that the import itself makes, and takes off again.
const PAUSED: &str = "import";
/// How long the garbage collector may take to let go of a Deployment's ReplicaSets.
const ORPHANED: Duration = Duration::from_secs(60);

/// All DataStores, then all tenants.
pub async fn all(
    api: &Api,
    old: &Old,
    all: &Found,
    args: &ImportArgs,
    clock: &Clock,
    told: &mut Vec<Told>,
) -> Result<(), Error> {
    let mut places = BTreeMap::new();
    for theirs in &all.data_stores {
        let made = translate::data_store(old, theirs);
        let name = text(&theirs["metadata"]["name"]).to_owned();
        let about = format!("DataStore {name}");
        match Place::of(api, &made.object).await {
            Ok(place) => drop(places.insert(name, place)),
            Err(error) => {
                told.push(Told::refused(about, vec![error.to_string()]));
                continue;
            }
        }
        let one = Import { api, old, args };
        let outcome = one.create(&about, "datastores", theirs, made).await;
        told.push(outcome.unwrap_or_else(|error| Told::refused(about, vec![error.to_string()])));
    }
    // Of all of them, also if only some are imported now.
    let tenants: Vec<_> = all.tenants.iter().collect();
    let made: Vec<_> = tenants
        .iter()
        .map(|it| translate::tenant(old, it))
        .collect();
    let claims: Vec<_> = tenants
        .iter()
        .zip(&made)
        .map(|(theirs, made)| {
            let claim = proof::claim(&made.object, text(&theirs["metadata"]["uid"]));
            (text(&made.object["spec"]["dataStore"]).to_owned(), claim)
        })
        .collect();
    let shared = proof::shared(claims.iter().map(|(store, claim)| (store.as_str(), claim)));
    for ((theirs, mut made), (store, claim)) in tenants.into_iter().zip(made).zip(claims) {
        let about = format!("TenantControlPlane {}/{}", claim.namespace, claim.name);
        let chosen = format!("{}/{}", claim.namespace, claim.name);
        if !args.tenants.is_empty() && !args.tenants.contains(&chosen) {
            continue;
        }
        for (_, name) in shared
            .iter()
            .filter(|(of, name)| *of == store && (*name == claim.schema || *name == claim.user))
        {
            made.refused.push(format!(
                "more than one tenant is said to have {name:?} in DataStore {store}"
            ));
        }
        let one = Import { api, old, args };
        let outcome = match places.get(&store) {
            None => {
                let why = format!("DataStore {store} cannot be used");
                Ok(Told::refused(about.clone(), vec![why]))
            }
            Some(place) => one.tenant(&about, theirs, made, &claim, place, clock).await,
        };
        told.push(outcome.unwrap_or_else(|error| Told::refused(about, vec![error.to_string()])));
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

struct Import<'a> {
    api: &'a Api,
    old: &'a Old,
    args: &'a ImportArgs,
}

impl Import<'_> {
    /// What is wrong with a translation, as a whole.
    fn admitted(&self, about: &str, made: &Translated) -> Option<Told> {
        let mut why = made.refused.clone();
        if !self.args.drop_unknown {
            let unknown = made.unknown.iter();
            why.extend(unknown.map(|path| format!("{path} is not supported (--drop-unknown)")));
        }
        (!why.is_empty()).then(|| Told::refused(about, why))
    }

    fn notes(made: &Translated) -> Vec<String> {
        let dropped = made.unknown.iter();
        let dropped = dropped.map(|path| format!("{path} is left out"));
        made.notes.iter().cloned().chain(dropped).collect()
    }

    fn path(plural: &str, theirs: &Value) -> String {
        let namespace = theirs["metadata"]["namespace"].as_str();
        let namespace = namespace.map_or(String::new(), |it| format!("namespaces/{it}/"));
        format!("/apis/{}/{namespace}{plural}", apiservice::api_version())
    }

    /// Creates one of our objects. Nothing to do if it is there with this uid.
    async fn create(
        &self,
        about: &str,
        plural: &str,
        theirs: &Value,
        made: Translated,
    ) -> Result<Told, Error> {
        if let Some(refused) = self.admitted(about, &made) {
            return Ok(refused);
        }
        let path = Self::path(plural, theirs);
        let meta = &theirs["metadata"];
        let there = self
            .api
            .find(&format!("{path}/{}", text(&meta["name"])))
            .await?;
        if let Some(there) = there {
            if there["metadata"]["uid"] == meta["uid"] {
                return Ok(Told::new(about, "already there", Vec::new()));
            }
            let why = "another one of this name is here, with another uid".to_owned();
            return Ok(Told::refused(about, vec![why]));
        }
        let dry = if self.args.write { "" } else { "?dryRun=All" };
        if !self
            .api
            .create(&format!("{path}{dry}"), &made.object)
            .await?
        {
            let why = "its namespace is not there".to_owned();
            return Ok(Told::refused(about, vec![why]));
        }
        let word = if self.args.write {
            "imported"
        } else {
            "would import"
        };
        Ok(Told::new(about, word, Self::notes(&made)))
    }

    async fn tenant(
        &self,
        about: &str,
        theirs: &Value,
        mut made: Translated,
        claim: &Claim,
        place: &Place,
        clock: &Clock,
    ) -> Result<Told, Error> {
        let (namespace, name) = (claim.namespace.as_str(), claim.name.as_str());
        let path = format!("{}/{name}", Self::path("tenantcontrolplanes", theirs));
        let there = self.api.find(&path).await?;
        let ours = there.filter(|it| it["metadata"]["uid"] == claim.uid);
        let pause = |it: &Value| it["metadata"]["annotations"][names::ANNOTATION_PAUSED].clone();
        if ours.as_ref().is_some_and(|ours| pause(ours) != PAUSED) {
            return Ok(Told::new(about, "already there", Vec::new()));
        }
        // Ours may stand in its place already, or none, if an earlier run was ended.
        let deployment = owned::path(owned::KINDS[3], namespace);
        let deployment = format!("{deployment}/{name}");
        let running = self.api.find(&deployment).await?;
        let version = match &running {
            Some(running) => proof::version(running),
            None => self.version_noted(claim).await?,
        };
        let wanted = text(&made.object["spec"]["kubernetes"]["version"]).to_owned();
        let version = version.unwrap_or_default();
        if version.trim_start_matches('v') != wanted.trim_start_matches('v') {
            made.refused.push(format!(
                "spec.kubernetes.version is {wanted} and {version:?} runs: let it end its \
                 upgrade"
            ));
        }
        let config = names::datastore_config(name);
        let config = place::secret(self.api, namespace, &config).await?;
        let certificate = names::datastore_certificate(name);
        let certificate = place::secret(self.api, namespace, &certificate).await?;
        made.refused.extend(proof::doubts(
            claim,
            config.as_ref(),
            certificate.as_ref(),
            &place.authority,
            clock.now(),
        ));
        if let Err(error) = place.tenancy.may_adopt(claim).await {
            made.refused.push(error.to_string());
        }
        if let Some(refused) = self.admitted(about, &made) {
            return Ok(refused);
        }
        // Its authority for minted kubeconfigs is new with us.
        let annotations = &mut made.object["metadata"]["annotations"];
        annotations[names::ANNOTATION_REPLACE_LOST_KEYS] = json!(names::client_ca(name));
        let stays_paused = annotations.get(names::ANNOTATION_PAUSED).is_some();
        if stays_paused {
            made.refused
                .push("it is paused: take the annotation off first".to_owned());
            return Ok(Told::refused(about, made.refused));
        }
        annotations[names::ANNOTATION_PAUSED] = json!(PAUSED);
        if ours.is_none() && !self.args.write {
            return self
                .create(about, "tenantcontrolplanes", theirs, made)
                .await;
        }
        if !self.args.write {
            return Ok(Told::new(about, "would go on", Vec::new()));
        }
        let refused = |error: storage::tenancy::TenancyError| Error::Refused(error.to_string());
        place.tenancy.adopt(claim).await.map_err(refused)?;
        let told = match ours {
            Some(_) => Told::new(about, "imported", Self::notes(&made)),
            None => {
                self.create(about, "tenantcontrolplanes", theirs, made)
                    .await?
            }
        };
        if told.word == Told::REFUSED {
            return Ok(told);
        }
        let tenant = Tenant {
            name,
            uid: &claim.uid,
            version: &version,
        };
        self.own(namespace, &tenant).await?;
        self.hand_over(namespace, name, &deployment).await?;
        let resumed = json!({"metadata": {"annotations": {names::ANNOTATION_PAUSED: null}}});
        self.api.merge(&path, &resumed).await?;
        Ok(told)
    }

    /// The version that an earlier run noted before it took the Deployment away.
    async fn version_noted(&self, claim: &Claim) -> Result<Option<String>, Error> {
        let secret = place::secret(self.api, &claim.namespace, &names::ca(&claim.name)).await?;
        let annotations = secret.and_then(|secret| secret.metadata.annotations);
        Ok(annotations.and_then(|mut all| all.remove(names::ANNOTATION_RAN)))
    }

    /// Owner references and labels of all that the tenant has.
    async fn own(&self, namespace: &str, tenant: &Tenant<'_>) -> Result<(), Error> {
        for kind in owned::KINDS {
            let path = owned::path(kind, namespace);
            for object in self.api.list(&path).await? {
                if let Some(change) = owned::change(self.old, &object, tenant) {
                    let name = text(&object["metadata"]["name"]);
                    self.api.merge(&format!("{path}/{name}"), &change).await?;
                }
            }
        }
        Ok(())
    }

    /// The pods go on to serve while their Deployment is replaced by ours.
    async fn hand_over(&self, namespace: &str, name: &str, deployment: &str) -> Result<(), Error> {
        let label = format!("{}%3D{name}", self.old.key("name"));
        let replica_sets = format!("/apis/apps/v1/namespaces/{namespace}/replicasets");
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        for path in [&pods, &replica_sets] {
            for one in self
                .api
                .list(&format!("{path}?labelSelector={label}"))
                .await?
            {
                if one["metadata"]["labels"][names::LABEL_NAME] != name {
                    let one = text(&one["metadata"]["name"]);
                    let one = format!("{path}/{one}");
                    self.api.merge(&one, &owned::mark(name)).await?;
                }
            }
        }
        let service = format!("/api/v1/namespaces/{namespace}/services/{name}");
        if let Some(found) = self.api.find(&service).await?
            && let Some(change) = owned::selector(&found, name)
        {
            self.api.merge(&service, &change).await?;
        }
        let Some(found) = self.api.find(deployment).await? else {
            return Ok(());
        };
        if !owned::selects_otherwise(&found, name) {
            return Ok(());
        }
        let uid = text(&found["metadata"]["uid"]);
        self.api.delete(deployment, uid, "Orphan").await?;
        let gone = async {
            while self.api.find(deployment).await?.is_some() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok::<_, Error>(())
        };
        tokio::time::timeout(ORPHANED, gone).await.map_err(|_| {
            let why = "its Deployment does not go; is the garbage collector at work? Run again";
            Error::Refused(why.to_owned())
        })?
    }
}
