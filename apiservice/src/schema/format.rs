//! The formats that validation enforces; all others are comments (R6.10).

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::time;

/// A format of a string or number. Those of numbers that Kubernetes does not know
/// (`uint32`) are comments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Int32,
    Int64,
    Byte,
    DateTime,
    Ipv4,
    Ipv6,
    Cidr,
}

impl Format {
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "byte" => Self::Byte,
            "date-time" => Self::DateTime,
            "ipv4" => Self::Ipv4,
            "ipv6" => Self::Ipv6,
            "cidr" => Self::Cidr,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Byte => "byte",
            Self::DateTime => "date-time",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Cidr => "cidr",
        }
    }

    /// Whether a string has the format. A format of numbers takes any string:
    /// its type has been judged elsewhere.
    pub(super) fn takes(self, text: &str) -> bool {
        match self {
            Self::Int32 | Self::Int64 => true,
            Self::Byte => !text.is_empty() && STANDARD.decode(text).is_ok(),
            // It is kept as it is written, and our own types read it with jiff, which takes
            // less here and more there than Go.
            Self::DateTime => time::read(text).is_ok() && text.parse::<jiff::Timestamp>().is_ok(),
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Self::Cidr => text.parse::<ipnet::IpNet>().is_ok(),
        }
    }
}
