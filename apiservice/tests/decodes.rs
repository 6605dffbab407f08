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

const HEAVY: &str = "spec: Too long: may not be more than 524288 bytes";

fn tenant(deployment: Value) -> Value {
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    let mut object = base(resource);
    object["spec"]["controlPlane"]["deployment"] = deployment;
    completed(resource, object)
}

fn texts(errors: &[Error]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// Three bytes of text are half a kilobyte as a type.
#[test]
fn what_takes_too_much_as_types_is_refused_before_it_is_decoded() {
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    let empty = |count: usize| vec![json!({}); count];
    let container = |more: Value| {
        let mut container = json!({"name": "c", "image": "i"});
        container
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"additionalContainers": [container]})
    };
    let terms = |terms: Vec<Value>| {
        let selector = json!({"nodeSelectorTerms": terms});
        json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": selector,
        }}})
    };
    type Kind<'a> = (&'a str, &'a dyn Fn(usize) -> Value);
    let kinds: [Kind<'_>; 6] = [
        (
            "sources",
            &|count| json!({"additionalVolumes": [{"name": "v", "projected": {"sources": empty(count)}}]}),
        ),
        ("envFrom", &|count| {
            container(json!({"envFrom": empty(count)}))
        }),
        ("env", &|count| {
            let env = (0..count).map(|it| json!({"name": format!("n{it}")}));
            container(json!({"env": env.collect::<Vec<_>>()}))
        }),
        ("args", &|count| {
            container(json!({"args": vec!["a"; 10 * count]}))
        }),
        ("terms", &|count| terms(empty(count))),
        ("labels", &|count| {
            let labels = (0..10 * count).map(|it| (format!("n{it}"), json!("v")));
            json!({"podAdditionalMetadata": {"labels": labels.collect::<serde_json::Map<_, _>>()}})
        }),
    ];
    for (kind, of) in kinds {
        let few = texts(&resource.validate(&tenant(of(700)), None));
        assert!(
            !few.iter().any(|it| it.starts_with(HEAVY)),
            "{kind}: {few:?}"
        );
        let heavy = tenant(of(5_000));
        let told = texts(&resource.validate(&heavy, None));
        assert!(
            told.iter().any(|it| it.starts_with(HEAVY)),
            "{kind}: {told:?}"
        );
        assert!(
            told.last()
                .unwrap()
                .contains("some validation rules were not checked")
        );
        // Whoever reads it makes no more of it, and knows.
        let read: TenantControlPlane = serde_json::from_value(heavy.clone()).unwrap();
        assert!(read.spec.is_cut, "{kind}");
        let made = serde_json::to_value(&read.spec).unwrap();
        assert!(
            apiservice::bulk::weight(&made) < apiservice::bulk::MOST + 8192,
            "{kind}"
        );

        // An older release took it: it stays, and shrinks, and becomes no larger.
        let mut new = heavy.clone();
        new["metadata"]["labels"] = json!({"a": "b"});
        new["spec"]["controlPlane"]["deployment"]["replicas"] = json!(100);
        new["spec"]["kubernetes"]["version"] = json!("v1.36.2");
        assert_eq!(
            texts(&resource.validate(&new, Some(&heavy))),
            [""; 0],
            "{kind}"
        );
        assert_eq!(
            texts(&resource.validate_status(&new, &heavy)),
            [""; 0],
            "{kind}"
        );
        assert_eq!(resource.warnings(&new, Some(&heavy)), [""; 0], "{kind}");
        let less = tenant(of(4_000));
        assert_eq!(
            texts(&resource.validate(&less, Some(&heavy))),
            [""; 0],
            "{kind}"
        );
        let more = texts(&resource.validate(&tenant(of(5_001)), Some(&heavy)));
        assert!(
            more.iter().any(|it| it.starts_with(HEAVY)),
            "{kind}: {more:?}"
        );
        // What is said of the part that is decoded is said as before.
        new["spec"]["kubernetes"]["version"] = json!("v9.0.0");
        let told = texts(&resource.validate(&new, Some(&heavy)));
        assert!(
            told[0].starts_with("spec.kubernetes.version: Invalid value"),
            "{told:?}"
        );
    }
    let read: TenantControlPlane = serde_json::from_value(tenant(json!({}))).unwrap();
    assert!(!read.spec.is_cut);
}

#[test]
fn lists_that_were_longer_may_become_shorter() {
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    let of = |count: usize| {
        let mut object = tenant(json!({}));
        let names: Vec<String> = (0..count).map(|it| format!("n{it}.example.com")).collect();
        object["spec"]["networkProfile"]["certSANs"] = json!(names);
        object
    };
    let too_many = ["spec.networkProfile.certSANs: Too many: 1001: must have at most 1000 items"];
    let told = |new: usize, old: usize| {
        let mut told = texts(&resource.validate(&of(new), Some(&of(old))));
        told.truncate(1);
        told
    };
    assert_eq!(told(1001, 1), too_many);
    assert_eq!(told(1001, 1000), too_many);
    assert_eq!(told(1001, 1002), [""; 0]);
    assert_eq!(told(1000, 1), [""; 0]);
}

/// What pods, a Service, an Ingress, a route and a certificate are made of.
#[test]
fn what_objects_are_made_of_is_no_larger_than_what_can_be_held_of_them() {
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    let annotations = |bytes: usize| json!({"annotations": {"a/b": "x".repeat(bytes)}});
    let names = |bytes: usize| {
        let names = (0..bytes / 200).map(|it| format!("n{it}.{}", "x.".repeat(95) + "com"));
        json!(names.collect::<Vec<_>>())
    };
    type Part<'a> = (&'a str, &'a str, usize, &'a dyn Fn(usize) -> Value);
    let parts: [Part<'_>; 6] = [
        (
            "spec.controlPlane.deployment",
            "/spec/controlPlane/deployment/podAdditionalMetadata",
            90_112,
            &annotations,
        ),
        (
            "spec.controlPlane.deployment",
            "/spec/controlPlane/deployment/registrySettings/registry",
            90_112 / 4,
            &|bytes| json!("x".repeat(bytes)),
        ),
        (
            "spec.controlPlane.service",
            "/spec/controlPlane/service/additionalMetadata",
            65_536,
            &annotations,
        ),
        (
            "spec.controlPlane.ingress",
            "/spec/controlPlane/ingress/additionalMetadata",
            65_536,
            &annotations,
        ),
        (
            "spec.controlPlane.gateway",
            "/spec/controlPlane/gateway/additionalMetadata",
            65_536,
            &annotations,
        ),
        (
            "spec.networkProfile.certSANs",
            "/spec/networkProfile/certSANs",
            65_536,
            &names,
        ),
    ];
    for (part, pointer, most, of) in parts {
        let with = |value: Value| {
            let mut object = tenant(json!({}));
            let mut at = &mut object;
            for name in pointer.split('/').skip(1) {
                at = &mut at[name];
            }
            *at = value;
            object
        };
        let fits = with(of(most * 9 / 10));
        assert_eq!(texts(&resource.validate(&fits, None)), [""; 0], "{pointer}");
        let large = with(of(most * 11 / 10));
        let told = texts(&resource.validate(&large, None));
        let bytes = if part.ends_with("deployment") {
            90_112
        } else {
            65_536
        };
        let why = format!("{part}: Too long: may not be more than {bytes} bytes as the");
        assert!(told[0].starts_with(&why), "{told:?}");
        let read: TenantControlPlane = serde_json::from_value(large.clone()).unwrap();
        assert_eq!(apiservice::v1alpha1::too_large(&read.spec), [part]);
        // An older release took it.
        let mut scaled = large.clone();
        scaled["spec"]["controlPlane"]["deployment"]["replicas"] = json!(1000);
        assert_eq!(texts(&resource.validate(&scaled, Some(&large))), [""; 0]);
        assert_eq!(texts(&resource.validate(&fits, Some(&large))), [""; 0]);
        let larger = with(of(most * 12 / 10));
        assert!(texts(&resource.validate(&larger, Some(&large)))[0].starts_with(&why));
    }
}
