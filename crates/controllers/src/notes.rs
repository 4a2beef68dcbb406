//! What a key remembers of its own decisions.

use crate::autoscaler::Pace;

/// What a key remembers of its own decisions while this member leads.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Notes {
    /// Nothing.
    #[default]
    Nothing,
    /// What an autoscaler recommended, and when.
    Pace(Pace),
    /// The uid of the Node that was seen under this name.
    Node(String),
}

impl Notes {
    pub(crate) fn pace(&self) -> Option<&Pace> {
        match self {
            Notes::Pace(pace) => Some(pace),
            _ => None,
        }
    }

    pub(crate) fn node(&self) -> Option<&str> {
        match self {
            Notes::Node(uid) => Some(uid),
            _ => None,
        }
    }
}
