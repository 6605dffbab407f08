//! The images of Kubernetes' own tests, under the names that these ask for, whatever
//! their tags: programs of Kubernetes' module, and of the distribution's packages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::archive::{self, Content, Image, Layer};
use super::super::command::run;
use super::super::directories::Directories;
use super::super::error::{Doing, Error, Result};
use super::super::packages::{self, Packages};
use super::super::programs::conformance::{
    AGNHOST, ALL, E2E, NO_NEW_PRIVILEGES, SAMPLE_API_SERVER,
};
use super::super::programs::{ETCD, key};
use super::of_machine;

/// Programs of the distribution in agnhost's image, and what brings them. `nc` is
/// OpenBSD's there, with options that busybox has not.
const TOOLS: [(&str, &str); 5] = [
    ("curl", "curl"),
    ("dig", "bind9-dnsutils"),
    ("getent", "libc-bin"),
    ("nc.openbsd", "netcat-openbsd"),
    ("ss", "iproute2"),
];

/// The shell of all images. busybox's takes its own programs for what is called by their
/// names, and forgets variables whose names it could not write, which tests set.
const BASH: (&str, &str) = ("bash", "bash");

const NGINX: (&str, &str) = ("nginx", "nginx");

/// Where the image of nginx's makers has its pages; tests move them away.
const NGINX_PAGES: &str = "/usr/share/nginx/html";

const NGINX_CONFIGURATION: &str = "daemon off;
pid /tmp/nginx.pid;
error_log /dev/stderr notice;
events {}
http {
    access_log /dev/stdout;
    client_body_temp_path /tmp/client_body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    server {
        listen 80;
        root /usr/share/nginx/html;
    }
}
";

const NGINX_PAGE: &str = "<html><head><title>Welcome to nginx!</title></head>\
    <body><h1>Welcome to nginx!</h1></body></html>\n";

/// As in agnhost's image: a test asks for the groups of this user.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/:/sbin/nologin
user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh
";
const GROUPS: &str = "root:x:0:
nogroup:x:65534:
user-defined-in-image:x:1000:
group-defined-in-image:x:50000:user-defined-in-image
";

/// The archive of these images.
pub fn archive(directories: &Directories) -> PathBuf {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let mut parts: Vec<String> = ALL
        .iter()
        .map(|it| it.directory(directories).display().to_string())
        .collect();
    parts.extend([
        ETCD.directory(directories).display().to_string(),
        Packages::of(directories).busybox().display().to_string(),
        release,
        format!("{TOOLS:?} {BASH:?} {NGINX:?}"),
        [NGINX_CONFIGURATION, NGINX_PAGE, PASSWD, GROUPS].concat(),
    ]);
    let key = key(parts.iter().map(String::as_str));
    directories.cache.join(format!("conformance-{key}.tar"))
}

/// Builds the tests and their images unless the cache holds them.
pub fn build(directories: &Directories, say: &mut dyn FnMut(&str)) -> Result<()> {
    for program in ALL {
        program.build(directories, say)?;
    }
    let target = archive(directories);
    if target.is_file() {
        return Ok(());
    }
    say("building the images of Kubernetes' tests");
    let unpacked = Unpacked::fetch(directories)?;
    let layers = layers(directories, &unpacked)?;
    let images = images(directories)?;
    let work = tempfile::Builder::new()
        .prefix(".conformance-")
        .tempdir_in(&directories.cache)
        .doing(|| format!("create a directory in {}", directories.cache.display()))?;
    let whole = work.path().join("images.tar");
    archive::write(&whole, &layers, &images)?;
    super::remove_former(directories, "conformance-");
    std::fs::rename(&whole, &target).doing(|| format!("create {}", target.display()))
}

// What the images are made of, in the order of `layers`.
const SHELL: usize = 0;
const AGNHOST_LAYER: usize = 1;
const KITTEN: usize = 2;
const NAUTILUS: usize = 3;
const NGINX_LAYER: usize = 4;
const NNP: usize = 5;
const SAMPLE: usize = 6;
const ETCD_LAYER: usize = 7;

fn layers(directories: &Directories, unpacked: &Unpacked) -> Result<Vec<Layer>> {
    let sources = AGNHOST.sources()?.join("test/images");
    let copy = |path: PathBuf| Content::Copy(path);
    let mut agnhost = Layer::from([
        (
            "/agnhost".into(),
            copy(AGNHOST.path(directories, "agnhost")),
        ),
        ("/agnhost-2".into(), Content::Link("agnhost".into())),
        ("/uploads".into(), Content::Directory(0o755)),
        ("/usr/bin/nc".into(), Content::Link("nc.openbsd".into())),
    ]);
    for name in ["localhost.crt", "localhost.key"] {
        let source = sources.join("agnhost/porter").join(name);
        agnhost.insert(format!("/{name}"), copy(source));
    }
    for (program, _) in TOOLS {
        unpacked.add(program, &mut agnhost)?;
    }
    let pages = |name: &str| {
        let of = sources.join(name).join("html");
        Layer::from(
            [format!("{name}.jpg"), "data.json".to_owned()]
                .map(|file| (format!("/{file}"), copy(of.join(&file)))),
        )
    };
    let mut nginx = Layer::from([
        (
            "/etc/nginx/nginx.conf".into(),
            Content::Bytes(NGINX_CONFIGURATION.into()),
        ),
        (
            format!("{NGINX_PAGES}/index.html"),
            Content::Bytes(NGINX_PAGE.into()),
        ),
        ("/var/log/nginx".into(), Content::Directory(0o755)),
        ("/var/lib/nginx".into(), Content::Directory(0o755)),
    ]);
    unpacked.add(NGINX.0, &mut nginx)?;
    let nnp = NO_NEW_PRIVILEGES.path(directories, "nonewprivs");
    let sample = SAMPLE_API_SERVER.path(directories, "sample-apiserver");
    let etcd = super::programs(&ETCD.path(directories, "etcd"), &["etcdctl"]);
    Ok(vec![
        shell(directories, unpacked)?,
        agnhost,
        pages("kitten"),
        pages("nautilus"),
        nginx,
        Layer::from([("/usr/local/bin/nnp".into(), Content::AsOwner(nnp))]),
        Layer::from([("/sample-apiserver".into(), copy(sample))]),
        etcd,
    ])
}

/// bash, busybox by all its names, and users.
fn shell(directories: &Directories, unpacked: &Unpacked) -> Result<Layer> {
    let busybox = Packages::of(directories).busybox();
    let names = run(Command::new(&busybox).arg("--list"))?;
    let mut layer = Layer::from([
        ("/bin/busybox".into(), Content::Copy(busybox)),
        ("/tmp".into(), Content::Directory(0o1777)),
        ("/root".into(), Content::Directory(0o700)),
        (
            "/home/user-defined-in-image".into(),
            Content::Directory(0o755),
        ),
        ("/etc/passwd".into(), Content::Bytes(PASSWD.into())),
        ("/etc/group".into(), Content::Bytes(GROUPS.into())),
        (
            "/etc/nsswitch.conf".into(),
            Content::Bytes(b"passwd: files\ngroup: files\nhosts: files dns\n".to_vec()),
        ),
    ]);
    for name in names.lines().filter(|name| *name != "busybox") {
        layer.insert(format!("/bin/{name}"), Content::Link("busybox".into()));
    }
    unpacked.add(BASH.0, &mut layer)?;
    for name in ["sh", "bash"] {
        layer.insert(
            format!("/bin/{name}"),
            Content::Link("/usr/bin/bash".into()),
        );
    }
    Ok(layer)
}

/// Those that can be made here, under all names by which the tests know them.
fn images(directories: &Directories) -> Result<Vec<Image>> {
    let listed = run(Command::new(E2E.path(directories, "e2e.test")).arg("--list-images"))?;
    let mut references: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for reference in listed.lines().map(str::trim) {
        let Some((path, _tag)) = reference.rsplit_once(':') else {
            continue;
        };
        // What the node's archive has stays so.
        if path.starts_with("registry.k8s.io/") {
            let name = path.rsplit('/').next().unwrap_or_default();
            references.entry(name).or_default().push(reference.into());
        }
    }
    let words = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let mut made = Vec::new();
    let mut add = |name: &str, layers: &[usize], entrypoint: &[&str], command: &[&str]| {
        let Some(references) = references.remove(name) else {
            return Err(Error::Refused(format!(
                "Kubernetes' tests name no image {name} any more"
            )));
        };
        made.push(Image {
            references,
            layers: layers.to_vec(),
            entrypoint: words(entrypoint),
            command: words(command),
            user: match name {
                "nonroot" => "1234".to_owned(),
                _ => String::new(),
            },
            ..Image::default()
        });
        Ok(())
    };
    let base = [SHELL, AGNHOST_LAYER];
    add("agnhost", &base, &["/agnhost"], &["pause"])?;
    for (name, pages) in [("kitten", KITTEN), ("nautilus", NAUTILUS)] {
        let layers = [SHELL, AGNHOST_LAYER, pages];
        add(name, &layers, &["/agnhost"], &["test-webserver"])?;
    }
    add("busybox", &[SHELL], &[], &["sh"])?;
    add("nonroot", &[SHELL], &[], &["sh"])?;
    add("nginx", &[SHELL, NGINX_LAYER], &[], &["nginx"])?;
    add("nonewprivs", &[SHELL, NNP], &[], &["nnp"])?;
    add("sample-apiserver", &[SAMPLE], &["/sample-apiserver"], &[])?;
    add("etcd", &[SHELL, ETCD_LAYER], &[], &["/usr/local/bin/etcd"])?;
    // Only its dig is used, which agnhost's has.
    add("glibc-dns-testing", &base, &[], &["sh"])?;
    Ok(made)
}

/// Packages that this machine lacks, unpacked; gone with the value.
struct Unpacked {
    work: tempfile::TempDir,
}

impl Unpacked {
    fn fetch(directories: &Directories) -> Result<Self> {
        let wanted = TOOLS
            .iter()
            .chain([&BASH, &NGINX])
            .map(|(_, package)| *package);
        let missing = packages::missing(&wanted.collect::<Vec<_>>(), directories)?;
        let missing: Vec<&str> = missing.iter().map(String::as_str).collect();
        let work = packages::unpack(&missing, directories)?;
        Ok(Self { work })
    }

    fn root(&self) -> PathBuf {
        self.work.path().join("root")
    }

    /// Adds a program with its libraries, where packages have them.
    fn add(&self, program: &str, layer: &mut Layer) -> Result<()> {
        let root = self.root();
        let found = ["usr/bin", "usr/sbin", "bin", "sbin"]
            .iter()
            .map(|directory| root.join(directory).join(program))
            .find(|path| path.is_file());
        let path = match found {
            Some(path) => path,
            None => of_machine(program)?,
        };
        for library in archive::libraries_from(&path, &self.library_directories())? {
            let place = Path::new("/").join(library.strip_prefix(&root).unwrap_or(&library));
            // Links of the machine may be between, such as /lib.
            layer.insert(place.display().to_string(), Content::Copy(library));
        }
        layer.insert(format!("/usr/bin/{program}"), Content::Copy(path));
        Ok(())
    }

    fn library_directories(&self) -> Vec<PathBuf> {
        ["usr/lib", "lib"]
            .iter()
            .flat_map(|name| std::fs::read_dir(self.root().join(name)))
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().ends_with("-linux-gnu"))
            .collect()
    }
}
