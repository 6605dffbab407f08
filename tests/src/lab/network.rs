//! The network of a run: a namespace of its own, one cable to the machine,
//! no way further.
//!
//! Each run has a /20 of 198.18.0.0/15, which is reserved for tests of
//! network devices and met nowhere else. The machine reaches everything in it
//! through the cable, Service addresses included; what runs inside reaches
//! the machine's end of the cable and nothing else.

use std::net::Ipv4Addr;
use std::process::Command;

use super::command::{command, run, succeeds};
use super::directories::RunDirectory;
use super::error::{Doing, Result};
use super::process::ProcessId;

/// How many runs can stand side by side on one machine.
pub const SLOTS: u8 = 32;

/// How many worker hosts a run can have.
pub const WORKERS: u8 = 99;

/// Pod addresses of tenants, as Steward gives them unless it is told otherwise.
/// They are the tenants' own, the same in every run.
pub const TENANT_PODS: &str = "10.244.0.0/16";

/// Pod addresses of a worker host, of [`TENANT_PODS`].
pub fn worker_pods(number: u8) -> String {
    format!("10.244.{number}.0/24")
}

/// The addresses of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    slot: u8,
}

impl Addresses {
    /// The addresses of slot `slot`, which is below [`SLOTS`].
    pub fn of_slot(slot: u8) -> Self {
        Self { slot: slot % SLOTS }
    }

    /// The machine's end of the cable.
    pub fn host(self) -> Ipv4Addr {
        self.at(0, 1)
    }
    /// The node: API server, kubelet, DNS.
    pub fn node(self) -> Ipv4Addr {
        self.at(0, 2)
    }
    /// The whole range of the run.
    pub fn range(self) -> String {
        format!("{}/20", self.at(0, 0))
    }
    /// The `n`th address for Services of type LoadBalancer, from 1 to 254.
    pub fn load_balancer(self, n: u8) -> Ipv4Addr {
        self.at(1, n)
    }
    /// All addresses for Services of type LoadBalancer.
    pub fn load_balancers(self) -> String {
        format!("{}/24", self.at(1, 0))
    }
    /// Service addresses.
    pub fn services(self) -> String {
        format!("{}/22", self.at(4, 0))
    }
    /// The Service `default/kubernetes`.
    pub fn kubernetes_service(self) -> Ipv4Addr {
        self.at(4, 1)
    }
    /// The Service `kube-system/kube-dns`.
    pub fn dns_service(self) -> Ipv4Addr {
        self.at(4, 10)
    }
    /// Pod addresses.
    pub fn pods(self) -> String {
        format!("{}/22", self.at(8, 0))
    }

    /// Worker host `number`, from 1 to [`WORKERS`].
    pub fn worker(self, number: u8) -> Ipv4Addr {
        self.at(2, number)
    }
    /// All worker hosts.
    pub fn workers(self) -> String {
        format!("{}/24", self.at(2, 0))
    }

    fn at(self, third: u8, fourth: u8) -> Ipv4Addr {
        let base = u32::from(Ipv4Addr::new(198, 18, 0, 0));
        let offset = (u32::from(self.slot) << 12) | (u32::from(third) << 8) | u32::from(fourth);
        Ipv4Addr::from(base + offset)
    }
}

/// The slots whose addresses the machine already routes somewhere.
pub fn occupied() -> Result<Vec<u8>> {
    let routes = run(&mut command(
        "ip",
        ["-4", "-o", "route", "show", "table", "all"],
    ))?;
    Ok((0..SLOTS)
        .filter(|slot| {
            let addresses = Addresses::of_slot(*slot);
            let mine = u32::from(addresses.at(0, 0)) >> 12;
            routes
                .split_whitespace()
                .filter_map(|word| word.split('/').next()?.parse::<Ipv4Addr>().ok())
                .any(|address| u32::from(address) >> 12 == mine)
        })
        .collect())
}

/// The name of the cable's end in the machine (15 characters at most).
pub fn interface(run_name: &str) -> String {
    format!("stl-{run_name}")
}

/// Creates the namespace, the cable and the routes.
pub fn create(directory: &RunDirectory, name: &str, addresses: Addresses) -> Result<()> {
    let handle = directory.network();
    // Not `ip netns add`: that turns /run/netns into a mount point and leaves
    // it so.
    std::fs::write(&handle, "").doing(|| format!("create {}", handle.display()))?;
    run(Command::new("unshare")
        .arg(format!("--net={}", handle.display()))
        .arg("true"))?;

    let interface = interface(name);
    let (host, node) = (addresses.host().to_string(), addresses.node().to_string());
    let here = std::process::id().to_string();
    inside(directory, &["ip", "link", "set", "lo", "up"])?;
    inside(
        directory,
        &[
            "ip", "link", "add", "eth0", "type", "veth", "peer", "name", &interface, "netns", &here,
        ],
    )?;
    let node_net = format!("{node}/24");
    inside(
        directory,
        &["ip", "address", "add", &node_net, "dev", "eth0"],
    )?;
    inside(directory, &["ip", "link", "set", "eth0", "up"])?;
    outside(&["address", "add", &format!("{host}/24"), "dev", &interface])?;
    outside(&["link", "set", &interface, "up"])?;

    let ranges = [
        addresses.services(),
        addresses.load_balancers(),
        addresses.pods(),
        addresses.workers(),
    ];
    for range in &ranges {
        outside(&["route", "add", range, "via", &node, "dev", &interface])?;
    }
    for range in &ranges[..2] {
        // Without a route the node's own packets to a Service end with
        // ENETUNREACH before kube-proxy's rules see them. On the link, not
        // through a gateway: what no rule takes finds no neighbour and ends
        // there, instead of circling between the two ends.
        inside(
            directory,
            &[
                "ip", "route", "add", range, "dev", "eth0", "scope", "link", "src", &node,
            ],
        )?;
    }
    inside(
        directory,
        &["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"],
    )?;
    Ok(())
}

/// Lays the cable between the management node and the worker host whose network
/// namespace process `holder` holds.
///
/// The host reaches the node and the addresses of LoadBalancer Services, and
/// other workers with their pods. The node, and pods on it, reach the host, but
/// none of its pods.
pub(crate) fn attach_worker(
    directory: &RunDirectory,
    addresses: Addresses,
    holder: ProcessId,
    number: u8,
) -> Result<()> {
    let cable = worker_interface(number);
    let (node, worker) = (addresses.node(), addresses.worker(number));
    let pods = worker_pods(number);
    let table = WORKER_ROUTES;
    let here = format!(
        "
ip link add {cable} type veth peer name eth0 netns {pid}
ip link set {cable} up
ip route add {worker}/32 dev {cable} src {node}
# Only what comes from a worker finds the pods of workers, as behind a router
# that the management cluster knows nothing of.
ip route add {pods} via {worker} dev {cable} onlink table {table}
ip rule add iif {cable} lookup {table}
nft -f - <<END
table ip {cable} {{
  chain out {{
    type nat hook postrouting priority srcnat - 10
    # The worker has no way back to the node's pods, nor to the machine.
    oifname {cable} ip saddr != {{ {workers}, {TENANT_PODS} }} snat to {node}
  }}
}}
END
",
        pid = holder.pid,
        workers = addresses.workers(),
    );
    inside(directory, &["sh", "-ec", &here])?;
    let there = format!(
        "
ip link set lo up
ip address add {worker}/32 dev eth0
ip link set eth0 up
ip route add {node} dev eth0 scope link src {worker}
ip route add {balancers} via {node} src {worker}
ip route add {workers} via {node} src {worker}
ip route add {TENANT_PODS} via {node} src {worker}
# Where a tenant's Services may be. Without a route the host's own packets to
# them end before kube-proxy's rules see them; what no rule takes finds no
# neighbour.
for range in 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16; do
  ip route add $range dev eth0 scope link src {worker}
done
echo 1 > /proc/sys/net/ipv4/ip_forward
nft -f - <<END
table ip steward-lab {{
  chain out {{
    type nat hook postrouting priority srcnat - 10
    oifname eth0 ip saddr {pods} ip daddr != {TENANT_PODS} snat to {worker}
  }}
}}
END
",
        balancers = addresses.load_balancers(),
        workers = addresses.workers(),
    );
    run(Command::new("nsenter")
        .arg(format!("--net=/proc/{}/ns/net", holder.pid))
        .args(["--", "sh", "-ec", &there]))
    .map(drop)
}

/// Removes a worker's cable and what hangs on it; what does not exist is no error.
pub(crate) fn detach_worker(directory: &RunDirectory, number: u8) {
    let cable = worker_interface(number);
    for arguments in [
        ["ip", "rule", "delete", "iif", &cable],
        ["nft", "delete", "table", "ip", &cable],
        ["ip", "link", "delete", "dev", &cable],
    ] {
        let _ = inside(directory, &arguments);
    }
}

/// The table of routes to pods of workers.
const WORKER_ROUTES: u8 = 100;

fn worker_interface(number: u8) -> String {
    format!("w{number}")
}

/// Removes the cable and the namespace; what does not exist is no error.
pub fn remove(directory: &RunDirectory, name: &str) {
    succeeds(&mut command("ip", ["link", "delete", &interface(name)]));
    succeeds(
        Command::new("umount")
            .arg("--lazy")
            .arg(directory.network()),
    );
}

/// Runs a command in the run's network namespace.
pub fn inside(directory: &RunDirectory, arguments: &[&str]) -> Result<String> {
    run(Command::new("nsenter")
        .arg(format!("--net={}", directory.network().display()))
        .arg("--")
        .args(arguments))
}

fn outside(arguments: &[&str]) -> Result<String> {
    run(Command::new("ip").args(arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_runs_do_not_meet() {
        let first = Addresses::of_slot(0);
        assert_eq!(first.node().to_string(), "198.18.0.2");
        assert_eq!(first.load_balancers(), "198.18.1.0/24");
        assert_eq!(first.services(), "198.18.4.0/22");
        assert_eq!(first.dns_service().to_string(), "198.18.4.10");
        assert_eq!(first.pods(), "198.18.8.0/22");
        assert_eq!(first.workers(), "198.18.2.0/24");
        assert_eq!(first.worker(WORKERS).to_string(), "198.18.2.99");
        let last = Addresses::of_slot(SLOTS - 1);
        assert_eq!(last.host().to_string(), "198.19.240.1");
        assert_eq!(last.load_balancer(254).to_string(), "198.19.241.254");
    }

    #[test]
    fn an_interface_name_fits() {
        assert!(interface("0123456789").len() <= 15);
    }
}
