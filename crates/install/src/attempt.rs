//! What a machine is being made, from the first file that is written until it is a host.

use std::fmt;
use std::str::FromStr;

use pki::KeyHash;

/// What a machine is being made. It stands in a file beside the keys until the host is whole: so who tries again goes on
/// with the keys that were made, and what another cluster left is never taken for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// The first host of a cluster.
    First {
        /// What tells the cluster from others.
        cluster_id: String,
    },
    /// A host of a cluster that runs.
    Join {
        /// The hash of its authority's key.
        authority: KeyHash,
    },
}

impl Attempt {
    /// What tells the cluster from others that is begun.
    pub fn cluster_id(&self) -> Option<&str> {
        match self {
            Attempt::First { cluster_id } => Some(cluster_id),
            Attempt::Join { .. } => None,
        }
    }
}

/// How a machine is made what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What it is made.
    pub attempt: Attempt,
    /// What becomes of the keys that lie there.
    pub former: Former,
}

/// What becomes of the keys that lie on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Former {
    /// There are none, or those of the same attempt: they are kept.
    Kept,
    /// Those of another attempt, which came to nothing, go first: nobody has seen a host with them.
    Replaced,
}

/// How to go on from what a former attempt left: its file, and whether there is anything of a host's. Nothing, where that is there and
/// no attempt says that it may go.
pub(crate) fn plan(former: Option<Attempt>, are_remains: bool, wanted: Attempt) -> Option<Plan> {
    let (attempt, former) = match (former, wanted) {
        (None, _) if are_remains => return None,
        (Some(former @ Attempt::First { .. }), Attempt::First { .. }) => (former, Former::Kept),
        (Some(former), wanted) if former != wanted => (wanted, Former::Replaced),
        (_, wanted) => (wanted, Former::Kept),
    };
    Some(Plan { attempt, former })
}

const FIRST: &str = "init";
const JOIN: &str = "join";

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attempt::First { cluster_id } => writeln!(f, "{FIRST} {cluster_id}"),
            Attempt::Join { authority } => writeln!(f, "{JOIN} {authority}"),
        }
    }
}

impl FromStr for Attempt {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.trim().split_once(' ') {
            Some((FIRST, id)) if !id.is_empty() => Ok(Attempt::First { cluster_id: id.to_owned() }),
            Some((JOIN, hash)) => hash.parse().map(|authority| Attempt::Join { authority }).map_err(drop),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_goes_on_and_what_is_another_s_is_not_taken_for_it() {
        let first = |id: &str| Attempt::First { cluster_id: id.to_owned() };
        let join = |digit: &str| Attempt::Join {
            authority: format!("sha256:{}", digit.repeat(64)).parse().unwrap(),
        };
        for attempt in [first("c"), join("1")] {
            assert_eq!(attempt.to_string().parse(), Ok(attempt));
        }
        for wrong in ["", "init", "init ", "join sha256:1", "leave c"] {
            assert_eq!(wrong.parse::<Attempt>(), Err(()), "{wrong}");
        }
        let kept = |attempt| Some(Plan { attempt, former: Former::Kept });
        let replaced = |attempt| Some(Plan { attempt, former: Former::Replaced });
        assert_eq!(plan(None, false, first("c")), kept(first("c")));
        assert_eq!(plan(None, true, first("c")), None, "nobody says whose they are");
        assert_eq!(plan(Some(first("c")), true, first("d")), kept(first("c")), "the cluster that was begun");
        assert_eq!(plan(Some(join("1")), true, join("1")), kept(join("1")));
        assert_eq!(plan(Some(join("1")), true, join("2")), replaced(join("2")));
        assert_eq!(plan(Some(first("c")), true, join("1")), replaced(join("1")));
        assert_eq!(plan(Some(join("1")), false, first("c")), replaced(first("c")));
    }
}
