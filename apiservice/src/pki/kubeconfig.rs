//! Kubeconfigs: `v1` `Config`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Pair;

/// What a kubeconfig says: one cluster, at most one user, one context.
#[derive(Clone, Copy, Debug)]
pub struct KubeconfigInput<'a> {
    /// Name of the cluster.
    pub cluster: &'a str,
    /// URL of the API server.
    pub server: &'a str,
    /// Certificates of the API server's authorities.
    pub ca_pem: &'a str,
    /// Name and certificate of the user. Without a user the file has the
    /// cluster and a context only; a user without a certificate has a name only.
    pub user: Option<(&'a str, Option<&'a Pair>)>,
    /// Name of the context.
    pub context: &'a str,
}

/// The kubeconfig as an object.
pub fn kubeconfig(input: &KubeconfigInput<'_>) -> Value {
    let mut context = Map::new();
    context.insert("cluster".to_owned(), input.cluster.into());
    let mut users = Vec::new();
    if let Some((name, pair)) = input.user {
        context.insert("user".to_owned(), name.into());
        let user = match pair {
            Some(pair) => json!({
                "client-certificate-data": STANDARD.encode(&pair.cert),
                "client-key-data": STANDARD.encode(&pair.key),
            }),
            None => json!({}),
        };
        users.push(json!({"name": name, "user": user}));
    }
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": input.cluster,
            "cluster": {
                "server": input.server,
                "certificate-authority-data": STANDARD.encode(input.ca_pem),
            },
        }],
        "contexts": [{"name": input.context, "context": context}],
        "current-context": input.context,
        "preferences": {},
        "users": users,
    })
}

/// The kubeconfig as YAML.
pub fn kubeconfig_yaml(input: &KubeconfigInput<'_>) -> String {
    let mut out = String::new();
    yaml(&kubeconfig(input), 0, &mut out);
    out
}

/// A kubeconfig whose user has a token, as YAML: `kubeadm join --discovery-file` takes it.
pub fn discovery_yaml(input: &KubeconfigInput<'_>, token: &str) -> String {
    let mut config = kubeconfig(input);
    for user in config["users"].as_array_mut().into_iter().flatten() {
        user["user"] = json!({"token": token});
    }
    let mut out = String::new();
    yaml(&config, 0, &mut out);
    out
}

/// Block style; every string is quoted as JSON, which YAML reads alike.
fn yaml(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (position, (name, value)) in fields.iter().enumerate() {
                if position > 0 {
                    out.push_str(&" ".repeat(indent));
                }
                out.push_str(name);
                out.push(':');
                nested(value, indent, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push_str(&" ".repeat(indent));
                }
                out.push_str("- ");
                yaml(item, indent + 2, out);
            }
        }
        scalar => {
            out.push_str(&scalar.to_string());
            out.push('\n');
        }
    }
}

fn nested(value: &Value, indent: usize, out: &mut String) {
    let (block, deeper) = match value {
        Value::Object(fields) => (!fields.is_empty(), indent + 2),
        Value::Array(items) => (!items.is_empty(), indent),
        _ => (false, indent),
    };
    if block {
        out.push('\n');
        out.push_str(&" ".repeat(deeper));
    } else {
        out.push(' ');
    }
    yaml(value, deeper, out);
}
