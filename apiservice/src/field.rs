//! Field paths and field errors, in the words of Kubernetes' own validation
//! (contract R3.81, R3.82, R6.11).

mod error;
mod errors;
mod path;

pub use error::{Error, ErrorKind};
pub use errors::{Errors, MAX_ERRORS};
pub use path::Path;
