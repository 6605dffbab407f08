//! Where the collector is, and a connection to it that is made when it is needed.
//!
//! As by Kubernetes the connection has no TLS: a collector is meant to be on the same machine,
//! or behind what the cluster protects its network with.

use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::config::{self, Configuration};

/// From the beginning of a connection to its end.
const CONNECT: Duration = Duration::from_secs(5);
/// gRPC's port where none is said.
const PORT: u16 = 443;
/// Asked for over a socket of this machine, which has no name.
const LOCAL: &str = "http://localhost";

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `http://HOST:PORT`.
    Url(String),
    Unix(String),
    Abstract(String),
}

/// What an endpoint means (gRPC's naming).
///
/// # Errors
/// What is wrong with it.
pub(crate) fn place(endpoint: &str) -> Result<Place, String> {
    let (scheme, rest) = config::scheme(endpoint)?;
    match scheme {
        "unix" if rest.starts_with('/') => Ok(Place::Unix(rest.to_owned())),
        "unix" => Err("a socket is named by its whole path, unix:///PATH".to_owned()),
        "unix-abstract" => Ok(Place::Abstract(rest.trim_start_matches('/').to_owned())),
        _ => url(match endpoint.contains("//") {
            true => match rest.split_once('/') {
                Some(("", name)) => name,
                _ => return Err("a DNS server cannot be chosen: say dns:///HOST:PORT".to_owned()),
            },
            false => rest,
        }),
    }
}

fn url(name: &str) -> Result<Place, String> {
    let authority: http::uri::Authority = name.parse().map_err(|_| "it is not HOST:PORT")?;
    let plain = !name.contains('@') && !authority.host().is_empty();
    match (plain, authority.port_u16()) {
        (true, Some(port)) => Ok(Place::Url(format!("http://{}:{port}", authority.host()))),
        (true, None) if authority.host() == name => {
            Ok(Place::Url(format!("http://{}:{PORT}", authority.host())))
        }
        _ => Err("it is not HOST:PORT".to_owned()),
    }
}

/// A connection to where the configuration says. Made with the first call, and anew after it
/// is lost.
pub(crate) fn channel(config: &Configuration) -> Result<Channel, crate::Error> {
    let invalid = |why: &dyn std::fmt::Display| crate::Error::Invalid(format!("endpoint: {why}"));
    let place = place(config.endpoint()).map_err(|why| invalid(&why))?;
    let url = match &place {
        Place::Url(url) => url.as_str(),
        _ => LOCAL,
    };
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|why| invalid(&why))?;
    let endpoint = endpoint.connect_timeout(CONNECT);
    Ok(match place {
        Place::Url(_) => endpoint.connect_lazy(),
        place => endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
            let socket = socket(place.clone());
            async { Ok::<_, io::Error>(TokioIo::new(socket.await?)) }
        })),
    })
}

/// A socket of this machine, which answers at once or not at all: where so many wait for the
/// collector already that there is no room for one more, that is an error, and nobody waits.
async fn socket(place: Place) -> io::Result<UnixStream> {
    let path = match place {
        // So does the kernel tell a name from a path.
        Place::Abstract(name) => format!("\0{name}"),
        Place::Unix(path) | Place::Url(path) => path,
    };
    UnixStream::connect(path).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R9.13: the endpoints that Kubernetes takes.
    #[test]
    fn endpoints_are_those_of_grpc() {
        let url = |text: &str| Ok(Place::Url(text.to_owned()));
        assert_eq!(place("localhost:4317"), url("http://localhost:4317"));
        assert_eq!(place("dns:///a.b:1"), url("http://a.b:1"));
        assert_eq!(place("[::1]:4317"), url("http://[::1]:4317"));
        assert_eq!(place("a.b"), url("http://a.b:443"));
        assert_eq!(place("unix:///a/b"), Ok(Place::Unix("/a/b".to_owned())));
        let name = Ok(Place::Abstract("a".to_owned()));
        assert_eq!(place("unix-abstract:///a"), name);
        for wrong in [
            "http://a:1",
            "//a",
            "unix://a",
            "dns://8.8.8.8/a:1",
            "a:b",
            "me:you@a:1",
            "a:99999",
            "",
            "a b:1",
        ] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_socket_is_found_by_its_path_and_by_its_name() {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixListener};

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let path = path.to_str().unwrap().to_owned();
        assert!(socket(Place::Unix(path.clone())).await.is_ok());
        // Whose name is no path: it is nobody else's.
        let name = SocketAddr::from_abstract_name(&path).unwrap();
        assert!(socket(Place::Abstract(path.clone())).await.is_err());
        let _named = UnixListener::bind_addr(&name).unwrap();
        assert!(socket(Place::Abstract(path)).await.is_ok());
    }
}
