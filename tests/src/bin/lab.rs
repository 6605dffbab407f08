//! `lab`: a real management cluster on this machine, for the demo and for
//! work by hand. Tests use the library behind it.
#![allow(
    clippy::disallowed_methods,
    reason = "the lab is its own program: it reads its own settings"
)]

use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tests::lab::databases::beside;
use tests::lab::databases::running::Driver;
use tests::lab::databases::server::Kind;
use tests::lab::directories::Directories;
use tests::lab::error::{Error, Result};
use tests::lab::packages::Packages;
use tests::lab::process::tail;
use tests::lab::record::{self, Lock, Record};
use tests::lab::{self, Lab, Level, Worker, agent, databases, images, preflight, programs};

/// A real management cluster on this machine.
#[derive(Parser)]
#[command(name = "lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Args)]
struct Name {
    /// The run's name: 1 to 10 of a-z and 0-9.
    #[arg(long, default_value = "lab")]
    name: String,
}

#[derive(Subcommand)]
enum Action {
    /// Say what this machine lacks.
    Preflight,
    /// Build and fetch the cluster's programs into the cache.
    Build {
        /// Also what tests of tenants in SQL databases need: PostgreSQL, MariaDB and kine.
        #[arg(long)]
        databases: bool,
        /// Also Kubernetes' own tests of conformance, and the images that they run.
        #[arg(long)]
        conformance: bool,
    },
    /// Start a cluster that stands until `lab down`.
    Up {
        #[command(flatten)]
        name: Name,
        /// What it consists of.
        #[arg(long, value_enum, default_value = "pods")]
        level: Level,
    },
    /// Remove a cluster.
    Down {
        #[command(flatten)]
        name: Name,
    },
    /// Remove what killed runs have left; with --all, every run.
    Sweep {
        /// Also runs that are up.
        #[arg(long)]
        all: bool,
    },
    /// List runs.
    List,
    /// Print the path of the administrator's kubeconfig.
    Kubeconfig {
        #[command(flatten)]
        name: Name,
    },
    /// Print the end of each program's log, or all of one.
    Logs {
        #[command(flatten)]
        name: Name,
        /// The program.
        program: Option<String>,
    },
    /// Run a command in the cluster's network.
    Exec {
        #[command(flatten)]
        name: Name,
        /// The command.
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
    /// Print the path of a program in the cache: kubectl, helm, etcdctl, ...
    Path {
        /// Its name.
        program: String,
    },
    /// Worker hosts: machines that join a control plane in the cluster.
    Worker {
        #[command(flatten)]
        name: Name,
        #[command(subcommand)]
        action: WorkerAction,
    },
    /// Run a database for tenants beside a cluster, and print its DataStore as JSON.
    Database {
        #[command(flatten)]
        name: Name,
        /// Which.
        #[arg(value_enum, ignore_case = true)]
        kind: Database,
    },
    /// Build and load images.
    #[command(subcommand)]
    Image(ImageAction),
    /// Be a database until the end of the run; started by `lab database`.
    #[command(hide = true)]
    ServeDatabase {
        #[arg(long, value_enum, ignore_case = true)]
        kind: Database,
        #[arg(long)]
        address: IpAddr,
        #[arg(long)]
        manifest: PathBuf,
        /// The name of its DataStore.
        #[arg(long)]
        data_store: String,
    },
    /// Tend a run; started with each.
    #[command(hide = true)]
    Agent {
        #[command(flatten)]
        name: Name,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Database {
    #[value(name = "postgresql")]
    PostgreSql,
    /// MariaDB.
    #[value(name = "mysql")]
    MySql,
    #[value(name = "nats")]
    Nats,
}

impl From<Database> for Driver {
    fn from(database: Database) -> Self {
        match database {
            Database::PostgreSql => Driver::Sql(Kind::PostgreSql),
            Database::MySql => Driver::Sql(Kind::MariaDb),
            Database::Nats => Driver::Nats,
        }
    }
}

#[derive(Subcommand)]
enum WorkerAction {
    /// Start a host; it stands until `lab worker down` or the end of the run.
    Up {
        /// 1 to 99.
        number: u8,
    },
    /// Remove a host.
    Down {
        /// Its number.
        number: u8,
    },
    /// Join a control plane: what a `kubeadm token create --print-join-command` printed.
    Join {
        /// Its number.
        number: u8,
        /// `kubeadm join ...`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Leave it: `kubeadm reset`.
    Reset {
        /// Its number.
        number: u8,
    },
    /// Run a command on a host.
    Exec {
        /// Its number.
        number: u8,
        /// The command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Subcommand)]
enum ImageAction {
    /// Build an image of files of this machine and the libraries they need.
    Build {
        /// Name with tag; may be repeated.
        #[arg(long = "ref", required = true)]
        references: Vec<String>,
        /// What it runs; may be repeated for arguments.
        #[arg(long, required = true)]
        entrypoint: Vec<String>,
        /// Numeric user of the process, optionally with `:GROUP`.
        #[arg(long, default_value = "")]
        user: String,
        /// A file: SOURCE=/path/in/the/image; may be repeated.
        #[arg(long = "file", required = true)]
        files: Vec<String>,
        /// Where to write the archive (as of `docker save`).
        #[arg(long)]
        output: Option<PathBuf>,
        /// Load it into this run; may be repeated.
        #[arg(long)]
        load: Vec<String>,
    },
    /// Load an archive into a run.
    Load {
        #[command(flatten)]
        name: Name,
        /// The archive (as of `docker save`).
        archive: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    if let Err(error) = open_up() {
        eprintln!("lab: {error}");
        return ExitCode::FAILURE;
    }
    match run(Arguments::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Begins again with the usual mask for new files, unless it has that: what containers and
/// databases run as must be able to read what root makes for them.
fn open_up() -> std::io::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    if mask.is_none_or(|mask| mask.trim() == "0022") {
        return Ok(());
    }
    let mut again = Command::new("/bin/sh");
    again.args(["-c", r#"umask 022 && exec "$@""#, "lab"]);
    again
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1));
    Err(again.exec())
}

fn say(line: &str) {
    eprintln!("{line}");
}

async fn run(action: Action) -> Result<ExitCode> {
    let directories = Directories::from_environment()?;
    match action {
        Action::Preflight => preflight::check(&directories)?,
        Action::Build {
            databases: too,
            conformance,
        } => {
            lab::build(&directories, Level::Pods, &mut say)?;
            let _lock = directories.lock_cache(&mut say)?;
            programs::HELM.build(&directories, &mut say)?;
            if too {
                databases::fetch(&directories, &mut say)?;
                programs::KINE.build(&directories, &mut say)?;
                programs::NATS.build(&directories, &mut say)?;
            }
            if conformance {
                images::conformance::build(&directories, &mut say)?;
            }
            say(&format!("programs are in {}", directories.cache.display()));
        }
        Action::Up { name, level } => up(&directories, &name.name, level).await?,
        Action::Down { name } => {
            let lock = Lock::take(&directories)?;
            if !directories.run(&name.name).path().exists() {
                say(&format!("no run called {} is up", name.name));
            }
            record::remove(&directories, &lock, &name.name)?;
        }
        Action::Sweep { all } => sweep(&directories, all)?,
        Action::List => {
            for name in record::names(&directories) {
                let record = Record::read(&directories.run(&name));
                let state = match &record {
                    Ok(record) if !record.wanted() => "left by a killed run",
                    Ok(record) if record.ready => "up",
                    Ok(_) => "starting",
                    Err(_) => "unreadable",
                };
                println!(
                    "{name}\t{state}\t{}",
                    directories.run(&name).path().display()
                );
            }
        }
        Action::Kubeconfig { name } => {
            println!(
                "{}",
                existing(&directories, &name.name)?.kubeconfig().display()
            );
        }
        Action::Logs { name, program } => logs(&directories, &name.name, program)?,
        Action::Exec { name, command } => return exec(&directories, &name.name, &command),
        Action::Path { program } => println!("{}", path(&directories, &program)?.display()),
        Action::Worker { name, action } => worker(&name.name, action).await?,
        Action::Database { name, kind } => {
            let lab = Lab::attach(&name.name).await?;
            print!("{}", beside::start(&lab, kind.into(), &mut say)?);
        }
        Action::ServeDatabase {
            kind,
            address,
            manifest,
            data_store,
        } => beside::serve(&directories, kind.into(), address, &manifest, &data_store)?,
        Action::Image(action) => image(&directories, action)?,
        Action::Agent { name } => agent::run(&name.name).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn up(directories: &Directories, name: &str, level: Level) -> Result<()> {
    let started = std::time::Instant::now();
    let interrupted = tokio::signal::ctrl_c();
    let mut progress = say;
    let lab = tokio::select! {
        lab = Lab::start_named(name, level, &mut progress) => lab?,
        _ = interrupted => {
            let lock = Lock::take(directories)?;
            record::remove(directories, &lock, name)?;
            return Err(Error::Refused("interrupted; nothing is left".into()));
        }
    };
    let kubeconfig = lab.kubeconfig();
    lab.leave()?;
    say(&format!(
        "the cluster {name} is up after {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    println!("{}", kubeconfig.display());
    Ok(())
}

fn sweep(directories: &Directories, all: bool) -> Result<()> {
    let lock = Lock::take(directories)?;
    let mut swept = record::sweep(directories, &lock)?;
    if all {
        for name in record::names(directories) {
            record::remove(directories, &lock, &name)?;
            swept.push(name);
        }
    }
    for name in swept {
        println!("removed {name}");
    }
    Ok(())
}

fn existing(
    directories: &Directories,
    name: &str,
) -> Result<tests::lab::directories::RunDirectory> {
    let directory = directories.run(name);
    if directory.record().exists() {
        return Ok(directory);
    }
    Err(Error::Refused(format!(
        "no run called {name} is up (there are: {})",
        record::names(directories).join(", ")
    )))
}

fn logs(directories: &Directories, name: &str, program: Option<String>) -> Result<()> {
    let directory = existing(directories, name)?;
    if let Some(program) = program {
        println!("{}", tail(&directory.log(&program), usize::MAX));
        return Ok(());
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory.logs())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| *path != directory.audit_log())
        .collect();
    files.sort();
    for file in files {
        println!("== {}\n{}\n", file.display(), tail(&file, 10));
    }
    Ok(())
}

fn exec(directories: &Directories, name: &str, command: &[String]) -> Result<ExitCode> {
    let directory = existing(directories, name)?;
    let status = Command::new("nsenter")
        .arg(format!("--net={}", directory.network().display()))
        .arg("--")
        .args(command)
        .stdin(Stdio::inherit())
        .status()
        .map_err(|source| Error::Io {
            action: "run nsenter".into(),
            source,
        })?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

async fn worker(name: &str, action: WorkerAction) -> Result<()> {
    let lab = Lab::attach(name).await?;
    let at = |number| Worker::attach(&lab, number);
    let said = match action {
        WorkerAction::Up { number } => {
            let worker = lab.worker(number).await?;
            let said = format!("{} {}\n", worker.name(), worker.address());
            worker.leave();
            said
        }
        WorkerAction::Down { number } => {
            Worker::of(&lab, number)?.remove()?;
            String::new()
        }
        WorkerAction::Join { number, command } => {
            at(number)?.join_shown(&command.join(" "))?;
            String::new()
        }
        WorkerAction::Reset { number } => at(number)?.reset()?,
        WorkerAction::Exec { number, command } => at(number)?.run(&command)?,
    };
    print!("{said}");
    Ok(())
}

fn path(directories: &Directories, program: &str) -> Result<PathBuf> {
    let packages = Packages::of(directories);
    let built = programs::ALL
        .into_iter()
        .chain([&programs::KINE, &programs::NATS])
        .find(|it| it.name == program || it.links.contains(&program))
        .map(|it| it.path(directories, program));
    let path = match program {
        "ctr" => Some(packages.ctr()),
        "busybox" => Some(packages.busybox()),
        _ => built,
    };
    let path = path.ok_or_else(|| Error::Refused(format!("the lab has no program {program}")))?;
    if path.exists() {
        return Ok(path);
    }
    Err(Error::Refused(format!(
        "{program} is not built yet: `lab build`"
    )))
}

fn image(directories: &Directories, action: ImageAction) -> Result<()> {
    match action {
        ImageAction::Load { name, archive } => {
            images::load(directories, &existing(directories, &name.name)?, &archive)
        }
        ImageAction::Build {
            references,
            entrypoint,
            user,
            files,
            output,
            load,
        } => {
            let files = files
                .iter()
                .map(|file| {
                    file.split_once('=')
                        .map(|(source, target)| (source.into(), target.to_owned()))
                        .ok_or_else(|| Error::Refused(format!("{file:?} is not SOURCE=TARGET")))
                })
                .collect::<Result<_>>()?;
            let recipe = images::Recipe {
                references,
                entrypoint,
                user,
                files,
                environment: Vec::new(),
            };
            let work = tempfile::tempdir().map_err(|source| Error::Io {
                action: "create a temporary directory".into(),
                source,
            })?;
            let archive = output.unwrap_or_else(|| work.path().join("image.tar"));
            images::build(&recipe, &archive)?;
            for name in load {
                images::load(directories, &existing(directories, &name)?, &archive)?;
            }
            Ok(())
        }
    }
}
