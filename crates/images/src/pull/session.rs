//! One repository of one registry, asked as one user.

use std::sync::PoisonError;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, RANGE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::challenge::{Challenge, challenge};
use super::client::{Answer, Client};
use super::credentials::Credentials;
use super::registries::Endpoint;
use crate::manifest::{DOCKER_LIST, DOCKER_MANIFEST, LARGEST, OCI_INDEX, OCI_MANIFEST};
use crate::unpack::check;
use crate::{Digest, Error};

/// Tokens have some kilobytes.
const LARGEST_TOKEN: u64 = 1 << 20;

pub(super) struct Session<'a> {
    client: &'a Client,
    endpoint: Endpoint,
    repository: String,
    credentials: Option<Credentials>,
    /// What was found to be believed.
    authorization: std::sync::Mutex<Option<HeaderValue>>,
    /// One asks for a token, and the others wait for it.
    asking: tokio::sync::Mutex<()>,
    /// Whether it is asked again if it can't be reached.
    is_last: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        client: &'a Client,
        endpoint: Endpoint,
        repository: &str,
        credentials: Option<Credentials>,
        is_last: bool,
    ) -> Self {
        Session {
            client,
            endpoint,
            repository: repository.to_owned(),
            credentials,
            authorization: std::sync::Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            is_last,
        }
    }

    /// The host that is asked.
    pub(super) fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// A manifest or an index by tag or digest, with the media type that it was sent as.
    pub(super) async fn manifest(&self, by: &str) -> Result<(Bytes, String), Error> {
        let mut made = 0;
        loop {
            let error = match self.manifest_once(by).await {
                Err(error) => error,
                done => return done,
            };
            made += 1;
            self.pause(made, error).await?;
        }
    }

    async fn manifest_once(&self, by: &str) -> Result<(Bytes, String), Error> {
        let what = format!("manifest {by} of {}/{}", self.endpoint.name, self.repository);
        let accept = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST].join(", ");
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, value(&accept, &what)?);
        let answer = self.get(&format!("manifests/{by}"), &headers).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.refusal(&what).await);
        }
        let text =
            |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let told = text(CONTENT_TYPE.as_str()).unwrap_or_default();
        let told = told.split(';').next().unwrap_or_default().trim().to_owned();
        let promised = text("docker-content-digest").and_then(|digest| Digest::parse(&digest).ok());
        let bytes = answer.body.read(LARGEST, &what).await?;
        if let Some(expected) = promised.filter(|digest| !digest.is_of(&bytes)) {
            let found = expected.algorithm().of(&bytes);
            return Err(Error::WrongDigest { what, expected, found });
        }
        Ok((bytes, told))
    }

    /// A small blob, checked.
    pub(super) async fn blob(&self, digest: &Digest, size: u64) -> Result<Bytes, Error> {
        let mut made = 0;
        loop {
            let error = match self.blob_once(digest, size).await {
                Err(error) => error,
                done => return done,
            };
            made += 1;
            self.pause(made, error).await?;
        }
    }

    async fn blob_once(&self, digest: &Digest, size: u64) -> Result<Bytes, Error> {
        let what = format!("blob {digest} of {}/{}", self.endpoint.name, self.repository);
        if size > LARGEST {
            return Err(Error::TooLarge { what, most: LARGEST });
        }
        let answer = self.blob_from(digest, 0).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.refusal(&what).await);
        }
        let bytes = answer.body.read(LARGEST, &what).await?;
        check(&what, (digest, size), (digest.algorithm().of(&bytes), bytes.len() as u64))?;
        Ok(bytes)
    }

    /// Asks for a blob, from one of its bytes on.
    pub(super) async fn blob_from(&self, digest: &Digest, from: u64) -> Result<Answer, Error> {
        let mut headers = HeaderMap::new();
        if from > 0 {
            headers.insert(RANGE, value(&format!("bytes={from}-"), "a range")?);
        }
        self.get(&format!("blobs/{digest}"), &headers).await
    }

    /// Waits before the next attempt, if there is to be one.
    ///
    /// # Errors
    /// `error`, if trying again is in vain or was tried often enough.
    pub(super) async fn pause(&self, made: u32, error: Error) -> Result<(), Error> {
        let asked = match &error {
            Error::Unreachable { .. } if self.is_last => None,
            Error::Refused { status: 408 | 429 | 500..=599, retry_after, .. } => *retry_after,
            _ => return Err(error),
        };
        match self.client.patience.pause(made, asked) {
            None => Err(error),
            Some(pause) => {
                tracing::debug!(%error, ?pause, "a registry is asked again");
                tokio::time::sleep(pause).await;
                Ok(())
            }
        }
    }

    async fn get(&self, path: &str, headers: &HeaderMap) -> Result<Answer, Error> {
        let host = &self.endpoint.host;
        let scheme = if self.client.registries.connection(host).plain_http { "http" } else { "https" };
        let Endpoint { prefix, mirrors, .. } = &self.endpoint;
        // As containerd: one mirror may stand for several registries.
        let of = mirrors.as_ref().map(|of| format!("?ns={}", encoded(of))).unwrap_or_default();
        let url = format!("{scheme}://{host}{prefix}/v2/{}/{path}{of}", self.repository);
        let uri: Uri = url.parse().map_err(|_| protocol(&url, "it is no URL"))?;
        let used = self.authorization();
        let answer = self.client.get(&uri, headers, used.as_ref()).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let asking = self.asking.lock().await;
        if self.authorization() == used {
            let found = self.authorize(answer).await?;
            *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        }
        drop(asking);
        self.client.get(&uri, headers, self.authorization().as_ref()).await
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What to say to who answered with 401.
    async fn authorize(&self, answer: Answer) -> Result<HeaderValue, Error> {
        let what = format!("{}/{}", self.endpoint.name, self.repository);
        let values = answer.headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        match (challenge(values), &self.credentials) {
            (Some(Challenge::Basic), Some(credentials)) => basic(credentials),
            (Some(Challenge::Bearer { realm, service, scope }), _) => {
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.repository));
                self.token(&realm, service.as_deref(), &scope, &what).await
            }
            (Some(Challenge::Basic), None) | (None, _) => Err(answer.refusal(&what).await),
        }
    }

    /// Asks for a token: distribution specification, "Token Authentication".
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        what: &str,
    ) -> Result<HeaderValue, Error> {
        #[derive(Deserialize)]
        struct Token {
            #[serde(default)]
            token: Option<String>,
            #[serde(default)]
            access_token: Option<String>,
        }
        let what = format!("the token for {what}");
        let mut url = realm.to_owned();
        let asked = [service.map(|service| ("service", service)), Some(("scope", scope))];
        for (key, text) in asked.into_iter().flatten() {
            let separator = if url.contains('?') { '&' } else { '?' };
            url = format!("{url}{separator}{key}={}", encoded(text));
        }
        let uri: Uri = url.parse().map_err(|_| protocol(&what, "it is to be had from no URL"))?;
        self.client
            .may_ask(&uri)
            .map_err(|why| protocol(&what, &format!("{}: {why}", uri.host().unwrap_or_default())))?;
        let secret = self.credentials.as_ref().map(basic).transpose()?;
        let answer = self.client.get(&uri, &HeaderMap::new(), secret.as_ref()).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.refusal(&what).await);
        }
        let bytes = answer.body.read(LARGEST_TOKEN, &what).await?;
        // What the parser says would quote a part of it.
        let token: Token =
            serde_json::from_slice(&bytes).map_err(|_| protocol(&what, "it came as no JSON"))?;
        let token = token.token.or(token.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| protocol(&what, "there is none in the answer"))?;
        secret_value(&format!("Bearer {token}"))
    }
}

fn protocol(what: &str, why: &str) -> Error {
    Error::Protocol { what: what.to_owned(), why: why.to_owned() }
}

fn encoded(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

fn value(text: &str, what: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|_| protocol(what, "it can't stand in a request"))
}

fn basic(credentials: &Credentials) -> Result<HeaderValue, Error> {
    let text = format!("{}:{}", credentials.user, credentials.password);
    secret_value(&format!("Basic {}", BASE64_STANDARD.encode(text)))
}

fn secret_value(text: &str) -> Result<HeaderValue, Error> {
    let mut value =
        HeaderValue::from_str(text).map_err(|_| protocol("a token", "it can't stand in a request"))?;
    value.set_sensitive(true);
    Ok(value)
}
