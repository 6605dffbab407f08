//! The images that the node needs, and images of servers under test.
//!
//! There is no registry: images are built from executables, as archives with
//! one layer, and loaded under the names that manifests ask for.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::archive::{self, Content, Image, Layer};
use super::command::run;
use super::directories::{self, Directories, RunDirectory};
use super::error::{Doing, Error, Result};
use super::go;
use super::packages::Packages;
use super::programs::{COREDNS, ETCD, KINE, KONNECTIVITY, KUBERNETES, key};

pub mod conformance;

/// The image in which every pod's namespaces live.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10.2";
/// A shell and its tools, for pods of tests.
pub const BUSYBOX: &str = "docker.io/library/busybox:1.35";

/// Waits for a signal to end, and collects the orphans of a shared process
/// namespace.
const PAUSE_SOURCE: &str = r#"
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int signal) { _exit(signal == SIGTERM || signal == SIGINT ? 0 : 1); }
static void collect(int signal) { (void)signal; while (waitpid(-1, 0, WNOHANG) > 0) {} }

int main(void) {
    struct sigaction action = {0};
    action.sa_handler = end;
    sigaction(SIGTERM, &action, 0);
    sigaction(SIGINT, &action, 0);
    action.sa_handler = collect;
    action.sa_flags = SA_NOCLDSTOP;
    sigaction(SIGCHLD, &action, 0);
    for (;;) pause();
}
"#;

const KUBERNETES_IMAGES: [&str; 4] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
];

/// CoreDNS under the name that kubeadm 1.36 writes into a tenant. The lab has a
/// later one, which reads the same configuration.
const COREDNS_OF_KUBEADM: &str = "registry.k8s.io/coredns/coredns:v1.14.2";

/// What kube-proxy calls, and by which names.
const PROXY_TOOLS: [(&str, &[&str]); 2] = [
    ("nft", &[]),
    (
        "xtables-nft-multi",
        &[
            "iptables",
            "iptables-restore",
            "iptables-save",
            "ip6tables",
            "ip6tables-restore",
            "ip6tables-save",
        ],
    ),
];

const BUSYBOX_NAMES: [&str; 19] = [
    "cat", "date", "echo", "env", "head", "httpd", "id", "ls", "nc", "nslookup", "ping", "sh",
    "sleep", "stat", "tail", "timeout", "touch", "true", "wget",
];

/// The archive of the node's images.
pub(crate) fn node_archive(directories: &Directories) -> PathBuf {
    let parts = [
        KUBERNETES.directory(directories).display().to_string(),
        ETCD.directory(directories).display().to_string(),
        COREDNS.directory(directories).display().to_string(),
        KONNECTIVITY.directory(directories).display().to_string(),
        Packages::of(directories).busybox().display().to_string(),
        PAUSE_SOURCE.to_owned(),
        PAUSE.to_owned(),
        BUSYBOX.to_owned(),
        BUSYBOX_NAMES.join(" "),
        COREDNS_OF_KUBEADM.to_owned(),
        format!("{PROXY_TOOLS:?}"),
        go::environment().join(" "),
    ];
    let key = key(parts.iter().map(String::as_str));
    directories.cache.join(format!("images-{key}.tar"))
}

/// Builds the node's images unless the cache holds them.
pub fn build_for_node(directories: &Directories, say: &mut dyn FnMut(&str)) -> Result<()> {
    let target = node_archive(directories);
    if target.is_file() {
        return Ok(());
    }
    say("building the images of the node");
    let work = tempfile::Builder::new()
        .prefix(".images-")
        .tempdir_in(&directories.cache)
        .doing(|| format!("create a directory in {}", directories.cache.display()))?;

    let pause = work.path().join("pause");
    let source = work.path().join("pause.c");
    directories::write(&source, PAUSE_SOURCE)?;
    run(Command::new("cc")
        .args(["-static", "-Os", "-s", "-o"])
        .arg(&pause)
        .arg(&source))?;

    let mut kubernetes = programs(
        &KUBERNETES.path(directories, "kubernetes"),
        &KUBERNETES_IMAGES,
    );
    kubernetes.insert("/tmp".into(), Content::Directory(0o1777));
    let etcd = programs(&ETCD.path(directories, "etcd"), &["etcdctl"]);
    let mut busybox = Layer::from([
        (
            "/bin/busybox".into(),
            Content::Copy(Packages::of(directories).busybox()),
        ),
        ("/tmp".into(), Content::Directory(0o1777)),
    ]);
    for name in BUSYBOX_NAMES {
        busybox.insert(format!("/bin/{name}"), Content::Link("busybox".into()));
    }
    let konnectivity = ends_of_tunnel(directories);
    let layers = [
        kubernetes,
        etcd,
        Layer::from([(
            "/coredns".into(),
            Content::Copy(COREDNS.path(directories, "coredns")),
        )]),
        Layer::from([("/pause".into(), Content::Copy(pause))]),
        busybox,
        konnectivity,
        proxy_tools()?,
    ];

    let image = |reference: String, layer: usize, entrypoint: &str| Image {
        references: vec![reference],
        layers: vec![layer],
        entrypoint: vec![entrypoint.to_owned()],
        environment: go::environment(),
        ..Image::default()
    };
    let version = KUBERNETES.version();
    let mut images: Vec<Image> = KUBERNETES_IMAGES
        .iter()
        .map(|name| {
            image(
                format!("registry.k8s.io/{name}:{version}"),
                0,
                &format!("/usr/local/bin/{name}"),
            )
        })
        .collect();
    // As a DaemonSet it has nothing of the host's but the network.
    for proxy in images.iter_mut().filter(|it| is_proxy(it)) {
        proxy.layers.push(layers.len() - 1);
    }
    let etcd = ETCD.version().trim_start_matches('v');
    images.extend([
        image(
            format!("registry.k8s.io/etcd:{etcd}-0"),
            1,
            "/usr/local/bin/etcd",
        ),
        Image {
            references: vec![
                format!("registry.k8s.io/coredns/coredns:{}", COREDNS.version()),
                COREDNS_OF_KUBEADM.to_owned(),
            ],
            layers: vec![2],
            entrypoint: vec!["/coredns".to_owned()],
            environment: go::environment(),
            ..Image::default()
        },
        image(PAUSE.to_owned(), 3, "/pause"),
        image(BUSYBOX.to_owned(), 4, "/bin/sh"),
    ]);
    images.extend(KONNECTIVITY.links.iter().map(|end| {
        let version = KONNECTIVITY.version();
        let reference = format!("registry.k8s.io/kas-network-proxy/{end}:{version}");
        image(reference, 5, &format!("/{end}"))
    }));
    let archive = work.path().join("images.tar");
    archive::write(&archive, &layers, &images)?;
    remove_former(directories, "images-");
    std::fs::rename(&archive, &target).doing(|| format!("create {}", target.display()))
}

/// Former archives are large, and made again in a second.
fn remove_former(directories: &Directories, prefix: &str) {
    for old in std::fs::read_dir(&directories.cache)
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = old.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) && name.ends_with(".tar") {
            let _ = std::fs::remove_file(old.path());
        }
    }
}

/// Both ends of the tunnel, where their images have them.
fn ends_of_tunnel(directories: &Directories) -> Layer {
    let program = KONNECTIVITY.path(directories, KONNECTIVITY.name);
    let path = format!("/{}", KONNECTIVITY.name);
    let mut layer = Layer::from([(path, Content::Copy(program))]);
    for end in KONNECTIVITY.links {
        let link = Content::Link(KONNECTIVITY.name.to_owned());
        layer.insert(format!("/{end}"), link);
    }
    layer
}

/// The image of kine under the name that a Steward asks for that was told of no other.
///
/// # Errors
/// kine is not built yet (`lab build --databases`).
pub fn build_kine(directories: &Directories, archive: &Path) -> Result<()> {
    let program = KINE.path(directories, KINE.name);
    if !program.is_file() {
        return Err(Error::Refused(
            "there is no kine to test with; run: make lab-build".into(),
        ));
    }
    let recipe = Recipe {
        references: vec![format!("docker.io/rancher/kine:{}", KINE.version())],
        entrypoint: vec!["/bin/kine".to_owned()],
        user: String::new(),
        files: vec![(program, "/bin/kine".to_owned())],
        environment: go::environment(),
    };
    build(&recipe, archive)
}

fn is_proxy(image: &Image) -> bool {
    image
        .entrypoint
        .iter()
        .any(|it| it.ends_with("/kube-proxy"))
}

/// nft and iptables of this machine, with what they load.
fn proxy_tools() -> Result<Layer> {
    let mut layer = Layer::new();
    for (tool, links) in PROXY_TOOLS {
        let program = of_machine(tool)?;
        let mut needed = archive::libraries(&program)?;
        for file in matches(&needed) {
            needed.extend(archive::libraries(&file)?);
            needed.push(file);
        }
        for file in needed {
            layer.insert(file.display().to_string(), Content::Copy(file));
        }
        layer.insert(format!("/usr/sbin/{tool}"), Content::Copy(program));
        for link in links {
            layer.insert(format!("/usr/sbin/{link}"), Content::Link(tool.to_owned()));
        }
    }
    Ok(layer)
}

/// The matches and targets of iptables. It loads them from beside its library, by
/// the path that no link leads to.
fn matches(libraries: &[PathBuf]) -> Vec<PathBuf> {
    let own = libraries.iter().find(|library| {
        let name = library.file_name().unwrap_or_default();
        name.as_encoded_bytes().starts_with(b"libxtables.so")
    });
    let directory = own
        .and_then(|library| library.parent())
        .and_then(|directory| std::fs::canonicalize(directory).ok());
    let files = directory.and_then(|it| std::fs::read_dir(it.join("xtables")).ok());
    let files = files.into_iter().flatten().flatten();
    files.map(|file| file.path()).collect()
}

/// A system program of this machine.
fn of_machine(name: &str) -> Result<PathBuf> {
    ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"]
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error::Refused(format!(
                "{name} is missing: `lab preflight` says what brings it"
            ))
        })
}

/// A program in /usr/local/bin with links to it.
fn programs(program: &Path, links: &[&str]) -> Layer {
    let name = program
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut layer = Layer::from([(
        format!("/usr/local/bin/{name}"),
        Content::Copy(program.to_owned()),
    )]);
    for link in links {
        layer.insert(
            format!("/usr/local/bin/{link}"),
            Content::Link(name.clone()),
        );
    }
    layer
}

/// Loads the node's images.
pub fn load_for_node(directories: &Directories, directory: &RunDirectory) -> Result<()> {
    load(directories, directory, &node_archive(directories))
}

/// What loads an archive into the containerd behind a socket.
pub(crate) fn import(directories: &Directories, socket: &Path, archive: &Path) -> [OsString; 8] {
    let ctr = Packages::of(directories).ctr();
    let socket = socket.as_os_str();
    [
        ctr.as_os_str(),
        "--address".as_ref(),
        socket,
        "--namespace".as_ref(),
        "k8s.io".as_ref(),
        "images".as_ref(),
        "import".as_ref(),
        archive.as_os_str(),
    ]
    .map(OsStr::to_owned)
}

/// Loads an archive of images into the node's containerd.
pub fn load(directories: &Directories, directory: &RunDirectory, archive: &Path) -> Result<()> {
    let [ctr, arguments @ ..] = import(directories, &directory.containerd_socket(), archive);
    run(Command::new(ctr).args(arguments)).map(drop)
}

/// An image of programs of ours.
pub struct Recipe {
    /// Its names, with tags.
    pub references: Vec<String>,
    /// What it runs.
    pub entrypoint: Vec<String>,
    /// `UID` or `UID:GID`; the user exists in the image's /etc/passwd.
    pub user: String,
    /// Files of the machine and their absolute paths in the image. A program
    /// brings the shared libraries that it asks for.
    pub files: Vec<(PathBuf, String)>,
    /// `NAME=VALUE`
    pub environment: Vec<String>,
}

/// Builds an image that holds the given files, their libraries, certificates
/// of public authorities, an empty /tmp and the user, and nothing else.
pub fn build(recipe: &Recipe, archive: &Path) -> Result<()> {
    let mut layer = Layer::from([("/tmp".into(), Content::Directory(0o1777))]);
    for (source, target) in &recipe.files {
        if !target.starts_with('/') {
            return Err(Error::Refused(format!(
                "{target} is not an absolute path in the image"
            )));
        }
        for library in archive::libraries(source)? {
            layer.insert(
                library.display().to_string(),
                Content::Copy(library.clone()),
            );
        }
        layer.insert(target.clone(), Content::Copy(source.clone()));
    }
    let (user, group) = recipe
        .user
        .split_once(':')
        .unwrap_or((&recipe.user, &recipe.user));
    let numeric = |text: &str| text.parse::<u32>().is_ok();
    let acceptable = recipe.user.is_empty() || (numeric(user) && numeric(group));
    if !acceptable {
        return Err(Error::Refused(format!(
            "user {:?} is not numeric: a pod with runAsNonRoot needs a number",
            recipe.user
        )));
    }
    let mut passwd = "root:x:0:0:root:/:/sbin/nologin\n".to_owned();
    let mut groups = "root:x:0:\n".to_owned();
    if !matches!(user, "" | "0") {
        passwd.push_str(&format!(
            "nonroot:x:{user}:{group}:nonroot:/tmp:/sbin/nologin\n"
        ));
        groups.push_str(&format!("nonroot:x:{group}:\n"));
    }
    layer.insert("/etc/passwd".into(), Content::Bytes(passwd.into_bytes()));
    layer.insert("/etc/group".into(), Content::Bytes(groups.into_bytes()));
    layer.insert(
        "/etc/nsswitch.conf".into(),
        Content::Bytes(b"hosts: files dns\n".to_vec()),
    );
    let authorities = Path::new("/etc/ssl/certs/ca-certificates.crt");
    if authorities.exists() {
        layer.insert(
            authorities.display().to_string(),
            Content::Copy(authorities.to_owned()),
        );
    }
    let image = Image {
        references: recipe.references.clone(),
        layers: vec![0],
        entrypoint: recipe.entrypoint.clone(),
        user: recipe.user.clone(),
        environment: recipe.environment.clone(),
        ..Image::default()
    };
    archive::write(archive, &[layer], &[image])
}
