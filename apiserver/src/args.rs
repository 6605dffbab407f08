//! Flags. The only place that reads the environment.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use kube::client::ClientBuilder;

use crate::audit;
use crate::kubeconfig;
use crate::quota::Bounds;
use crate::stored::MAX_STORED;

/// The longest delay of the end, in seconds (R9.7).
pub const MAX_SHUTDOWN_DELAY: u64 = 20;

/// Steward's API server: serves steward.butlerlabs.dev behind the aggregation layer.
#[derive(Clone, Debug, Parser)]
#[command(name = "steward-apiserver", version, about)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Namespace of this server: its Service and its two Secrets live there.
    #[arg(
        long,
        env = "POD_NAMESPACE",
        default_value = "steward-system",
        global = true
    )]
    pub namespace: String,
    /// The only namespaces in which tenants may be created, separated by commas; empty:
    /// any.
    #[arg(long, value_delimiter = ',')]
    pub tenant_namespaces: Vec<String>,
    /// Service that leads to this server.
    #[arg(long, default_value = "steward-apiserver", global = true)]
    pub service_name: String,
    /// Port of that Service.
    #[arg(long, default_value_t = 443)]
    pub service_port: u16,
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Port to listen on, with TLS. 0 takes a free one.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Directory of the embedded database. One process at a time may use it.
    #[arg(long, default_value = "/var/lib/steward")]
    pub data_dir: PathBuf,
    /// Kubeconfig of the cluster; without it, the pod's ServiceAccount.
    #[arg(long, env = "KUBECONFIG", global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Secret with the serving certificate and its authority.
    #[arg(long, default_value = "steward-apiserver-serving")]
    pub serving_secret: String,
    /// Secret with the identity of the database and the floor of its revision.
    #[arg(long, default_value = "steward-apiserver-store")]
    pub store_secret: String,
    /// Do not create or repair the APIService: somebody else registers this server.
    #[arg(long)]
    pub skip_registration: bool,
    /// Read-only requests served at once; watches count until they start.
    #[arg(long, default_value_t = 400)]
    pub max_requests_inflight: usize,
    /// Mutating requests served at once.
    #[arg(long, default_value_t = 200)]
    pub max_mutating_requests_inflight: usize,
    /// Open connections. One source address has at most an eighth of them; the front
    /// proxy's are not counted.
    #[arg(long, default_value_t = 1000)]
    pub max_connections: usize,
    /// Objects that are stored at most. Creations beyond it are refused as by a
    /// ResourceQuota; so with the next three.
    #[arg(long, default_value_t = Bounds::default().objects)]
    pub max_objects: u64,
    /// Objects in one namespace.
    #[arg(long, default_value_t = Bounds::default().objects_per_namespace)]
    pub max_objects_per_namespace: u64,
    /// Bytes of all objects. They are held in memory, beside 1,120 MiB that everything else
    /// comes to when all of its bounds are reached.
    #[arg(long, default_value_t = Bounds::default().bytes)]
    pub max_bytes: u64,
    /// Bytes of the objects in one namespace.
    #[arg(long, default_value_t = Bounds::default().bytes_per_namespace)]
    pub max_bytes_per_namespace: u64,
    /// Bytes of one object; at most 1.5 MiB. Larger ones are refused with 413.
    #[arg(long, default_value_t = MAX_STORED as u32, value_parser = clap::value_parser!(u32).range(1024..=MAX_STORED as i64))]
    pub max_object_bytes: u32,
    /// Newest minor version of Kubernetes that tenants may ask for, for example v1.37.
    /// One newer than this build knows is accepted on your word; an older one changes
    /// nothing.
    #[arg(long, default_value_t = apiservice::version::MAX)]
    pub newest_version: apiservice::version::Minor,
    /// HTTP/2 streams of one connection. kube-apiserver sends everything over one.
    #[arg(long, default_value_t = 1000)]
    pub http2_max_streams_per_connection: u32,
    /// Longest life, in seconds, of a minted kubeconfig; at least 600.
    #[arg(long, default_value_t = 86_400, value_parser = clap::value_parser!(u32).range(600..))]
    pub kubeconfig_max_seconds: u32,
    /// Longest life, in seconds, of a token for joining nodes; at least 60.
    #[arg(long, default_value_t = 86_400, value_parser = clap::value_parser!(u32).range(60..))]
    pub join_token_max_seconds: u32,
    /// Seconds between a failing /readyz and the end of accepting connections. With one
    /// replica they only lengthen the gap; with several they make rolls seamless. At most 20,
    /// so that the whole end fits in the chart's terminationGracePeriodSeconds.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX_SHUTDOWN_DELAY))]
    pub shutdown_delay_seconds: u64,
    /// EncryptionConfiguration (apiserver.config.k8s.io/v1) that says how objects are
    /// encrypted on disk; without it they are not.
    #[arg(long)]
    pub encryption_provider_config: Option<PathBuf>,
    /// Take in changes of that file while the server runs.
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    pub encryption_provider_config_automatic_reload: bool,
    /// TracingConfiguration (apiserver.config.k8s.io/v1) that says where spans of requests
    /// go, and of how many; without it there are none. Read once, at start.
    #[arg(long)]
    pub tracing_config_file: Option<PathBuf>,
    /// Name of this replica in them. Default: the pod's name.
    #[arg(long, env = "HOSTNAME", default_value = "steward-apiserver")]
    pub identity: String,
    #[command(flatten)]
    pub audit: audit::args::Args,
    /// Form of the log.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true, help_heading = "Options")]
    pub log_format: LogFormat,
    /// What to log, for example `info,apiserver=debug`.
    #[arg(
        long,
        env = "STEWARD_LOG",
        default_value = "info,kube_client=warn",
        global = true
    )]
    pub log: String,
}

/// What to do instead of serving.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Deletes our APIService, if it still points to our Service. Run it when the
    /// server is uninstalled: a dead APIService freezes the deletion of namespaces.
    Unregister,
}

/// See [`Args::log_format`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Why there is no connection to the cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the kubeconfig cannot be used: {0}")]
    Kubeconfig(#[from] kubeconfig::Error),
    #[error("no --kubeconfig, and not in a pod: {0}")]
    InCluster(#[from] kube::config::InClusterError),
    #[error("the client cannot be made: {0}")]
    Client(#[from] kube::Error),
}

impl Args {
    /// Where to listen.
    pub fn listen(&self) -> SocketAddr {
        SocketAddr::new(self.bind_address, self.secure_port)
    }

    /// The namespaces in which tenants may be created; none: any.
    pub fn tenant_namespaces(&self) -> Vec<String> {
        let names = self.tenant_namespaces.iter();
        names.filter(|name| !name.is_empty()).cloned().collect()
    }

    /// How much may be stored.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            objects: self.max_objects,
            objects_per_namespace: self.max_objects_per_namespace,
            object_bytes: self.max_object_bytes as usize,
            bytes: self.max_bytes,
            bytes_per_namespace: self.max_bytes_per_namespace,
        }
    }

    pub fn shutdown_delay(&self) -> Duration {
        Duration::from_secs(self.shutdown_delay_seconds)
    }

    /// A client of the cluster. Nothing is asked yet.
    ///
    /// # Errors
    /// When the kubeconfig or the ServiceAccount cannot be read.
    pub async fn connect(&self) -> Result<kube::Client, ConnectError> {
        let mut config = match &self.kubeconfig {
            Some(path) => kubeconfig::read(path).await?,
            None => kube::Config::incluster()?,
        };
        config.connect_timeout = Some(Duration::from_secs(5));
        let builder = ClientBuilder::try_from(config)?;
        Ok(builder.with_layer(&telemetry::client::Calls).build())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_parse() {
        use clap::CommandFactory;
        Args::command().debug_assert();
        let args = Args::parse_from(["steward-apiserver", "--secure-port=0", "--namespace=n"]);
        assert_eq!(args.listen().port(), 0);
        let args = Args::parse_from(["steward-apiserver", "unregister", "--namespace=n"]);
        assert!(matches!(args.command, Some(Command::Unregister)));
        assert_eq!(args.namespace, "n");
        let args = Args::parse_from(["x", "--tenant-namespaces=a,b"]);
        assert_eq!(args.tenant_namespaces(), ["a", "b"]);
        let args = Args::parse_from(["x", "--tenant-namespaces="]);
        assert!(args.tenant_namespaces().is_empty());
        assert!(Args::try_parse_from(["x", "--kubeconfig-max-seconds=599"]).is_err());
        assert!(Args::try_parse_from(["x", "--join-token-max-seconds=59"]).is_err());
        assert!(Args::try_parse_from(["x", "--shutdown-delay-seconds=21"]).is_err());
    }
}
