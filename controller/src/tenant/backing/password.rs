//! The password by which a tenant's user proves to a database who it is, where the driver
//! has passwords. It is in the tenant's own Secret, and what is there counts: somebody who
//! edits it has set another password. One that cannot be used is made anew.

use apiservice::names::key;
use apiservice::pki::Entropy;
use apiservice::v1alpha1::Driver;
use storage::tenancy::Password;

use crate::tenant::backing::moving;
use crate::tenant::objects;
use crate::tenant::world::World;

/// What a password may be made of: it stands in a URL that the kubelet puts together,
/// where nothing is escaped. A UUID, as in Secrets of others, is made of these.
const PLAIN: &str = "-._~";
/// How long it has to be at least, and may be at most.
const LENGTH: std::ops::RangeInclusive<usize> = 12..=128;
/// Random bytes of a new one.
const RANDOM: usize = 24;

/// The tenant's password. `None`: the driver has none, or there is none that can be used
/// in a Secret that is paused.
pub fn of(world: &World, driver: Driver, entropy: &Entropy) -> Option<Password> {
    if !driver.has_passwords() {
        return None;
    }
    let secret = world.secret(&world.config_secret());
    // Whose Secret is paused keeps what is in it.
    let is_paused = secret.is_some_and(|secret| objects::is_paused(&secret.metadata));
    // A move has given it to the database before anything else.
    let moved = || {
        let known = world.store.password.clone();
        known.filter(|_| moving::is_switching(world))
    };
    in_secret(world).or_else(|| match is_paused {
        true => None,
        false => moved().or_else(|| make(entropy)),
    })
}

/// The one that its Secret has, if it can be used.
pub fn in_secret(world: &World) -> Option<Password> {
    let secret = world.secret(&world.config_secret())?;
    usable(&objects::text(secret, key::DB_PASSWORD)?)
}

/// A password out of a Secret, if it can be used.
pub fn usable(text: &str) -> Option<Password> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || PLAIN.as_bytes().contains(&byte);
    let usable = LENGTH.contains(&text.len()) && text.bytes().all(plain);
    usable.then(|| Password::new(text))
}

/// Whether somebody has set one that cannot be used, which is replaced.
pub fn is_replaced(world: &World) -> bool {
    let secret = world.secret(&world.config_secret());
    let text = secret.and_then(|secret| objects::text(secret, key::DB_PASSWORD));
    text.is_some_and(|text| !text.is_empty()) && in_secret(world).is_none()
}

/// Whether it is not yet in the Secret, and so nowhere.
pub fn is_new(world: &World) -> bool {
    in_secret(world).is_none()
}

/// Whether the database is known to have another one.
pub fn is_another(world: &World, password: Option<&Password>) -> bool {
    let Some(password) = password else {
        return false;
    };
    let known = world.store.password.as_ref();
    known.map_or_else(|| is_new(world), |known| known != password)
}

/// `None` where the machine has no random numbers: then nothing is granted either.
pub fn make(entropy: &Entropy) -> Option<Password> {
    let mut bytes = [0; RANDOM];
    entropy.fill(&mut bytes).ok()?;
    Some(Password::new(hex::encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_that_can_stand_in_a_url() {
        for good in [
            "3d0c0a5e-0000-4000-8000-000000000001",
            "abcDEF012_~.",
            &"x".repeat(128),
        ] {
            assert!(usable(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "short",
            "with a blank in it",
            "at@sign.in.it",
            "a/b/c/d/e/f/g",
            "%41%41%41%41",
        ] {
            assert!(usable(bad).is_none(), "{bad}");
        }
        assert!(usable(&"x".repeat(129)).is_none());
    }

    #[test]
    fn new_ones_are_usable_and_differ() {
        let [one, other] = [(); 2].map(|()| make(&Entropy).unwrap());
        assert_ne!(one, other);
        assert_eq!(usable(one.expose()), Some(one));
    }
}
