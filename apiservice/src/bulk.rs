//! How much larger than its text a spec becomes: where it is read as types, and where the
//! management cluster fills in what was left out.
//!
//! An element of a list in three bytes of text (`{},`) is half a kilobyte as a type, so that
//! what bounds the text of an object does not bound what reading it takes. Whoever writes
//! is told ([`crate::Resource::validate`]); what an older release stored is cut where it is
//! read, and whoever reads knows.

use serde_json::Value;

/// Bytes that a spec may take once it is read as types, without its texts.
pub const MOST: usize = 512 * 1024;
/// Bytes, as the management cluster may keep them, of the part of a tenant of which anything
/// but its pods is made there.
pub const OTHERS: usize = 64 * 1024;
/// What a map that is the element of a list is counted as: the largest type of which there
/// may be many, a source of a projected volume, has 496 bytes.
const ELEMENT: usize = 512;
/// What each value is counted as beside that.
const VALUE: usize = 48;
/// A map with more entries is one whose keys users choose, and no type of ours.
const FIELDS: usize = 64;

/// Bytes that a value takes once it is read as types, without its texts.
pub fn weight(value: &Value) -> usize {
    let parts: usize = match value {
        Value::Array(list) => list.iter().map(element).sum(),
        Value::Object(fields) => fields.values().map(weight).sum(),
        _ => 0,
    };
    VALUE + parts
}

fn element(value: &Value) -> usize {
    match value {
        Value::Object(_) => ELEMENT + weight(value),
        _ => weight(value),
    }
}

/// Takes the ends of lists and of long maps out of a spec that is heavier than [`MOST`].
/// True if there was anything.
pub fn cut(spec: &mut Value) -> bool {
    cut_to(spec, &mut MOST.saturating_sub(VALUE))
}

fn cut_to(value: &mut Value, left: &mut usize) -> bool {
    let mut fits = |weight: usize| {
        let rest = left.checked_sub(weight);
        *left = rest.unwrap_or(*left);
        rest.is_some()
    };
    match value {
        Value::Array(list) => {
            let whole = list.iter().take_while(|it| fits(element(it))).count();
            let is_cut = whole < list.len();
            list.truncate(whole);
            if is_cut {
                list.shrink_to_fit();
            }
            is_cut
        }
        Value::Object(fields) if fields.len() > FIELDS => {
            let before = fields.len();
            fields.retain(|_, value| fits(weight(value)));
            fields.len() < before
        }
        Value::Object(fields) => {
            let mut is_cut = false;
            for value in fields.values_mut() {
                *left = left.saturating_sub(VALUE);
                is_cut |= cut_to(value, left);
            }
            is_cut
        }
        _ => false,
    }
}

/// Bytes of text that the management cluster may keep of a part of ours: as it is sent, and
/// what the API fills in. Of `pkg/apis/core/v1/defaults.go` and `pkg/apis/apps/v1/defaults.go`
/// a container is given most, and a probe comes next.
pub fn as_kept(value: &Value) -> usize {
    value.to_string().len() + filled_in(value, "")
}

fn filled_in(value: &Value, name: &str) -> usize {
    const MUCH: [&str; 6] = [
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "rbd",
        "azureDisk",
        "scaleIO",
    ];
    match value {
        Value::Array(list) => list.iter().map(|it| filled_in(it, name)).sum(),
        Value::Object(fields) => {
            // additionalContainers and initContainers, too.
            let much = name.ends_with("ontainers") || MUCH.contains(&name);
            let own = if much { 160 } else { 32 };
            let parts = fields.iter().map(|(name, value)| filled_in(value, name));
            own + parts.sum::<usize>()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{
        Container, EnvFromSource, EnvVar, NodeSelectorTerm, Toleration, Volume, VolumeMount,
        VolumeProjection,
    };
    use serde_json::json;

    use super::*;

    #[test]
    fn what_there_may_be_many_of_is_weighed_as_it_is() {
        let sizes = [
            ("source", size_of::<VolumeProjection>()),
            ("variable", size_of::<EnvVar>()),
            ("source of variables", size_of::<EnvFromSource>()),
            ("term", size_of::<NodeSelectorTerm>()),
            ("toleration", size_of::<Toleration>()),
            ("mount", size_of::<VolumeMount>()),
        ];
        let least = element(&json!({}));
        for (name, size) in sizes {
            assert!(size <= least, "{name}: {size} bytes, weighed as {least}");
        }
        // There are 256 of these at most.
        assert!(size_of::<Container>() < 4096, "{}", size_of::<Container>());
        assert!(size_of::<Volume>() < 4096, "{}", size_of::<Volume>());
    }

    #[test]
    fn what_is_cut_is_as_heavy_as_it_may_be_and_what_fits_stays() {
        let mut fits = json!({"a": {"b": vec![json!({}); 500], "c": vec!["x"; 2000]}, "d": 1});
        let whole = fits.clone();
        assert!(weight(&fits) <= MOST);
        assert!(!cut(&mut fits));
        assert_eq!(fits, whole);
        let many: serde_json::Map<String, Value> =
            (0..50_000).map(|it| (it.to_string(), json!("v"))).collect();
        for (mut heavy, least) in [
            (
                json!({"a": {"b": vec![json!({}); 250_000]}, "d": {"e": 1}}),
                400_000,
            ),
            (json!({"a": [{"b": vec![json!({}); 250_000]}], "c": [1]}), 0),
            (json!({"labels": many}), 400_000),
            (json!({"a": [[[vec!["x"; 50_000]]]]}), 0),
        ] {
            assert!(cut(&mut heavy));
            let weight = weight(&heavy);
            assert!((least..=MOST).contains(&weight), "{weight}");
            assert!(!cut(&mut heavy), "once is enough");
        }
    }
}
