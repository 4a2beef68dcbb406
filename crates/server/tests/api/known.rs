//! Where answers differ from the recorded ones, and why.

/// A difference that is known.
#[derive(Debug)]
pub struct Known {
    /// What its line has to contain, all of it.
    contains: &'static [&'static str],
    /// Why it is there.
    #[allow(dead_code, reason = "for whoever reads the list, and in failures")]
    reason: &'static str,
}

impl Known {
    /// Whether this is that difference.
    pub fn covers(&self, difference: &str) -> bool {
        self.contains.iter().all(|part| difference.contains(part))
    }
}

const TOKENS: &str = "service accounts have no tokens yet, so that none is mounted";
const DEFINITIONS: &str = "custom resources are not served yet, so that nobody accepts a definition's names";
const LEVELS: &str = "a controller says whether the priority level is there, and none runs beside this test";
const TWICE: &str = "upstream validates metadata more than once and tells each fault as often";

const UNPROTECTED: &str = "no controller knows yet whether a volume is in use, so that none is protected";

pub const KNOWN: &[Known] = &[
    Known { contains: &["/body/spec/volumes: ", "kube-api-access-<gen>"], reason: TOKENS },
    Known { contains: &["/volumeMounts: ", "kube-api-access-<gen>"], reason: TOKENS },
    Known { contains: &["/serviceaccounts/default/token"], reason: TOKENS },
    Known {
        contains: &["/body/spec/tolerations: ", "node.kubernetes.io/unreachable"],
        reason: "pods of a silent host are replaced as soon as that is safe, not tolerated for 300 s",
    },
    Known {
        contains: &["life Node", "/body/spec/taints: ", "node.kubernetes.io/not-ready"],
        reason: "the node controller alone sets and takes away the taints of a node's condition",
    },
    Known {
        contains: &["errors, step 15", "/body: ", "managedFields"],
        reason: "the text has managedFields in it, and strings are quoted otherwise",
    },
    Known { contains: &["life PersistentVolume", "/metadata/finalizers: "], reason: UNPROTECTED },
    Known { contains: &["life PersistentVolumeClaim, step 7, DELETE", "/deletion"], reason: UNPROTECTED },
    Known { contains: &["life PersistentVolumeClaim, step 8, GET"], reason: UNPROTECTED },
    Known { contains: &["life PersistentVolume, step 5, DELETE", "/deletion"], reason: UNPROTECTED },
    Known { contains: &["life PersistentVolume, step 6, GET"], reason: UNPROTECTED },
    Known { contains: &["/details/causes: recorded 2 items, here 1"], reason: TWICE },
    Known { contains: &["life CRD", "/customresourcedefinitions"], reason: DEFINITIONS },
    Known { contains: &["life FlowSchema", "/body/status/conditions: "], reason: LEVELS },
    Known { contains: &["/flowschemas", "/managedFields"], reason: LEVELS },
    Known {
        contains: &["life VAPBinding", "/managedFields/0/fieldsV1/f:spec/f:validationActions/.: "],
        reason: "a set that must be there counts as being there before it is",
    },
    Known { contains: &["GET /version"], reason: "it says that it is Holdfast" },
    Known {
        contains: &["GET /api: /body/serverAddressByClientCIDRs/0/serverAddress"],
        reason: "where the recorded server listened",
    },
    Known {
        contains: &["built-in objects, step 0, GET /api/v1/namespaces"],
        reason: "the recorded server had the namespaces of other cases",
    },
];
