//! Images from registries, by OCI's distribution specification 1.1.

mod challenge;
mod client;
mod credentials;
mod layer;
mod patience;
mod registries;
mod session;
mod tls;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, Shared, WeakShared};
use futures::{FutureExt, StreamExt};
use tokio::sync::Semaphore;

pub use credentials::{Credentials, Keyring};
pub use patience::Patience;
pub use registries::{Registries, Registry};

use crate::manifest::{Descriptor, Document, Manifest, choose};
use crate::{Digest, Error, Image, Reference, Store};
use client::Client;
use session::Session;

/// Layers of one image that come at the same time: containerd's `max_concurrent_downloads`.
const LAYERS_AT_ONCE: usize = 3;
/// Of all images: a slow registry doesn't hold up others, and a host's memory has an end.
const ALL_AT_ONCE: usize = 16;
/// Indexes in indexes.
const DEEPEST: usize = 4;
/// How often layers may be removed while their image comes.
const MOST_REMOVALS: usize = 3;

/// How a [`Puller`] asks.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What is known about registries.
    pub registries: Registries,
    /// How long they may take.
    pub patience: Patience,
}

/// Pulls images into a store. Who asks for an image that is on its way waits for it, and what several images have in common comes
/// once.
pub struct Puller {
    shared: Arc<Shares>,
}

struct Shares {
    store: Store,
    client: Client,
    all: Semaphore,
    pulls: Mutex<HashMap<Asked, WeakShared<Pull>>>,
    layers: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

/// An image, and who asks for it.
type Asked = (Reference, Vec<Credentials>);
type Pull = BoxFuture<'static, Result<Arc<Image>, Arc<Error>>>;

impl Puller {
    /// Pulls into `store`.
    ///
    /// # Errors
    /// If the configuration can't be.
    pub fn new(store: Store, settings: Settings) -> Result<Self, Error> {
        settings.registries.check()?;
        let Settings { registries, patience } = settings;
        let client = Client { registries, patience, trust: tls::Trust::default() };
        let (pulls, layers) = (Mutex::default(), Mutex::default());
        let all = Semaphore::new(ALL_AT_ONCE);
        Ok(Puller { shared: Arc::new(Shares { store, client, all, pulls, layers }) })
    }

    /// Pulls an image: its mirrors are asked first, its own registry last, with each of the keyring's credentials that fit. What
    /// of it is there already doesn't come again. Dropping the future ends the pull, unless somebody else waits for it.
    ///
    /// # Errors
    /// Why the last one who was asked didn't give it.
    pub async fn pull(&self, name: &Reference, keyring: &Keyring) -> Result<Arc<Image>, Arc<Error>> {
        let pull = self.shared.clone().joined(name, keyring);
        pull.await
    }
}

impl Shares {
    /// The pull of an image that somebody with the same credentials waits for already, or a new one.
    fn joined(self: Arc<Self>, name: &Reference, keyring: &Keyring) -> Shared<Pull> {
        let key = (name.clone(), keyring.lookup(&name.name()));
        let mut pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        pulls.retain(|_, pull| pull.upgrade().is_some_and(|pull| pull.peek().is_none()));
        if let Some(pull) = pulls.get(&key).and_then(WeakShared::upgrade) {
            return pull;
        }
        let (this, name, keyring) = (self.clone(), name.clone(), keyring.clone());
        let pull = async move { this.pull(&name, &keyring).await.map_err(Arc::new) };
        let pull = pull.boxed().shared();
        if let Some(weak) = pull.downgrade() {
            pulls.insert(key, weak);
        }
        pull
    }

    async fn pull(&self, name: &Reference, keyring: &Keyring) -> Result<Arc<Image>, Error> {
        let endpoints = self.client.registries.endpoints(name);
        let last = endpoints.len() - 1;
        let mut failed = Error::NotPresent(name.to_string());
        for (n, endpoint) in endpoints.into_iter().enumerate() {
            let place = format!("{}{}/{}", endpoint.name, endpoint.prefix, name.repository());
            let known = keyring.lookup(&place).into_iter().map(Some).collect::<Vec<_>>();
            let known = if known.is_empty() { vec![None] } else { known };
            for credentials in known {
                let endpoint = endpoint.clone();
                let session = Session::new(&self.client, endpoint, name.repository(), credentials, n == last);
                match self.pull_from(&session, name).await {
                    Ok(image) => return Ok(image),
                    Err(error) => failed = error,
                }
                if !matches!(failed, Error::Refused { status: 401 | 403, .. }) {
                    break;
                }
            }
            if n < last {
                tracing::info!(image = %name, mirror = place, why = %failed, "a mirror doesn't give an image");
            }
        }
        Err(failed)
    }

    async fn pull_from(&self, session: &Session<'_>, name: &Reference) -> Result<Arc<Image>, Error> {
        let (bytes, manifest, digests) = self.resolve(session, name).await?;
        let mut references = vec![name.key()];
        references.extend(digests.iter().map(|digest| name.with_digest(digest)));
        let mut removals = 0;
        loop {
            if let Some(there) = self.store.find_digest(&Digest::sha256(&bytes))?
                && self.store.add_names(&there.digest, &references)?
            {
                return self
                    .store
                    .find_digest(&there.digest)?
                    .ok_or_else(|| Error::NotPresent(name.to_string()));
            }
            let config = session.blob(&manifest.config.digest, manifest.config.size).await?;
            let stored = self.store.readable(&config, manifest.layers.len())?;
            let layers = stored.diff_ids().iter().zip(&manifest.layers);
            let layers: Vec<_> =
                layers.map(|(diff_id, blob)| self.layer(session, blob, diff_id).boxed()).collect();
            let mut coming = futures::stream::iter(layers).buffer_unordered(LAYERS_AT_ONCE);
            while let Some(layer) = coming.next().await {
                layer?;
            }
            match self.store.add_image(&bytes, &config, &references) {
                Err(Error::Removed(_)) if removals < MOST_REMOVALS => removals += 1,
                done => return done,
            }
        }
    }

    /// From a name to the manifest for this machine, and the digests that lead there.
    async fn resolve(
        &self,
        session: &Session<'_>,
        name: &Reference,
    ) -> Result<(bytes::Bytes, Manifest, Vec<Digest>), Error> {
        let mut by = match (name.digest(), name.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or_default().to_owned(),
        };
        let mut expected: Option<(Digest, Option<u64>)> = name.digest().map(|digest| (digest.clone(), None));
        let mut digests = Vec::new();
        for _ in 0..DEEPEST {
            let (bytes, told) = session.manifest(&by).await?;
            let what = format!("manifest {by} of {}", name.name());
            let digest = match &expected {
                Some((digest, size)) => {
                    let length = bytes.len() as u64;
                    let found = (digest.algorithm().of(&bytes), length);
                    crate::unpack::check(&what, (digest, size.unwrap_or(length)), found)?;
                    digest.clone()
                }
                None => Digest::sha256(&bytes),
            };
            digests.push(digest);
            match Document::read(&bytes, &told, &what)? {
                Document::Manifest(manifest) => return Ok((bytes, manifest, digests)),
                Document::Index(manifests) => {
                    let chosen = choose(&manifests, &self.store.options().platform, &what)?;
                    by = chosen.digest.to_string();
                    expected = Some((chosen.digest.clone(), Some(chosen.size)));
                }
            }
        }
        Err(Error::manifest(name.to_string(), "its indexes lead to other indexes without end"))
    }

    /// Sees to it that a layer is there: it is pulled once, however many ask for it.
    async fn layer(&self, session: &Session<'_>, blob: &Descriptor, diff_id: &Digest) -> Result<(), Error> {
        if self.store.has_layer(diff_id)? {
            return Ok(());
        }
        let own = entry(&self.layers, diff_id);
        let _own = own.lock().await;
        // Somebody else has had it come meanwhile.
        if self.store.has_layer(diff_id)? {
            return Ok(());
        }
        let _one = self.all.acquire().await;
        layer::fetch(&self.store, session, blob, diff_id).await
    }
}

/// Whether a value of `WWW-Authenticate` offers a way in.
pub(crate) fn ways_in(value: &str) -> bool {
    challenge::challenge(std::iter::once(value)).is_some()
}

/// The lock for a key. Those that nobody has go.
fn entry<K: Clone + Eq + Hash>(
    locks: &Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>,
    key: &K,
) -> Arc<tokio::sync::Mutex<()>> {
    let mut locks = locks.lock().unwrap_or_else(PoisonError::into_inner);
    locks.retain(|_, lock| Arc::strong_count(lock) > 1);
    locks.entry(key.clone()).or_default().clone()
}
