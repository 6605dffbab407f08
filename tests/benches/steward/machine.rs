//! What the machine says about itself and about processes on it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::failure::{Doing, Failure, Result};
use crate::report::{Values, milliseconds};

/// Share of processor time that was used during `window`, from 0 to 1.
pub async fn busy(window: Duration) -> f64 {
    let before = times();
    tokio::time::sleep(window).await;
    let after = times();
    let (used, all) = (
        after.0.saturating_sub(before.0),
        after.1.saturating_sub(before.1),
    );
    if all == 0 {
        0.0
    } else {
        used as f64 / all as f64
    }
}

/// Waits until the machine is quiet, at most `patience`. Returns how busy it
/// was in the last half second.
pub async fn settle(patience: Duration) -> f64 {
    const QUIET: f64 = 0.15;
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let busy = busy(Duration::from_millis(500)).await;
        if busy < QUIET || tokio::time::Instant::now() >= deadline {
            return busy;
        }
    }
}

/// Used and all processor time in ticks, of all processors.
fn times() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    // user nice system idle iowait irq softirq steal; guest times are in user.
    let fields: Vec<u64> = first
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|it| it.parse().ok())
        .collect();
    let all: u64 = fields.iter().sum();
    let idle: u64 = fields.iter().skip(3).take(2).sum();
    (all - idle, all)
}

/// Resident memory of a process in MiB.
pub fn resident(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).doing(|| format!("read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kib.map(|kib| kib / 1024.0)
        .ok_or_else(|| Failure::Said(format!("{path} has no VmRSS")))
}

/// Time since boot, to 10 ms.
pub fn since_boot() -> Duration {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text
        .split_whitespace()
        .next()
        .and_then(|it| it.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(0.0))
}

/// The processes of a pod: each one's program and its start, since boot, to
/// 10 ms.
pub fn processes_of_pod(uid: &str) -> Vec<(String, Duration)> {
    // Control groups made by systemd write the uid with underscores.
    let names = [format!("pod{uid}"), format!("pod{}", uid.replace('-', "_"))];
    let pids = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let of_pod = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .is_ok_and(|groups| names.iter().any(|name| groups.contains(name)))
    };
    let mut found: Vec<_> = pids
        .filter(of_pod)
        .filter_map(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let first = command.split(|byte| *byte == 0).next()?;
            let program = String::from_utf8_lossy(first);
            let program = program.rsplit('/').next()?.to_owned();
            let start = tests::lab::process::ProcessId::of(pid)?.start;
            // The kernel counts in hundredths of a second towards programs.
            Some((program, Duration::from_millis(start * 10)))
        })
        .collect();
    found.sort_by_key(|(_, start)| *start);
    found
}

/// How long a small write takes until it is on the disk of `directory`: the
/// median of fifty, in milliseconds.
pub fn sync_time(directory: &Path) -> Result<f64> {
    let path = directory.join("sync-time");
    let doing = || format!("write {}", path.display());
    let mut file = fs::File::create(&path).doing(doing)?;
    let mut taken = Values::default();
    for _ in 0..50 {
        let began = Instant::now();
        file.write_all(&[0x55; 4096])
            .and_then(|()| file.sync_data())
            .doing(doing)?;
        taken.push(milliseconds(began.elapsed()));
    }
    fs::remove_file(&path).doing(doing)?;
    Ok(taken.percentile(50.0))
}

/// Processors, memory and kernel in one line.
pub fn describe() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim())
        .to_owned();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let meminfo = read("/proc/meminfo");
    let kib = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = kib.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{processors} processors ({model}), {:.0} GiB, Linux {}",
        kib.unwrap_or(0.0) / 1024.0 / 1024.0,
        kernel.trim()
    )
}
