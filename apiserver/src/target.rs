//! What a request is about. [`Target::parse`] classifies method, path and query and
//! never answers: authorization must see every path, known or not (rule 1).
//!
//! The only place that knows the grammar of URLs. Paths are percent-decoded before
//! they are split, as kube-apiserver does, so that both authorize the same words.

use http::Method;

/// The Kubernetes request verb (contract R1.31).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// An HTTP method that Kubernetes gives no verb, such as OPTIONS.
    None,
}

impl Verb {
    /// The word that RBAC rules and discovery use; empty for [`Verb::None`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::None => "",
        }
    }

    /// Whether the verb may change something: it counts against the smaller limit.
    pub const fn is_mutating(self) -> bool {
        !matches!(self, Verb::Get | Verb::List | Verb::Watch)
    }

    fn of(method: &Method) -> Verb {
        match *method {
            Method::POST => Verb::Create,
            Method::GET | Method::HEAD => Verb::Get,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE => Verb::Delete,
            _ => Verb::None,
        }
    }
}

/// A classified request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Below `/apis/GROUP/VERSION/`, whether or not such a resource exists.
    Resource(ResourcePath),
    /// Everything else. `verb` is the lower-case HTTP method.
    NonResource { path: String, verb: String },
}

/// The attributes of a resource request, as authorization and audit see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourcePath {
    pub verb: Verb,
    pub group: String,
    pub version: String,
    /// `None` for a cluster-scoped path or a request over all namespaces.
    pub namespace: Option<String>,
    pub plural: String,
    /// The name in the path.
    pub name: Option<String>,
    /// The name that a list, watch or deletecollection selects by
    /// `fieldSelector=metadata.name=X`: authorized as that name (R1.31).
    pub selected_name: Option<String>,
    pub subresource: Option<String>,
    /// The raw selectors of a list, watch or deletecollection.
    pub field_selector: Option<String>,
    pub label_selector: Option<String>,
    /// What is in the path after the subresource; anything here is unknown to us.
    pub rest: String,
}

impl ResourcePath {
    /// The name that authorization is asked about.
    pub fn authorized_name(&self) -> Option<&str> {
        self.name.as_deref().or(self.selected_name.as_deref())
    }
}

impl Target {
    /// Classifies a request from its method, its raw path and its decoded query.
    pub fn parse(method: &Method, raw_path: &str, query: &[(String, String)]) -> Target {
        let path = percent_decode(raw_path, false);
        let non_resource = || Target::NonResource {
            path: path.clone(),
            verb: method.as_str().to_ascii_lowercase(),
        };
        let mut parts = path.trim_matches('/').split('/');
        let (Some(root), Some(group), Some(version)) = (parts.next(), parts.next(), parts.next())
        else {
            return non_resource();
        };
        let mut rest: Vec<&str> = parts.collect();
        if root != "apis" || rest.is_empty() {
            return non_resource();
        }
        // An empty or a dot segment names nothing; it must not be mistaken for
        // "all namespaces" or the like.
        if group.is_empty() || version.is_empty() || rest.iter().any(|part| !is_segment(part)) {
            return non_resource();
        }

        let mut namespace = None;
        if rest[0] == "namespaces" && rest.len() > 1 {
            namespace = Some(rest[1].to_owned());
            if rest.len() > 2 && rest[2] != "status" && rest[2] != "finalize" {
                rest.drain(..2);
            }
        }
        let mut rest = rest.into_iter();
        let plural = rest.next().unwrap_or_default().to_owned();
        let name = rest.next().map(str::to_owned);
        let subresource = rest.next().map(str::to_owned);
        let mut verb = Verb::of(method);
        let (mut field_selector, mut label_selector) = (None, None);
        if name.is_none() && matches!(verb, Verb::Get | Verb::Delete) {
            field_selector = first(query, "fieldSelector").map(str::to_owned);
            label_selector = first(query, "labelSelector").map(str::to_owned);
            verb = match verb {
                Verb::Delete => Verb::DeleteCollection,
                _ if flag(query, "watch") => Verb::Watch,
                _ => Verb::List,
            };
        }
        Target::Resource(ResourcePath {
            verb,
            group: group.to_owned(),
            version: version.to_owned(),
            namespace,
            plural,
            name,
            selected_name: field_selector.as_deref().and_then(exact_name),
            subresource,
            field_selector,
            label_selector,
            rest: rest.collect::<Vec<_>>().join("/"),
        })
    }
}

/// Parameters of a query. Each is a pair of texts, which take 25 times as much as the two
/// bytes that it can be written with.
pub const PARAMETERS: usize = 100;

/// Splits a raw query string into decoded pairs, in order. A pair without `=` has an
/// empty value. Of more than [`PARAMETERS`] there is one too many.
pub fn parse_query(raw: Option<&str>) -> Vec<(String, String)> {
    raw.unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .take(PARAMETERS + 1)
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(key, true), percent_decode(value, true))
        })
        .collect()
}

/// Decodes `%XX`; an escape that is not one stays as it is written. Bytes that are
/// not UTF-8 become the replacement character, which is in no valid name.
pub fn percent_decode(text: &str, plus_is_space: bool) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| {
                Some((
                    hex_digit(*bytes.get(at + 1)?)?,
                    hex_digit(*bytes.get(at + 2)?)?,
                ))
            })
            .flatten();
        match escaped {
            Some((high, low)) => {
                out.push(high << 4 | low);
                at += 3;
            }
            None => {
                out.push(if plus_is_space && bytes[at] == b'+' {
                    b' '
                } else {
                    bytes[at]
                });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex_digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

/// A path segment that may be a name: not empty, no dot segment, no `%` (R2.5).
fn is_segment(part: &str) -> bool {
    !part.is_empty() && part != "." && part != ".." && !part.contains('%')
}

fn first<'a>(query: &'a [(String, String)], key: &str) -> Option<&'a str> {
    query
        .iter()
        .find(|(name, _)| name == key)
        .map(|(_, value)| value.as_str())
}

/// Kubernetes' booleans in a query: `0` and `false` are false, whatever else is
/// there, the empty value included, is true (contract 3.2).
fn flag(query: &[(String, String)], key: &str) -> bool {
    first(query, key).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
}

/// The name that a field selector requires exactly.
fn exact_name(selector: &str) -> Option<String> {
    selector.split(',').find_map(|term| {
        let value = term.trim().strip_prefix("metadata.name=")?;
        let value = value.strip_prefix('=').unwrap_or(value);
        (is_segment(value) && !value.contains(['/', '\\', '='])).then(|| value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line a request: method, URL, and what it is about.
    fn describe(method: &str, url: &str) -> String {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        match Target::parse(&method, path, &parse_query(Some(query))) {
            Target::NonResource { path, verb } => format!("{verb} {path}"),
            Target::Resource(r) => format!(
                "{} {}/{} ns={} r={} n={} sel={} sub={} rest={}",
                r.verb.as_str(),
                r.group,
                r.version,
                r.namespace.unwrap_or_default(),
                r.plural,
                r.name.unwrap_or_default(),
                r.selected_name.unwrap_or_default(),
                r.subresource.unwrap_or_default(),
                r.rest
            ),
        }
    }

    /// R1.31, R3.1, R3.30.
    #[test]
    fn requests_are_classified_as_kubernetes_does() {
        for (method, url, expected) in [
            ("GET", "/healthz", "get /healthz"),
            ("GET", "/", "get /"),
            ("GET", "/apis", "get /apis"),
            ("GET", "/apis/g/v", "get /apis/g/v"),
            ("GET", "/apis/g/v/", "get /apis/g/v/"),
            ("HEAD", "/readyz", "head /readyz"),
            ("GET", "/apis/g/v/r", "list g/v ns= r=r n= sel= sub= rest="),
            (
                "GET",
                "/apis/g/v/r?watch",
                "watch g/v ns= r=r n= sel= sub= rest=",
            ),
            (
                "GET",
                "/apis/g/v/r?watch=1",
                "watch g/v ns= r=r n= sel= sub= rest=",
            ),
            (
                "GET",
                "/apis/g/v/r?watch=False",
                "list g/v ns= r=r n= sel= sub= rest=",
            ),
            (
                "GET",
                "/apis/g/v/r?watch=0",
                "list g/v ns= r=r n= sel= sub= rest=",
            ),
            (
                "GET",
                "/apis/g/v/r?watch=x",
                "watch g/v ns= r=r n= sel= sub= rest=",
            ),
            (
                "GET",
                "/apis/g/v/r/n?watch=1",
                "get g/v ns= r=r n=n sel= sub= rest=",
            ),
            (
                "HEAD",
                "/apis/g/v/r/n",
                "get g/v ns= r=r n=n sel= sub= rest=",
            ),
            (
                "POST",
                "/apis/g/v/namespaces/ns/r",
                "create g/v ns=ns r=r n= sel= sub= rest=",
            ),
            (
                "PUT",
                "/apis/g/v/namespaces/ns/r/n/status",
                "update g/v ns=ns r=r n=n sel= sub=status rest=",
            ),
            (
                "PATCH",
                "/apis/g/v/namespaces/ns/r/n",
                "patch g/v ns=ns r=r n=n sel= sub= rest=",
            ),
            (
                "DELETE",
                "/apis/g/v/namespaces/ns/r/n",
                "delete g/v ns=ns r=r n=n sel= sub= rest=",
            ),
            (
                "DELETE",
                "/apis/g/v/namespaces/ns/r",
                "deletecollection g/v ns=ns r=r n= sel= sub= rest=",
            ),
            ("OPTIONS", "/apis/g/v/r", " g/v ns= r=r n= sel= sub= rest="),
            (
                "GET",
                "/apis/g/v/namespaces/ns",
                "get g/v ns=ns r=namespaces n=ns sel= sub= rest=",
            ),
            (
                "GET",
                "/apis/g/v/namespaces/ns/status",
                "get g/v ns=ns r=namespaces n=ns sel= sub=status rest=",
            ),
            (
                "GET",
                "/apis/g/v/r/n/s/a/b",
                "get g/v ns= r=r n=n sel= sub=s rest=a/b",
            ),
            (
                "GET",
                "/apis/g/v/r?fieldSelector=metadata.name%3Dx",
                "list g/v ns= r=r n= sel=x sub= rest=",
            ),
            (
                "GET",
                "/apis/g/v/r?fieldSelector=a%3Db,metadata.name%3D%3Dx&watch=true",
                "watch g/v ns= r=r n= sel=x sub= rest=",
            ),
            (
                "GET",
                "/apis/g/v/r?fieldSelector=metadata.name!%3Dx",
                "list g/v ns= r=r n= sel= sub= rest=",
            ),
            (
                "GET",
                "/apis/g/v/r?fieldSelector=metadata.name%3D..",
                "list g/v ns= r=r n= sel= sub= rest=",
            ),
        ] {
            assert_eq!(describe(method, url), expected, "{method} {url}");
        }
    }

    /// What would be read as another resource by a laxer reader is no resource at all.
    /// R2.5.
    #[test]
    fn empty_dot_and_escaped_segments_name_nothing() {
        for url in [
            "/apis/g/v/namespaces//r",
            "/apis/g/v/r/../s",
            "/apis/g/v/r/.",
            "/apis/g/v/r/a%252Fb",
            "/apis//v/r",
        ] {
            assert!(describe("GET", url).starts_with("get /apis"), "{url}");
        }
        // An escaped slash is a slash, for us as for kube-apiserver.
        assert_eq!(
            describe("GET", "/apis/g/v/r/a%2Fb"),
            "get g/v ns= r=r n=a sel= sub=b rest="
        );
    }

    #[test]
    fn queries_are_decoded_in_order() {
        assert_eq!(
            parse_query(Some("a=1&a=2&b&c=x+y%26&d=%zz")),
            [
                ("a", "1"),
                ("a", "2"),
                ("b", ""),
                ("c", "x y&"),
                ("d", "%zz")
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        assert!(parse_query(None).is_empty());
        let many = "a&".repeat(30_000);
        assert_eq!(parse_query(Some(&many)).len(), PARAMETERS + 1);
    }
}
