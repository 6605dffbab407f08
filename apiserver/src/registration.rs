//! The only writer of our APIService and our serving Secret (rule 24).
//!
//! Flow, every ten seconds: read the Secret, make or renew what it lacks, by
//! compare-and-set; see that the APIService leads to us and trusts the authority;
//! then serve the leaf. The order is what makes a renewal seamless: trust first.
//!
//! Guarantees: an APIService that is not ours is not touched, and no traffic is taken
//! from a CustomResourceDefinition of our group (rule 5).

use std::sync::Arc;
use std::time::Duration;

use apiservice::clock::Clock;
use apiservice::pki::{self, Entropy};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams, Preconditions};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::reviews;
use crate::serving_pair::{self, Material};
use crate::tls::{self, Serving};

const GOOD: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(2);
const PASS: Duration = Duration::from_secs(20);
const SECRET_TYPE: &str = "kubernetes.io/tls";

/// Where this server is, and what it is called.
#[derive(Clone, Debug)]
pub struct Place {
    pub namespace: String,
    pub service: String,
    pub port: u16,
    pub secret: String,
    /// Somebody else keeps the APIService.
    pub skip: bool,
}

/// Keeps the registration.
pub struct Registration {
    client: kube::Client,
    place: Place,
    serving: Arc<Serving>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// Why a pass did not succeed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {}", reviews::describe(.error))]
    Api {
        what: &'static str,
        #[source]
        error: kube::Error,
    },
    #[error("certificates: {0}")]
    Pki(#[from] pki::Error),
    #[error("serving certificate: {0}")]
    Tls(#[from] tls::Error),
    #[error("another replica changed the Secret meanwhile")]
    Raced,
    /// Nothing is changed until a person resolves it.
    #[error("{0}")]
    Refused(String),
    #[error("no answer within {} s", PASS.as_secs())]
    Slow(#[from] tokio::time::error::Elapsed),
}

fn api(what: &'static str) -> impl FnOnce(kube::Error) -> Error {
    move |error| Error::Api { what, error }
}

/// `v1alpha1.steward.butlerlabs.dev` (R1.1).
fn api_service_name() -> String {
    format!("{}.{}", apiservice::VERSION, apiservice::GROUP)
}

impl Registration {
    pub fn new(
        client: kube::Client,
        place: Place,
        serving: Arc<Serving>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        Registration {
            client,
            place,
            serving,
            metrics,
            clock,
        }
    }

    /// Keeps everything in place until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut said = String::new();
        loop {
            let pass = tokio::time::timeout(PASS, self.pass()).await;
            let result = pass.map_err(Error::from).and_then(|result| result);
            let refused = matches!(result, Err(Error::Refused(_)));
            self.metrics.registration_refused(refused);
            let text = result
                .as_ref()
                .err()
                .map(Error::to_string)
                .unwrap_or_default();
            // Once, not every ten seconds.
            if text != said {
                match &result {
                    Ok(()) => tracing::info!("registered"),
                    Err(Error::Refused(why)) => tracing::error!("not registered: {why}"),
                    Err(error) => {
                        tracing::warn!(%error, "cannot register the APIService; trying again")
                    }
                }
                said = text;
            }
            let pause = if result.is_ok() || refused {
                GOOD
            } else {
                AGAIN
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One pass over Secret, APIService and serving certificate.
    ///
    /// # Errors
    /// What has to be tried again, or decided by a person.
    pub async fn pass(&self) -> Result<(), Error> {
        let material = self.material().await?;
        // The first leaf is served before anybody is led here; a later one waits until
        // it is trusted.
        if !self.serving.is_installed() {
            self.serve(&material)?;
        }
        if !self.place.skip {
            self.register(&material).await?;
        }
        self.serve(&material)
    }

    fn serve(&self, material: &Material) -> Result<(), Error> {
        self.serving.install(&material.leaf)?;
        self.metrics
            .serving_until(pki::inspect(&material.leaf.cert)?.not_after);
        Ok(())
    }

    /// Reads the Secret; makes and stores what it lacks.
    async fn material(&self) -> Result<Material, Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.place.namespace);
        let name = &self.place.secret;
        let found = secrets
            .get_opt(name)
            .await
            .map_err(api("reading the serving Secret"))?;
        let current = found
            .as_ref()
            .and_then(|secret| Material::parse(secret.data.as_ref()?));
        let names = serving_pair::dns_names(&self.place.namespace, &self.place.service);
        let now = self.clock.now();
        let renewed = serving_pair::renew(current.as_ref(), &names, now, &Entropy)?;
        let Some(material) = renewed else {
            return current.ok_or(Error::Raced);
        };
        let data = Some(material.data());
        let written = match found {
            // Carries the resourceVersion that was read.
            Some(mut secret) => {
                secret.data = data;
                secrets.replace(name, &PostParams::default(), &secret).await
            }
            None => {
                let secret = Secret {
                    metadata: ObjectMeta {
                        name: Some(name.clone()),
                        ..ObjectMeta::default()
                    },
                    data,
                    type_: Some(SECRET_TYPE.to_owned()),
                    ..Secret::default()
                };
                secrets.create(&PostParams::default(), &secret).await
            }
        };
        match written {
            Ok(_) => {
                tracing::info!(secret = name, "wrote a new serving certificate");
                Ok(material)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Err(Error::Raced),
            Err(error) => Err(api("writing the serving Secret")(error)),
        }
    }

    /// Creates or repairs the APIService.
    async fn register(&self, material: &Material) -> Result<(), Error> {
        self.refuse_custom_resources().await?;
        let services: Api<APIService> = Api::all(self.client.clone());
        let name = api_service_name();
        let found = services
            .get_opt(&name)
            .await
            .map_err(api("reading the APIService"))?;
        let Some(mut found) = found else {
            let bundle = material.bundle("", self.clock.now());
            let wanted = self.wanted(&bundle);
            return services
                .create(&PostParams::default(), &wanted)
                .await
                .map(|_| ())
                .map_err(api("creating the APIService"));
        };
        self.refuse_foreign(&found)?;
        let present = found.spec.as_ref().and_then(|spec| spec.ca_bundle.as_ref());
        let present = present.map_or(String::new(), |bundle| {
            String::from_utf8_lossy(&bundle.0).into_owned()
        });
        let wanted = self.wanted(&material.bundle(&present, self.clock.now()));
        if found.spec == wanted.spec {
            return Ok(());
        }
        found.spec = wanted.spec;
        services
            .replace(&name, &PostParams::default(), &found)
            .await
            .map(|_| tracing::info!("repaired the APIService"))
            .map_err(api("repairing the APIService"))
    }

    fn wanted(&self, bundle: &str) -> APIService {
        let place = &self.place;
        apiservice::registration::api_service(
            &place.namespace,
            &place.service,
            place.port,
            Some(bundle.as_bytes()),
        )
    }

    /// A CRD of one of our kinds holds objects that we would hide (rule 5).
    async fn refuse_custom_resources(&self) -> Result<(), Error> {
        let crds: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        for resource in apiservice::RESOURCES {
            let name = format!("{}.{}", resource.plural, apiservice::GROUP);
            let found = crds
                .get_metadata_opt(&name)
                .await
                .map_err(api("looking for a CustomResourceDefinition of our group"))?;
            if found.is_some() {
                return Err(Error::Refused(format!(
                    "the CustomResourceDefinition {name} exists; its objects would be hidden by \
                     this server. Remove it, or this server, and nothing is changed until then"
                )));
            }
        }
        Ok(())
    }

    fn refuse_foreign(&self, found: &APIService) -> Result<(), Error> {
        let name = api_service_name();
        let service = found.spec.as_ref().and_then(|spec| spec.service.as_ref());
        let Some(service) = service else {
            return Err(Error::Refused(format!(
                "the APIService {name} is served by kube-apiserver itself, from a \
                 CustomResourceDefinition of group {}",
                apiservice::GROUP
            )));
        };
        if self.leads_to_us(found) {
            return Ok(());
        }
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        Err(Error::Refused(format!(
            "the APIService {name} leads to the Service {}/{}, not to {}/{}; delete it if that \
             installation is gone",
            text(&service.namespace),
            text(&service.name),
            self.place.namespace,
            self.place.service
        )))
    }

    fn leads_to_us(&self, found: &APIService) -> bool {
        let service = found.spec.as_ref().and_then(|spec| spec.service.as_ref());
        service.is_some_and(|service| {
            service.namespace.as_ref() == Some(&self.place.namespace)
                && service.name.as_ref() == Some(&self.place.service)
        })
    }

    /// Deletes the APIService, if it leads to us. `false`: there was nothing of ours.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn unregister(&self) -> Result<bool, Error> {
        let services: Api<APIService> = Api::all(self.client.clone());
        let name = api_service_name();
        let found = services
            .get_opt(&name)
            .await
            .map_err(api("reading the APIService"))?;
        let Some(found) = found.filter(|found| self.leads_to_us(found)) else {
            return Ok(false);
        };
        let this = DeleteParams::default().preconditions(Preconditions {
            uid: found.metadata.uid,
            resource_version: None,
        });
        match services.delete(&name, &this).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(api("deleting the APIService")(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R1.1.
    #[test]
    fn the_name_is_the_one_that_kube_apiserver_demands() {
        assert_eq!(api_service_name(), "v1alpha1.steward.butlerlabs.dev");
    }
}
