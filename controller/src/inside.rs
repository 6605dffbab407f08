//! A tenant's own API: how it is reached, whether it works, and what is written into it.

mod bootstrap;
pub mod connection;
pub mod probe;
pub mod read_write_watch;
