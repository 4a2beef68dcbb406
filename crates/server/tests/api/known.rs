//! Where answers differ from the recorded ones, and why.

/// A difference that is known.
#[derive(Debug)]
pub struct Known {
    /// What its line has to contain, all of it.
    contains: &'static [&'static str],
    /// Why it is there.
    #[allow(dead_code, reason = "for people who read the list, and in failures")]
    reason: &'static str,
}

impl Known {
    /// Whether this is that difference.
    pub fn covers(&self, difference: &str) -> bool {
        self.contains.iter().all(|part| difference.contains(part))
    }
}

const LEVELS: &str = "a controller says whether the priority level is there, and none runs beside this test";
const TWICE: &str = "upstream validates metadata more than once and tells each fault as often";

pub const KNOWN: &[Known] = &[
    Known {
        contains: &["errors, step 15", "/body: ", "managedFields"],
        reason: "the text has managedFields in it, and strings are quoted otherwise",
    },
    Known { contains: &["/details/causes: recorded 2 items, here 1"], reason: TWICE },
    Known {
        contains: &["life CRD, step 1, GET", "/status/conditions/1/"],
        reason: "a definition is established by the write that accepts its names",
    },
    Known {
        contains: &["life CRD, step 6, GET"],
        reason: "a definition without objects is gone at once, and not a second later",
    },
    Known { contains: &["life FlowSchema", "/body/status/conditions: "], reason: LEVELS },
    Known { contains: &["/flowschemas", "/managedFields"], reason: LEVELS },
    Known { contains: &["GET /version"], reason: "it says that it is Holdfast" },
    Known {
        contains: &["discovery", ": recorded 20 items, here 21"],
        reason: "metrics.k8s.io is served too",
    },
    Known {
        contains: &["GET /api: /body/serverAddressByClientCIDRs/0/serverAddress"],
        reason: "where the recorded server listened",
    },
    Known {
        contains: &["built-in objects, step 0, GET /api/v1/namespaces"],
        reason: "the recorded server had the namespaces of other cases",
    },
];
