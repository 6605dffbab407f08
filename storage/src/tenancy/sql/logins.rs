//! Which passwords were tried of late, so that a look at a tenant is no login each time.

use std::collections::HashMap;
use std::time::Duration;

use aws_lc_rs::digest;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::tenancy::Password;

/// What else may keep a user out is looked at again after that.
const KNOWN_FOR: Duration = Duration::from_secs(300);
/// Users that are remembered, 40 bytes and a name each.
const MOST: usize = 10_000;

/// Users that were let in.
#[derive(Default)]
pub struct Logins(Mutex<HashMap<String, ([u8; 32], Instant)>>);

impl Logins {
    /// Whether the user was let in with this password, while the server stored this of it.
    pub fn is_known(&self, user: &str, password: &Password, stored: &str) -> bool {
        let known = self.0.lock();
        known.get(user).is_some_and(|(print, since)| {
            since.elapsed() < KNOWN_FOR && *print == fingerprint(password, stored)
        })
    }

    /// The user was let in.
    pub fn remember(&self, user: &str, password: &Password, stored: &str) {
        let mut known = self.0.lock();
        if known.len() >= MOST {
            known.retain(|_, (_, since)| since.elapsed() < KNOWN_FOR);
        }
        if known.len() < MOST {
            let print = (fingerprint(password, stored), Instant::now());
            known.insert(user.to_owned(), print);
        }
    }
}

fn fingerprint(password: &Password, stored: &str) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    // A password has no blanks.
    for part in [password.expose(), " ", stored] {
        context.update(part.as_bytes());
    }
    let mut print = [0; 32];
    print.copy_from_slice(context.finish().as_ref());
    print
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_the_same_and_new_is_known() {
        let logins = Logins::default();
        let (one, other) = (Password::new("one"), Password::new("other"));
        logins.remember("u", &one, "hash");
        assert!(logins.is_known("u", &one, "hash"));
        assert!(!logins.is_known("v", &one, "hash"));
        assert!(!logins.is_known("u", &other, "hash"));
        assert!(!logins.is_known("u", &one, "another"));
        for (_, since) in logins.0.lock().values_mut() {
            *since -= KNOWN_FOR;
        }
        assert!(!logins.is_known("u", &one, "hash"));
    }
}
