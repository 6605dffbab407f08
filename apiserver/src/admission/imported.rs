//! An object that another operator had before: it keeps its uid and the time of its creation
//! if its author may `import` the kind, a right of its own. Whoever has it could give an object
//! the uid of another tenant, under which that one has its claims; nobody has it by the roles of
//! the chart.

use apiservice::resource::BorrowedRight;
use apiservice::{GROUP, Resource, names};
use serde_json::Value;

use crate::object::{meta, set_meta};
use crate::status::Failure;

/// What a new object keeps of the one that it was.
#[derive(Debug)]
pub struct Imported {
    /// As clients know it by.
    pub uid: String,
    /// If it says one.
    pub created: Option<String>,
}

impl Imported {
    /// What an object asks to keep; the question is taken out of it. To be done before what the
    /// server owns is.
    ///
    /// # Errors
    /// 400 for what is no uid, no time, or has no name.
    pub fn take(object: &mut Value, now: jiff::Timestamp) -> Result<Option<Self>, Failure> {
        let annotations = object["metadata"].get_mut("annotations");
        let Some(annotations) = annotations.and_then(Value::as_object_mut) else {
            return Ok(None);
        };
        let Some(asked) = annotations.remove(names::ANNOTATION_IMPORT_UID) else {
            return Ok(None);
        };
        if annotations.is_empty() {
            set_meta(object, "annotations", None);
        }
        let refuse = |why: &str| {
            let field = names::ANNOTATION_IMPORT_UID;
            Err(Failure::BadRequest(format!("annotation {field}: {why}")))
        };
        // One form only: who holds what is told by comparing texts.
        let uid = asked.as_str().unwrap_or_default();
        let parsed = uuid::Uuid::parse_str(uid);
        if !parsed.is_ok_and(|parsed| !parsed.is_nil() && parsed.to_string() == uid) {
            return refuse("it must be a UUID in lower case with hyphens");
        }
        if meta(object, "name").is_empty() {
            return refuse("an object that is imported needs its name");
        }
        let created = meta(object, "creationTimestamp");
        let created = Some(created.to_owned()).filter(|created| !created.is_empty());
        if let Some(created) = &created {
            let time = created.parse::<jiff::Timestamp>();
            if !time.is_ok_and(|time| time <= now && time.to_string() == *created) {
                return refuse("metadata.creationTimestamp must be a time of the past, in UTC");
            }
        }
        Ok(Some(Self {
            uid: uid.to_owned(),
            created,
        }))
    }

    /// What its author must be allowed to do.
    pub fn right(resource: &Resource, namespace: Option<&str>, object: &Value) -> BorrowedRight {
        BorrowedRight {
            verb: "import",
            group: GROUP,
            resource: resource.plural,
            subresource: "",
            namespace: namespace.map(str::to_owned),
            name: Some(meta(object, "name").to_owned()),
            field: format!("metadata.annotations[{}]", names::ANNOTATION_IMPORT_UID),
            or: None,
        }
    }
}
