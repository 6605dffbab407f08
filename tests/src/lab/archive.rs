//! Image archives: a tar writer that knows what image layers need, and the
//! layout of `docker save`, which containerd and Docker both load.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::json;

use super::error::{Doing, Error, Result};

/// What stands at one path of a layer.
#[derive(Clone, Debug)]
pub enum Content {
    /// A file of the machine; executable if it is so there.
    Copy(PathBuf),
    /// A program of the machine that runs as its owner, who is root.
    AsOwner(PathBuf),
    /// A file with these bytes.
    Bytes(Vec<u8>),
    /// A symbolic link.
    Link(String),
    /// An empty directory with this mode.
    Directory(u32),
}

/// One layer: absolute paths, parents included on their own.
pub type Layer = BTreeMap<String, Content>;

/// One image of an archive.
#[derive(Default)]
pub struct Image {
    /// Its names, with tags.
    pub references: Vec<String>,
    /// Indices of its layers in the archive's list, the lowest first.
    pub layers: Vec<usize>,
    /// What it runs.
    pub entrypoint: Vec<String>,
    /// Its arguments, unless a container names others.
    pub command: Vec<String>,
    /// `UID`, `UID:GID` or empty for root.
    pub user: String,
    /// Environment beyond `PATH`, as `NAME=VALUE`.
    pub environment: Vec<String>,
}

/// Writes an archive of images. The same input gives the same bytes.
pub fn write(path: &Path, layers: &[Layer], images: &[Image]) -> Result<()> {
    let file = File::create(path).doing(|| format!("create {}", path.display()))?;
    write_to(&mut BufWriter::new(file), layers, images)
        .doing(|| format!("write {}", path.display()))
}

fn write_to(out: &mut impl Write, layers: &[Layer], images: &[Image]) -> io::Result<()> {
    let mut diff_ids = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let size = layer_size(layer)?;
        header(out, &layer_name(index), Kind::File, 0o644, size)?;
        let mut hashed = Hashed {
            inner: &mut *out,
            context: Context::new(&SHA256),
            length: 0,
        };
        write_layer(&mut hashed, layer)?;
        if hashed.length != size {
            return Err(io::Error::other("a file of the layer changed its size"));
        }
        diff_ids.push(hex::encode(hashed.context.finish()));
    }
    let mut manifest = Vec::new();
    for image in images {
        let ids: Vec<&str> = image
            .layers
            .iter()
            .map(|it| diff_ids[*it].as_str())
            .collect();
        let config = config(image, &ids).to_string();
        let name = format!("{}.json", sha256(config.as_bytes()));
        header(out, &name, Kind::File, 0o644, config.len() as u64)?;
        body(out, &mut config.as_bytes())?;
        manifest.push(json!({
            "Config": name,
            "RepoTags": image.references,
            "Layers": image.layers.iter().map(|it| layer_name(*it)).collect::<Vec<_>>(),
        }));
    }
    let manifest = json!(manifest).to_string();
    header(
        out,
        "manifest.json",
        Kind::File,
        0o644,
        manifest.len() as u64,
    )?;
    body(out, &mut manifest.as_bytes())?;
    out.write_all(&END)?;
    out.flush()
}

const EPOCH: &str = "1970-01-01T00:00:00Z";

fn layer_name(index: usize) -> String {
    format!("layer-{index}.tar")
}

fn config(image: &Image, diff_ids: &[&str]) -> serde_json::Value {
    let mut environment =
        vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    environment.extend(image.environment.iter().cloned());
    let ids: Vec<String> = diff_ids.iter().map(|id| format!("sha256:{id}")).collect();
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": image.entrypoint,
            "Cmd": image.command,
            "User": image.user,
            "Env": environment,
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": ids},
        "history": vec![json!({"created": EPOCH, "created_by": "steward-lab"}); diff_ids.len()],
        "created": EPOCH,
    })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&SHA256, bytes))
}

const BLOCK: u64 = 512;
const END: [u8; 1024] = [0; 1024];

enum Kind<'a> {
    File,
    Directory,
    Link(&'a str),
}

/// The entries of a layer in the order in which they are written: each
/// directory before what it holds.
fn entries(layer: &Layer) -> Vec<(String, &Content)> {
    static PARENT: Content = Content::Directory(0o755);
    let mut all: BTreeMap<String, &Content> = BTreeMap::new();
    for (path, content) in layer {
        let path = path.trim_matches('/');
        for (slash, _) in path.match_indices('/') {
            all.entry(path[..slash].to_owned()).or_insert(&PARENT);
        }
        all.insert(path.to_owned(), content);
    }
    all.into_iter().collect()
}

fn layer_size(layer: &Layer) -> io::Result<u64> {
    let mut size = END.len() as u64;
    for (_, content) in entries(layer) {
        size += BLOCK + content_size(content)?.div_ceil(BLOCK) * BLOCK;
    }
    Ok(size)
}

fn content_size(content: &Content) -> io::Result<u64> {
    Ok(match content {
        Content::Copy(source) | Content::AsOwner(source) => std::fs::metadata(source)?.len(),
        Content::Bytes(bytes) => bytes.len() as u64,
        Content::Link(_) | Content::Directory(_) => 0,
    })
}

fn write_layer(out: &mut impl Write, layer: &Layer) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for (path, content) in entries(layer) {
        let size = content_size(content)?;
        match content {
            Content::Directory(mode) => {
                header(out, &format!("{path}/"), Kind::Directory, *mode, 0)?;
            }
            Content::Link(target) => header(out, &path, Kind::Link(target), 0o777, 0)?,
            Content::Bytes(bytes) => {
                header(out, &path, Kind::File, 0o644, size)?;
                body(out, &mut bytes.as_slice())?;
            }
            Content::Copy(source) | Content::AsOwner(source) => {
                let mut file = File::open(source)?;
                let executable = file.metadata()?.permissions().mode() & 0o111 != 0;
                let mode = match content {
                    Content::AsOwner(_) => 0o4755,
                    _ if executable => 0o755,
                    _ => 0o644,
                };
                header(out, &path, Kind::File, mode, size)?;
                body(out, &mut file)?;
            }
        }
    }
    out.write_all(&END)
}

/// One ustar header: root's, from the epoch.
fn header(out: &mut impl Write, path: &str, kind: Kind, mode: u32, size: u64) -> io::Result<()> {
    let mut block = [0_u8; BLOCK as usize];
    let (prefix, name) = split(path)?;
    let mut put = |at: usize, text: &str| {
        block[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    let (flag, target) = match kind {
        Kind::File => ("0", ""),
        Kind::Directory => ("5", ""),
        Kind::Link(target) => ("2", target),
    };
    if target.len() > 100 || size >= 1 << 33 {
        return Err(io::Error::other(format!("{path} does not fit into ustar")));
    }
    put(156, flag);
    put(157, target);
    put(257, "ustar");
    put(263, "00");
    put(345, prefix);
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.write_all(&block)
}

/// Splits a path over ustar's two fields (155 and 100 bytes).
fn split(path: &str) -> io::Result<(&str, &str)> {
    if path.len() <= 100 {
        return Ok(("", path));
    }
    path.match_indices('/')
        .map(|(at, _)| (&path[..at], &path[at + 1..]))
        .find(|(prefix, name)| prefix.len() <= 155 && !name.is_empty() && name.len() <= 100)
        .ok_or_else(|| io::Error::other(format!("{path} is too long for ustar")))
}

fn body(out: &mut impl Write, content: &mut impl Read) -> io::Result<()> {
    let size = io::copy(content, out)?;
    let padding = size.div_ceil(BLOCK) * BLOCK - size;
    out.write_all(&END[..padding as usize])
}

struct Hashed<W> {
    inner: W,
    context: Context,
    length: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.context.update(&bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The shared libraries that a program asks for, by the paths at which it
/// looks for them; none for a static program.
pub fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    libraries_from(program, &[])
}

/// The same for a program whose libraries may be in further directories.
pub(crate) fn libraries_from(program: &Path, directories: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut ldd = std::process::Command::new("ldd");
    if !directories.is_empty() {
        let all =
            std::env::join_paths(directories).map_err(|error| Error::Refused(error.to_string()))?;
        ldd.env("LD_LIBRARY_PATH", all);
    }
    match super::command::run(ldd.arg(program)) {
        Ok(text) => Ok(parse_ldd(&text)),
        Err(Error::Command { output, .. }) if output.contains("not a dynamic executable") => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

fn parse_ldd(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_reads_what_we_write() {
        let work = tempfile::tempdir().unwrap();
        let long = format!("/{}/{}", "d".repeat(90), "f".repeat(90));
        let layer = Layer::from([
            ("/usr/bin/sh".into(), Content::Copy("/bin/sh".into())),
            ("/bin".into(), Content::Link("usr/bin".into())),
            ("/tmp".into(), Content::Directory(0o1777)),
            (long.clone(), Content::Bytes(b"deep".to_vec())),
        ]);
        let mut bytes = Vec::new();
        write_layer(&mut bytes, &layer).unwrap();
        assert_eq!(bytes.len() as u64, layer_size(&layer).unwrap());
        let path = work.path().join("layer.tar");
        std::fs::write(&path, bytes).unwrap();
        let status = std::process::Command::new("tar")
            .arg("-xf")
            .arg(&path)
            .arg("-C")
            .arg(work.path())
            .status()
            .unwrap();
        assert!(status.success());
        let read = |name: &str| std::fs::read(work.path().join(name.trim_start_matches('/')));
        assert_eq!(read(&long).unwrap(), b"deep");
        assert_eq!(read("bin/sh").unwrap(), std::fs::read("/bin/sh").unwrap());
    }

    #[test]
    fn libraries_are_named_by_the_path_that_is_looked_up() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        let paths: Vec<PathBuf> = ["/lib/x/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
            .map(PathBuf::from)
            .to_vec();
        assert_eq!(parse_ldd(text), paths);
    }
}
