//! The objects as the API keeps them: create, read, change, delete, list and watch, for requests from outside
//! and for the parts of this process alike.

mod apply;
mod attempts;
mod binding;
mod collection;
mod commit;
mod connect;
mod create;
mod definition;
mod delete;
mod ensure;
mod eviction;
mod hub;
mod list;
mod namespace;
mod pages;
mod read;
mod recorded;
mod scale;
mod selection;
mod update;
mod watch;
mod writer;

use std::sync::Arc;

use access::{Attributes, Authorizer, Reason, Tokens, UserInfo, Wanted};
use api::Catalog;
use machinery::{Cause, Object, Resource, Status};
use objects::Named;
use store::{State, Store};

use self::hub::Hub;
use self::pages::Pages;
use crate::admission::quota::Turns;
use crate::admission::{Admission, Outside, ServiceRange};
use crate::backend::Backends;
use crate::catalog::{Definitions, Known};
use crate::clock::Edge;
use crate::conversion::Converter;
use crate::webhook::WebhookClient;

pub(crate) use apply::Apply;
pub(crate) use binding::Binding;
pub(crate) use commit::Written;
pub(crate) use create::{Create, fit_namespace};
pub(crate) use delete::{DeleteOptions, propagation};
pub(crate) use hub::told_as;
pub(crate) use list::{ListOptions, Listing, Match};
pub(crate) use read::Freshness;
pub(crate) use recorded::Recorded;
pub(crate) use selection::Selection;
pub(crate) use update::Update;
pub(crate) use watch::{Watch, WatchEnd, WatchEvent, WatchOptions};

/// Reads and changes objects in the store.
pub(crate) struct Registry {
    store: Arc<dyn Store>,
    services: ServiceRange,
    authorizer: Arc<Authorizer>,
    admission: Admission,
    backends: Arc<dyn Backends>,
    turns: Turns,
    tokens: Tokens,
    hub: Arc<Hub>,
    converter: Arc<Converter>,
    pages: Pages,
    definitions: Arc<Known>,
    edge: Arc<dyn Edge>,
}

impl Registry {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        services: ServiceRange,
        backends: Arc<dyn Backends>,
        tokens: Tokens,
        authorizer: Authorizer,
        edge: Arc<dyn Edge>,
    ) -> Self {
        let hub = Hub::new(store.clone());
        let authorizer = Arc::new(authorizer);
        let client = Arc::new(WebhookClient::new(backends.clone()));
        let converter = Converter::new(client.clone(), edge.clone());
        let definitions = Arc::new(Known::default());
        let outside = Outside::new(authorizer.clone(), client, converter.clone(), definitions.clone());
        let (admission, turns, pages) = (Admission::new(outside), Turns::default(), Pages::default());
        Registry {
            store,
            services,
            authorizer,
            admission,
            backends,
            turns,
            tokens,
            hub,
            converter,
            pages,
            definitions,
            edge,
        }
    }

    /// The addresses that services get.
    pub(crate) fn services(&self) -> &ServiceRange {
        &self.services
    }

    /// The faults of where an object leads connections to: of this host's loopback network, only the cluster's own addresses
    /// may be endpoints.
    fn endpoint_faults(&self, resource: &Resource, object: &Object) -> Vec<Cause> {
        api::validate_endpoint_addresses(resource, object, &|address| self.backends.allows(address))
    }

    /// The clock and the randomness that it writes by.
    pub(crate) fn edge(&self) -> &Arc<dyn Edge> {
        &self.edge
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    pub(crate) fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    /// What is served now.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.definitions_at(&self.store.snapshot()).catalog().clone()
    }

    /// The definitions as of a state, or newer.
    pub(crate) fn definitions_at(&self, state: &State) -> Arc<Definitions> {
        self.definitions.at(state)
    }

    /// The resource of an object's `apiVersion` and `kind`; of objects that lie in a version that is no longer served,
    /// the one that is stored.
    pub(crate) fn resource_of(&self, api_version: &str, kind: &str) -> Result<Resource, Status> {
        let definitions = self.definitions_at(&self.store.snapshot());
        if let Some(resource) = definitions.catalog().resource_of_kind(api_version, kind) {
            return Ok(resource.clone());
        }
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let mut of_group = definitions.iter().filter(|definition| definition.group() == group);
        let stored = of_group.find_map(|definition| definition.storage_resource().filter(|r| r.kind == kind));
        stored.ok_or_else(|| {
            Status::bad_request(format!("no kind {kind:?} is served in version {api_version:?}"))
        })
    }

    /// 403 unless `who` may do it.
    pub(crate) fn check_allowed(&self, who: &UserInfo, wanted: &Wanted<'_>) -> Result<(), Status> {
        self.authorizer.check(&self.store.snapshot(), who, wanted)
    }

    /// Why `who` may do it; 403 unless `who` may.
    pub(crate) fn judge(&self, who: &UserInfo, wanted: &Wanted<'_>) -> Result<Reason, Status> {
        self.authorizer.judge(&self.store.snapshot(), who, wanted)
    }

    /// 403 unless `who` may create it: asked where the object of a change turns out not to be there.
    pub(crate) fn check_may_create(&self, who: &UserInfo, named: &Named<'_>) -> Result<(), Status> {
        let wanted = Attributes {
            verb: "create",
            group: named.resource.group,
            resource: named.resource.plural,
            subresource: "",
            namespace: named.namespace,
            name: named.name,
            fields: "",
        };
        self.check_allowed(who, &Wanted::Object(wanted))
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }
}
