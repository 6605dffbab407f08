//! A real management cluster for tests and the demo, in a network of its own
//! on this machine, from nothing but root, Go and a Debian package archive.
//!
//! # Guarantees
//! * Nothing of the machine's own network is touched, and nothing inside can
//!   reach beyond the machine.
//! * Several runs stand side by side.
//! * A run ends with the process that started it, however that ends; what a
//!   killed run leaves is removed by the next.
//! * What is set machine-wide (one inotify limit) is restored after the last
//!   run.
//!
//! # Assumptions
//! Linux, root, control groups mounted under /sys/fs/cgroup. Proven with
//! control groups version 1; version 2 is written for and unproven.
//!
//! # Flow
//! [`Lab::start`] → programs from the cache ([`programs`], [`packages`],
//! [`images`]) → a name and addresses ([`record`], [`network`], [`cgroup`]) →
//! certificates ([`certificates`]) → [`control_plane`] → [`node`] → the agent
//! that tends it ([`agent`]). [`Lab::worker`] adds hosts that join the clusters
//! in it ([`worker`]).
#![allow(
    clippy::disallowed_methods,
    reason = "the lab is its own program: it owns its tasks and reads its own settings"
)]

pub mod agent;
pub mod archive;
pub mod certificates;
pub mod cgroup;
mod cluster;
pub(crate) mod command;
pub mod control_plane;
pub mod databases;
pub mod directories;
pub mod edge;
pub mod error;
pub mod gateway_api;
pub mod go;
pub mod images;
mod load_balancers;
pub mod local_service;
pub mod network;
pub mod node;
pub mod packages;
pub mod preflight;
pub mod process;
pub mod programs;
pub mod python;
pub mod record;
mod volumes;
pub mod worker;

#[cfg(feature = "judges")]
pub(crate) use cluster::client;
pub use cluster::{Etcd, Lab, Level, build};
pub use directories::Directories;
pub use error::{Error, Result};
pub use worker::Worker;
