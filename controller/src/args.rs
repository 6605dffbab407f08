//! Flags. The only reader of the environment.

use std::net::SocketAddr;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;

use crate::tenant::pki::terms::{self, BadTerms, Terms};

/// Keeps tenant control planes as their manifests say.
#[derive(Debug, Parser)]
#[command(name = "steward-controller", version, about, long_about = None, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// What to do; `run` unless said otherwise.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `run`, accepted without naming it.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What this program does.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Runs the controller until it is told to stop.
    Run(Box<RunArgs>),
    /// Makes an etcd ready for tenants: certificates, authentication, and
    /// the DataStore that names it. Safe to run again at any time.
    SetupEtcd(Box<SetupEtcdArgs>),
    /// Brings tenants and DataStores of another operator here, with their uids. Says what it
    /// would do, and does it with --write.
    Import(Box<ImportArgs>),
}

/// Whose objects are imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Operator {
    /// Group kamaji.clastix.io.
    Kamaji,
    /// The earlier Steward, whose group is ours.
    Steward,
}

/// Flags of `import`.
#[derive(Debug, Clone, ClapArgs)]
pub struct ImportArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// Whose objects.
    #[arg(long, value_enum)]
    pub from: Operator,
    /// NAMESPACE/NAME of that operator's Deployment, which must be scaled to 0 or gone.
    #[arg(long)]
    pub operator: String,
    /// Do it. Without this nothing is written, and everything is checked.
    #[arg(long)]
    pub write: bool,
    /// Remove what is left of the other operator: its objects of all that is Ready here.
    #[arg(long)]
    pub finish: bool,
    /// Only these tenants, as NAMESPACE/NAME, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub tenants: Vec<String>,
    /// Give up fields that this version does not have.
    #[arg(long)]
    pub drop_unknown: bool,
    /// Read the objects from here, a List in JSON (`kubectl get -o json`), and not from the
    /// cluster.
    #[arg(long)]
    pub file: Option<std::path::PathBuf>,
}

/// Lines for people or for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One readable line an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// How to reach the management cluster and what to log.
#[derive(Debug, Clone, ClapArgs)]
pub struct CommonArgs {
    /// Namespace that this program runs in.
    #[arg(long, env = "POD_NAMESPACE", default_value = "steward-system")]
    pub namespace: String,
    /// Kubeconfig of the management cluster. Default: the pod's service
    /// account, else $KUBECONFIG, else ~/.kube/config.
    #[arg(long)]
    pub kubeconfig: Option<std::path::PathBuf>,
    /// Form of the log.
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// TracingConfiguration (apiserver.config.k8s.io/v1) that says where spans go, and of
    /// how much of the work; without it there are none.
    #[arg(long)]
    pub tracing_config_file: Option<std::path::PathBuf>,
    /// What to log, e.g. `info` or `info,controller=debug`. What the client
    /// library says is said again by us, with the object that it is about.
    #[arg(long, env = "RUST_LOG", default_value = "info,kube_client=off")]
    pub log: String,
}

/// For how long certificates are made, and when they are made anew. Authorities
/// live for ten years and are not renewed.
#[derive(Debug, Clone, ClapArgs)]
pub struct CertificateArgs {
    /// For how long certificates are made, in hours or days (8760h, 365d): two
    /// renewal windows at least. None outlives its authority.
    #[arg(long, default_value = "8760h", value_parser = terms::parse)]
    pub certificate_lifetime: SignedDuration,
    /// How long before its end a certificate may be renewed; each tenant has its
    /// own moment in the first quarter of that time. An hour at least.
    #[arg(
        long,
        default_value = "720h",
        value_parser = terms::parse,
        alias = "certificate-expiration-deadline"
    )]
    pub certificate_renewal_window: SignedDuration,
}

impl CertificateArgs {
    /// Both, checked against each other.
    ///
    /// # Errors
    /// With settings under which certificates would be renewed without end.
    pub fn terms(&self) -> Result<Terms, BadTerms> {
        Terms::new(self.certificate_lifetime, self.certificate_renewal_window)
    }
}

/// Flags of `run`.
#[derive(Debug, Clone, ClapArgs)]
pub struct RunArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// Name of this replica in the leader's Lease. Default: the pod's name.
    #[arg(long, env = "HOSTNAME", default_value = "steward-controller")]
    pub identity: String,
    /// Where /livez, /readyz and /metrics are served, in plain HTTP.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Whether to wait for the Lease before writing. Without it there must
    /// be one replica only.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    /// Name of the Lease in the namespace.
    #[arg(long, default_value = "steward-controller")]
    pub lease: String,
    /// DataStore of tenants that name none. Empty: such tenants wait.
    #[arg(long, default_value = "default")]
    pub default_data_store: String,
    /// The only namespaces with tenants, separated by commas; empty: any. All but our
    /// own kinds is then read and written in them alone, so that rights in them are
    /// enough.
    #[arg(long, value_delimiter = ',')]
    pub tenant_namespaces: Vec<String>,
    /// Service account, in the same namespace, of the API server that signs
    /// users' kubeconfigs.
    #[arg(long, default_value = "steward-apiserver")]
    pub apiserver_service_account: String,
    /// Registry of the tenants' images unless their manifest names another.
    #[arg(long, default_value = "registry.k8s.io")]
    pub image_registry: String,
    /// Image of kine, which tenants with a SQL database have in their pods.
    #[arg(long, default_value = crate::tenant::world::KINE_IMAGE)]
    pub kine_image: String,
    /// DNS domain of the management cluster.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    #[command(flatten)]
    pub certificates: CertificateArgs,
    /// Tenants whose pods are rolled at the same time for a reason other than their own
    /// spec (a change of the DataStore, of certificates, a release of Steward); of one
    /// DataStore at most half as many.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rolls_together: u16,
    /// Tenants worked on at the same time; of one DataStore at most a quarter of them.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub workers: u16,
}

/// Flags of `setup-etcd`.
///
/// Steps, each skipped when it was done before:
/// 1. Secrets with the authority, the server's and the root user's certificates;
/// 2. etcd's root user and authentication, as soon as etcd answers;
/// 3. the DataStore, as soon as Steward's API answers.
///
/// Certificates that are due are renewed, and signed anew for other names; the
/// authority stays.
#[derive(Debug, Clone, ClapArgs)]
#[command(verbatim_doc_comment)]
pub struct SetupEtcdArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// Headless Service of the etcd StatefulSet; also its name. The certificate
    /// covers SERVICE-client as well, for a Service in front of the members.
    #[arg(long, default_value = "steward-etcd")]
    pub service: String,
    /// Members, named SERVICE-0 and on.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub members: u16,
    /// Port for clients.
    #[arg(long, default_value_t = 2379)]
    pub port: u16,
    /// DNS domain of the cluster.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Secret for `ca.crt`, `ca.key` and root's `tls.crt`, `tls.key`.
    #[arg(long, default_value = "steward-etcd-certs")]
    pub client_secret: String,
    /// Secret for the server's `ca.crt`, `tls.crt`, `tls.key`.
    #[arg(long, default_value = "steward-etcd-server")]
    pub server_secret: String,
    /// Name of the DataStore to post. Empty: none.
    #[arg(long, default_value = "default")]
    pub data_store: String,
    /// Reach etcd here instead of through the members' DNS names, for a
    /// program outside of the cluster; repeat or separate by commas. Also
    /// what the DataStore then names.
    #[arg(long, value_delimiter = ',')]
    pub endpoints: Vec<String>,
    #[command(flatten)]
    pub certificates: CertificateArgs,
    /// Only renew certificates that are due, and make nothing else: neither an
    /// authority nor a DataStore. For a CronJob.
    #[arg(long)]
    pub renew_only: bool,
    /// Give up after this many seconds; the caller starts it again.
    #[arg(long, default_value_t = 600)]
    pub timeout: u64,
}

impl Args {
    /// The command line of this process. Exits with a usage message when it
    /// is wrong, as command line programs do.
    pub fn from_command_line() -> Self {
        Self::parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn run_is_the_default_command() {
        Args::command().debug_assert();
        let args = Args::parse_from(["steward-controller", "--namespace=ops", "--workers=3"]);
        assert!(args.command.is_none());
        assert_eq!(args.run.common.namespace, "ops");
        assert_eq!(args.run.workers, 3);
        assert!(args.run.tenant_namespaces.is_empty());
        let listed = ["steward-controller", "--tenant-namespaces=a,b"];
        let listed = Args::parse_from(listed);
        assert_eq!(listed.run.tenant_namespaces, ["a", "b"]);
        assert_eq!(
            usize::from(args.run.rolls_together),
            crate::tenant::turns::Limits::default().together
        );
        let args = Args::parse_from(["steward-controller", "run", "--default-data-store="]);
        let Some(Command::Run(run)) = args.command else {
            panic!("run expected")
        };
        assert_eq!(run.default_data_store, "");
        let args = Args::parse_from([
            "steward-controller",
            "setup-etcd",
            "--namespace=x",
            "--endpoints=a:1,b:2",
        ]);
        let Some(Command::SetupEtcd(setup)) = args.command else {
            panic!("setup-etcd expected")
        };
        assert_eq!(setup.endpoints, ["a:1", "b:2"]);
    }

    #[test]
    fn certificates_have_a_lifetime_and_a_window() {
        let terms = |more: &[&str]| {
            let args = ["steward-controller"].iter().chain(more);
            let args = Args::parse_from(args);
            let terms = args.run.certificates.terms();
            terms.map_err(|bad| bad.to_string())
        };
        assert_eq!(terms(&[]), Ok(Terms::default()));
        let hours = SignedDuration::from_hours;
        assert_eq!(
            terms(&[
                "--certificate-lifetime=90d",
                "--certificate-renewal-window=240h"
            ]),
            Ok(Terms::new(hours(90 * 24), hours(240)).unwrap())
        );
        assert_eq!(
            terms(&["--certificate-expiration-deadline=24h"]),
            Ok(Terms::new(hours(8760), hours(24)).unwrap())
        );
        let refused = terms(&["--certificate-lifetime=40d"]).unwrap_err();
        assert!(refused.contains("two windows"), "{refused}");
        let args = ["steward-controller", "--certificate-lifetime=soon"];
        assert!(Args::try_parse_from(args).is_err());
    }
}
