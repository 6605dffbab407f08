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

/// How many runs can stand side by side on one machine.
pub const SLOTS: u8 = 32;

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
        let last = Addresses::of_slot(SLOTS - 1);
        assert_eq!(last.host().to_string(), "198.19.240.1");
        assert_eq!(last.load_balancer(254).to_string(), "198.19.241.254");
    }

    #[test]
    fn an_interface_name_fits() {
        assert!(interface("0123456789").len() <= 15);
    }
}
