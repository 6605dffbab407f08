//! Whatever is admitted is one of the types that controllers read: with one object that is
//! not, they list none at all.

use apiservice::field::{Error, Errors, Path};
use apiservice::v1alpha1::{DataStore, TenantControlPlane};
use apiservice::{RESOURCES, Resource, number};
use serde_json::{Value, json};

/// An object that is admitted.
fn base(resource: &Resource) -> Value {
    let spec = match resource.kind {
        "DataStore" => {
            let secret =
                json!({"secretReference": {"name": "s", "namespace": "n", "keyPath": "k"}});
            json!({
                "driver": "PostgreSQL", "endpoints": ["db.n.svc:5432"],
                "basicAuth": {"username": secret, "password": secret},
                "tlsConfig": {"certificateAuthority": {"certificate": secret}},
            })
        }
        _ => json!({
            "controlPlane": {"service": {"serviceType": "ClusterIP"}},
            "kubernetes": {"version": "v1.36.3", "kubelet": {}},
        }),
    };
    json!({
        "apiVersion": resource.api_version(), "kind": resource.kind,
        "metadata": {"name": "a", "namespace": "n"}, "spec": spec,
    })
}

/// As it is after reading.
fn completed(resource: &Resource, mut object: Value) -> Value {
    number::settle(&mut object);
    resource.normalize(&mut object);
    resource.schema().prune(&mut object);
    resource.default(&mut object);
    object
}

fn errors(resource: &Resource, object: &Value) -> Vec<String> {
    let mut old = object.clone();
    old["status"] = json!({});
    let mut errors = resource.validate(object, None);
    if errors.is_empty() {
        errors = resource.validate_status(object, &old);
    }
    errors.iter().map(ToString::to_string).collect()
}

fn decoded(resource: &Resource, object: &Value) -> Result<(), String> {
    let decoded = match resource.kind {
        "DataStore" => serde_json::from_value::<DataStore>(object.clone()).map(drop),
        _ => serde_json::from_value::<TenantControlPlane>(object.clone()).map(drop),
    };
    decoded.map_err(|error| error.to_string())
}

/// A step into a document.
#[derive(Clone, Debug)]
enum Step {
    Field(String),
    Element,
}

/// Every part of a schema below spec and status, with the way to it.
fn parts<'a>(schema: &'a Value, way: &mut Vec<Step>, found: &mut Vec<(Vec<Step>, &'a Value)>) {
    found.push((way.clone(), schema));
    for (name, part) in schema["properties"].as_object().into_iter().flatten() {
        way.push(Step::Field(name.clone()));
        parts(part, way, found);
        way.pop();
    }
    for (keyword, step) in [
        ("items", Step::Element),
        ("additionalProperties", Step::Field("k".to_owned())),
    ] {
        if let Some(part) = schema.get(keyword).filter(|part| part.is_object()) {
            way.push(step);
            parts(part, way, found);
            way.pop();
        }
    }
}

fn all(resource: &Resource) -> Vec<(Vec<Step>, &'static Value)> {
    let resource = apiservice::find(resource.plural).unwrap();
    let mut found = Vec::new();
    for part in ["spec", "status"] {
        let schema = resource.schema().at(&[part]).unwrap();
        parts(schema, &mut vec![Step::Field(part.to_owned())], &mut found);
    }
    // Those are as additionalContainers.
    found.retain(|(way, _)| !format!("{way:?}").contains("additionalInitContainers"));
    found
}

/// A value that a schema takes.
fn sample(schema: &Value) -> Value {
    if let Some(one) = schema["enum"].get(0) {
        return one.clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            let mut object = json!({});
            for name in schema["required"].as_array().into_iter().flatten() {
                let name = name.as_str().unwrap();
                object[name] = sample(&schema["properties"][name]);
            }
            object
        }
        Some("array") => json!([]),
        Some("boolean") => json!(true),
        Some("integer") => json!(schema["minimum"].as_f64().unwrap_or(1.0) as i64),
        Some("string") if schema["format"] == "date-time" => json!("2026-01-01T00:00:00Z"),
        Some("string") => json!("a"),
        _ => json!("1"),
    }
}

/// Puts a value where the way leads, and samples of what has to be around it.
fn put(place: &mut Value, schema: &Value, way: &[Step], value: &Value) {
    let Some((step, rest)) = way.split_first() else {
        *place = value.clone();
        return;
    };
    if place.is_null() {
        *place = sample(schema);
    }
    match step {
        Step::Field(name) => {
            let part = schema["properties"].get(name);
            let part = part.unwrap_or(&schema["additionalProperties"]);
            put(&mut place[name.as_str()], part, rest, value);
        }
        Step::Element => {
            let list = place.as_array_mut().unwrap();
            if list.is_empty() {
                list.push(Value::Null);
            }
            put(&mut list[0], &schema["items"], rest, value);
        }
    }
}

fn with(resource: &Resource, way: &[Step], value: &Value) -> Value {
    let mut object = base(resource);
    put(&mut object, resource.schema().open_api(), way, value);
    object
}

fn number(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// R6.11: 1.0 is 1 and 1e3 is 1000, whatever is asked about the object; what is no int64 is
/// refused.
#[test]
fn integers_are_integers_however_they_are_written() {
    let mut admitted = 0;
    for resource in RESOURCES {
        let integers = all(resource);
        for (way, schema) in integers {
            if schema["type"] != "integer" {
                continue;
            }
            for (float, integer) in [("1.0", "1"), ("1e3", "1000"), ("4e9", "4000000000")] {
                let as_float = completed(resource, with(resource, &way, &number(float)));
                let as_integer = completed(resource, with(resource, &way, &number(integer)));
                let found = errors(resource, &as_float);
                assert_eq!(found, errors(resource, &as_integer), "{way:?}");
                assert_eq!(
                    resource.borrowed(&as_float, None),
                    resource.borrowed(&as_integer, None)
                );
                if found.is_empty() {
                    admitted += 1;
                    assert_eq!(decoded(resource, &as_float), Ok(()), "{way:?} {float}");
                }
            }
            for beyond in ["9223372036854775808", "-9223372036854775809", "1e300"] {
                let object = completed(resource, with(resource, &way, &number(beyond)));
                let found = errors(resource, &object);
                assert!(
                    found
                        .iter()
                        .any(|error| error.contains("must be of type int")),
                    "{way:?} {beyond}: {found:?}"
                );
            }
        }
    }
    assert!(admitted > 200, "{admitted}");
}

/// Every part of both schemas with values of every sort.
#[test]
fn what_is_admitted_decodes() {
    let values = [
        "null",
        "-1",
        "1.0",
        "2147483648",
        "9223372036854775808",
        r#""""#,
        r#""x""#,
        r#""YR==""#,
        r#""20260101T000000Z""#,
        r#""2026-01-01T3:00:00Z""#,
        "[null]",
        r#"{"k":null}"#,
    ]
    .map(number);
    let root = Path::root();
    let (mut admitted, mut fenced) = (0, Vec::new());
    for resource in RESOURCES {
        assert_eq!(
            errors(resource, &completed(resource, base(resource))),
            [""; 0]
        );
        for (way, _) in all(resource) {
            for value in &values {
                let object = completed(resource, with(resource, &way, value));
                let found = errors(resource, &object);
                let decoded = decoded(resource, &object);
                if found.is_empty() {
                    admitted += 1;
                    assert_eq!(decoded, Ok(()), "{way:?} {value}");
                } else if decoded.is_err() && resource.schema().validate(&object, &root).is_empty()
                {
                    fenced.extend(found);
                }
            }
        }
    }
    // What the schema takes of an int-or-string and our types do not.
    assert!(!fenced.is_empty());
    for error in fenced {
        assert!(error.ends_with("expected a 32-bit integer"), "{error}");
    }
    assert!(admitted > 2_000, "{admitted}");
}

/// R6.14: a part that is as it was stored does not keep anybody from a finalizer, a label or
/// the status, whatever it is by now.
#[test]
fn what_is_as_it_was_is_not_blamed() {
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    let mut old = completed(resource, base(resource));
    let deployment = &mut old["spec"]["controlPlane"]["deployment"];
    deployment["strategy"]["rollingUpdate"]["maxSurge"] = json!(2_147_483_648_u32);
    assert!(decoded(resource, &old).is_err());
    let mut new = old.clone();
    new["metadata"]["labels"] = json!({"a": "b"});
    new["status"] = json!({"observedGeneration": 1});
    let texts = |errors: Errors| errors.iter().map(Error::to_string).collect::<Vec<_>>();
    assert_eq!(texts(resource.validate(&new, Some(&old))), [""; 0]);
    assert_eq!(texts(resource.validate_status(&new, &old)), [""; 0]);
    new["spec"]["controlPlane"]["deployment"]["replicas"] = json!(3);
    let told = texts(resource.validate(&new, Some(&old)));
    let field = "spec.controlPlane.deployment.strategy.rollingUpdate.maxSurge: Invalid value: ";
    assert!(told[0].starts_with(field), "{told:?}");
    // Whoever writes the status is not let past what they change either.
    let mut new = old.clone();
    new["metadata"]["generation"] = json!("x");
    let told = texts(resource.validate_status(&new, &old));
    assert!(
        told[0].starts_with("metadata.generation: Invalid value: "),
        "{told:?}"
    );
}

/// A few bytes of text become kilobytes of ours: lists of such are short, whatever the
/// text weighs.
#[test]
fn lists_of_what_is_large_are_short() {
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    for (list, what) in [
        ("additionalInitContainers", "image"),
        ("additionalContainers", "image"),
        ("additionalVolumes", "hostPath"),
    ] {
        let more = |number: usize| match what {
            "image" => json!({"name": format!("n{number}"), "image": "i"}),
            _ => json!({"name": format!("n{number}"), "hostPath": {"path": "/"}}),
        };
        let of = |count: usize| {
            let mut object = base(resource);
            let items: Vec<Value> = (0..count).map(more).collect();
            object["spec"]["controlPlane"]["deployment"][list] = items.into();
            let object = completed(resource, object);
            resource.validate(&object, None)
        };
        let told = of(257);
        let why = format!("spec.controlPlane.deployment.{list}: Too many: 257");
        assert!(told[0].to_string().starts_with(&why), "{}", told[0]);
        let fits = of(256);
        assert!(
            fits.iter().all(|it| !it.to_string().contains("Too many")),
            "{list}"
        );
    }
}
