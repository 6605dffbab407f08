//! Prints the kinds as CustomResourceDefinitions, one JSON document a line.

fn main() -> Result<(), serde_json::Error> {
    for resource in apiservice::RESOURCES {
        println!(
            "{}",
            serde_json::to_string(&apiservice::crd::crd(resource)?)?
        );
    }
    Ok(())
}
