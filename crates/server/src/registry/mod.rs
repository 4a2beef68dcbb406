//! The objects as the API keeps them: create, read, change, delete, list and watch, for requests from outside
//! and for the parts of this process alike.

mod apply;
mod binding;
mod collection;
mod commit;
mod create;
mod delete;
mod eviction;
mod hub;
mod list;
mod named;
mod namespace;
mod pages;
mod read;
mod recorded;
mod scale;
mod selection;
mod stored;
mod update;
mod watch;
mod writer;

use std::sync::Arc;

use store::Store;

use crate::admission::ServiceRange;

use self::hub::Hub;
use self::pages::Pages;

pub(crate) use apply::Apply;
pub(crate) use binding::Binding;
pub(crate) use commit::Claims;
pub(crate) use create::Create;
pub(crate) use delete::{DeleteOptions, propagation};
pub(crate) use list::{ListOptions, Listing, Match};
pub(crate) use named::Named;
pub(crate) use read::Freshness;
pub(crate) use recorded::Recorded;
pub(crate) use selection::Selection;
pub(crate) use stored::{load, load_as, put_list_items, stamped_at};
pub(crate) use update::Change;
pub(crate) use watch::{Watch, WatchEvent, WatchOptions};

/// Reads and changes objects in the store.
pub(crate) struct Registry {
    store: Arc<dyn Store>,
    services: ServiceRange,
    hub: Arc<Hub>,
    pages: Pages,
}

impl Registry {
    pub(crate) fn new(store: Arc<dyn Store>, services: ServiceRange) -> Self {
        let hub = Hub::new(store.clone());
        Registry { store, services, hub, pages: Pages::default() }
    }

    /// The API's own address as a service.
    pub(crate) fn first_service_address(&self) -> std::net::Ipv4Addr {
        self.services.first()
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }
}
