//! Kubernetes' own tests, and the programs in images that they run: no part of a
//! cluster, so that whoever wants them asks for them.

use std::time::Duration;

use super::{GoProgram, VERSION_OF_KUBERNETES};

const GO_MOD: &str = include_str!("../../../programs/conformance/go.mod");
const GO_SUM: &str = include_str!("../../../programs/conformance/go.sum");

/// The tests themselves.
pub static E2E: GoProgram = GoProgram {
    name: "e2e.test",
    links: &[],
    package: "k8s.io/kubernetes/test/e2e",
    module: "k8s.io/kubernetes",
    // By it they choose what the server must be able to do.
    variables: VERSION_OF_KUBERNETES,
    go_mod: GO_MOD,
    go_sum: GO_SUM,
    main: None,
    expected: Duration::from_secs(240),
};

/// What runs them side by side.
pub static GINKGO: GoProgram = GoProgram {
    name: "ginkgo",
    links: &[],
    package: "github.com/onsi/ginkgo/v2/ginkgo",
    module: "github.com/onsi/ginkgo/v2",
    variables: &[],
    go_mod: GO_MOD,
    go_sum: GO_SUM,
    main: None,
    expected: Duration::from_secs(20),
};

/// The program that most of their pods run.
pub static AGNHOST: GoProgram = GoProgram {
    name: "agnhost",
    links: &[],
    package: "k8s.io/kubernetes/test/images/agnhost",
    module: "k8s.io/kubernetes",
    variables: &[],
    go_mod: GO_MOD,
    go_sum: GO_SUM,
    main: None,
    expected: Duration::from_secs(60),
};

/// A program that says as whom it runs.
pub static NO_NEW_PRIVILEGES: GoProgram = GoProgram {
    name: "nonewprivs",
    links: &[],
    package: "k8s.io/kubernetes/test/images/nonewprivs",
    module: "k8s.io/kubernetes",
    variables: &[],
    go_mod: GO_MOD,
    go_sum: GO_SUM,
    main: None,
    expected: Duration::from_secs(5),
};

/// An aggregated API. It has no release of its own: its version is the module's.
pub static SAMPLE_API_SERVER: GoProgram = GoProgram {
    name: "sample-apiserver",
    links: &[],
    package: "k8s.io/sample-apiserver",
    module: "k8s.io/sample-apiserver",
    variables: &[],
    go_mod: GO_MOD,
    go_sum: GO_SUM,
    main: None,
    expected: Duration::from_secs(20),
};

/// All of them.
pub static ALL: [&GoProgram; 5] = [
    &GINKGO,
    &NO_NEW_PRIVILEGES,
    &SAMPLE_API_SERVER,
    &AGNHOST,
    &E2E,
];
