//! How a machine becomes a host: the first of a cluster (`holdfast init`), or one that joins (`holdfast join`).
//!
//! What is decided here is a function of what came in: [`Machine::place`] who this machine is, [`first_config`] the first host's
//! configuration, [`check_token`] whether a token opens the door, [`admit`] who may join as what. Nothing speaks to
//! the network; the program carries [`JoinRequest`] and [`Grant`] between the two sides. Files are a [`Layout`]'s business
//! alone: the configuration comes last, so a host whose configuration is there is whole. Until then an [`Attempt`] says whose the
//! keys are that lie there.

mod admit;
mod attempt;
mod exchange;
mod first;
mod layout;
mod machine;
mod register;
mod settings;
mod token;
mod tries;

pub use admit::{Admitted, Applicant, Known, KnownNode, Refusal, admit};
pub use attempt::{Attempt, Former, Plan};
pub use exchange::{Grant, JoinRequest, Keys, LARGEST_REQUEST, PATH, Shared};
pub use first::{FirstHost, first_config, first_service};
pub use layout::{Error as LayoutError, Layout, Stage};
pub use machine::{Error as MachineError, Link, Machine, Place};
pub use register::{Entry, KEY as REGISTER_KEY, Overlap, Register};
pub use settings::{Error as SettingsError, Settings};
pub use token::{
    ListedToken, NoToken, Opens, SECRET_PREFIX, SECRETS_NAMESPACE, Token, TokenRefused, check_token, listed,
};
pub use tries::Tries;
