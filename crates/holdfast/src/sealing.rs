//! Objects encrypted at rest: by a file as Kubernetes has it, an `EncryptionConfiguration` (docs/encryption.md).

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use figures::{family, sample};
use pki::{SealKeys, SecretText};
use serde::Deserialize;
use store::{SEALED, Sealer};
use tokio::sync::watch;

/// The longest file that is read, in bytes.
const LONGEST: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    resources: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    resources: Vec<String>,
    providers: Vec<Provider>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Provider {
    AesGcm { keys: Vec<NamedKey> },
    Identity {},
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedKey {
    name: String,
    secret: String,
}

/// Encrypts the objects of some resources.
pub struct Encryption {
    /// What the store's keys of the objects begin with, and how these are encrypted; the first that fits counts.
    rules: Vec<(Vec<String>, SealKeys)>,
    /// The first of the store's keys whose value couldn't be opened.
    unopened: watch::Sender<Option<String>>,
}

impl Encryption {
    /// Of nothing; what others have encrypted is noticed.
    pub fn none() -> Arc<Self> {
        Arc::new(Encryption::of(Vec::new()))
    }

    fn of(rules: Vec<(Vec<String>, SealKeys)>) -> Self {
        Encryption { rules, unopened: watch::Sender::new(None) }
    }

    /// Makes sure that all could be opened so far.
    ///
    /// # Errors
    /// If something couldn't.
    pub fn check(&self) -> anyhow::Result<()> {
        self.unopened.borrow().as_deref().map_or(Ok(()), |key| Err(no_key(key)))
    }

    /// Waits until something can't be opened, and says so: a host that can't read a part of the state must not answer for it.
    pub async fn failed(&self) -> anyhow::Error {
        let mut unopened = self.unopened.subscribe();
        // It has a sender for as long as this is borrowed.
        let key = unopened.wait_for(Option::is_some).await.ok().and_then(|key| key.clone());
        no_key(&key.unwrap_or_default())
    }

    /// As a file says, which nobody else may read.
    ///
    /// # Errors
    /// If the file can't be read or can't be meant as it stands there, or if others may read it. No key is in the message.
    pub fn load(path: &Path) -> anyhow::Result<Arc<Self>> {
        let read = || -> anyhow::Result<Self> {
            let file = File::open(path)?;
            let mode = file.metadata()?.mode();
            ensure!(mode & 0o077 == 0, "others than its owner may read it or write it: chmod 600 it");
            let mut text = Vec::new();
            file.take(LONGEST + 1).read_to_end(&mut text)?;
            ensure!(text.len() as u64 <= LONGEST, "it is larger than {LONGEST} bytes");
            Self::parse(&text)
        };
        let read = read().with_context(|| format!("the encryption file {} can't be used", path.display()));
        Ok(Arc::new(read?))
    }

    fn parse(text: &[u8]) -> anyhow::Result<Self> {
        let (value, twice) = values::yaml_and_duplicates(text)?;
        if let Some(twice) = twice.into_iter().next() {
            anyhow::bail!("{twice}; keep one of them");
        }
        let file: Configuration = serde_json::from_value(value).map_err(|error| {
            let told = error.to_string();
            // What stands where it shouldn't may be a key.
            let is_safe = told.starts_with("unknown ") || told.starts_with("missing ");
            anyhow::anyhow!(if is_safe { told } else { "a field isn't of the type that it has to be".into() })
        })?;
        ensure!(
            (file.kind.as_str(), file.api_version.as_str())
                == ("EncryptionConfiguration", "apiserver.config.k8s.io/v1"),
            "write an EncryptionConfiguration of apiserver.config.k8s.io/v1"
        );
        let rules = file.resources.into_iter().map(rule).collect::<anyhow::Result<_>>()?;
        Ok(Encryption::of(rules))
    }

    fn keys(&self, key: &[u8]) -> Option<&SealKeys> {
        let fits = |starts: &[String]| starts.iter().any(|start| key.starts_with(start.as_bytes()));
        self.rules.iter().find(|(starts, _)| fits(starts)).map(|(_, keys)| keys)
    }

    /// How many values were opened with which key, for `/metrics`.
    pub fn write_metrics(&self, out: &mut String) {
        if self.rules.is_empty() {
            return;
        }
        let name = "holdfast_sealed_values_opened_total";
        family(out, name, "counter", "Values that were encrypted at rest and read, by rule and key");
        for (place, (_, keys)) in self.rules.iter().enumerate() {
            for (key, count) in keys.opened() {
                let key = key.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
                sample(out, name, &format!(r#"rule="{place}",key="{key}""#), count);
            }
        }
    }
}

fn rule(rule: Rule) -> anyhow::Result<(Vec<String>, SealKeys)> {
    let mut starts = Vec::new();
    for resource in &rule.resources {
        let (plural, group) = resource.split_once('.').unwrap_or((resource.as_str(), ""));
        let is_name = |text: &str| {
            text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-.".contains(&c))
        };
        ensure!(
            !plural.is_empty() && is_name(plural) && is_name(group),
            "{resource:?} is no resource: write it like secrets, or things.example.com; wildcards don't count here"
        );
        starts.push(objects::kind_prefix(group, plural));
    }
    ensure!(!starts.is_empty() && !rule.providers.is_empty(), "a rule needs resources and providers");
    let seals = matches!(rule.providers.first(), Some(Provider::AesGcm { .. }));
    let mut keys = Vec::new();
    for provider in rule.providers {
        if let Provider::AesGcm { keys: named } = provider {
            ensure!(!named.is_empty(), "aesgcm needs a key");
            keys.extend(named.into_iter().map(|key| (key.name, SecretText::new(key.secret))));
        }
    }
    Ok((starts, SealKeys::new(keys, seals)?))
}

impl Sealer for Encryption {
    fn covers(&self, key: &[u8]) -> bool {
        self.keys(key).is_some_and(SealKeys::seals)
    }

    fn seal(&self, key: &[u8], value: &[u8]) -> Vec<u8> {
        let sealed = self.keys(key).and_then(|keys| keys.seal(SEALED, key, value));
        // It is asked for keys that it covers alone, and no value has the 64 GiB that AES-GCM can't take.
        sealed.expect("a value that can be encrypted")
    }

    fn open(&self, key: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let body = sealed.strip_prefix(SEALED)?;
        let opened = self.keys(key).and_then(|keys| keys.open(key, body));
        if opened.is_none() {
            self.unopened.send_if_modified(|told| {
                let is_first = told.is_none();
                told.get_or_insert_with(|| String::from_utf8_lossy(key).into_owned());
                is_first
            });
        }
        opened
    }
}

fn no_key(what: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "{what} is encrypted at rest with a key that this host doesn't have, or was changed: give it the file with the keys of the \
         other members (encryptionFile in its configuration), and start it again; nothing is lost"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=";

    fn parse(rules: &str) -> Result<Encryption, String> {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n";
        Encryption::parse(format!("{head}{rules}\n").as_bytes()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn objects_of_its_resources_are_encrypted_and_others_are_not() {
        let encryption = parse(&format!(
            "- {{resources: [secrets, things.example.com], providers: [{{aesgcm: {{keys: [{{name: a, secret: {KEY}}}]}}}}, {{identity: {{}}}}]}}
- {{resources: [configmaps], providers: [{{identity: {{}}}}, {{aesgcm: {{keys: [{{name: a, secret: {KEY}}}]}}}}]}}"
        ))
        .unwrap();
        let key = b"/registry/core/secrets/shop/key";
        let places: [(bool, &[u8]); 5] = [
            (true, key),
            (true, b"/registry/example.com/things/shop/a"),
            (false, b"/registry/core/configmaps/shop/a"),
            (false, b"/registry/core/secretsandmore/shop/a"),
            (false, b"/allocations/hosts"),
        ];
        for (covered, key) in places {
            assert_eq!(encryption.covers(key), covered, "{}", String::from_utf8_lossy(key));
        }
        let sealed = encryption.seal(key, b"{}");
        assert!(sealed.starts_with(SEALED));
        assert_eq!(encryption.open(key, &sealed).as_deref(), Some(&b"{}"[..]));
        assert!(encryption.check().is_ok());
        assert_eq!(encryption.open(b"/registry/core/secrets/shop/other", &sealed), None);
        let error = encryption.check().unwrap_err().to_string();
        assert!(error.starts_with("/registry/core/secrets/shop/other is encrypted"), "{error}");
        let none = Encryption::none();
        assert_eq!((none.covers(key), none.open(key, &sealed)), (false, None));
        assert!(none.check().is_err(), "who has no keys notices it");
        let mut told = String::new();
        encryption.write_metrics(&mut told);
        assert!(told.contains("opened_total{rule=\"0\",key=\"a\"} 1\n"), "{told}");
    }

    #[test]
    fn what_can_t_be_meant_is_refused_without_a_word_of_the_keys() {
        let with =
            |secret: &str| format!("- {{resources: [secrets], providers: [{{aesgcm: {{keys: {secret}}}}}]}}");
        for (rules, told) in [
            ("- {resources: ['*.*'], providers: [{identity: {}}]}".to_owned(), "\"*.*\" is no resource"),
            ("- {resources: [secrets], providers: []}".to_owned(), "needs resources and providers"),
            (
                "- {resources: [secrets], providers: [{secretbox: {keys: []}}]}".to_owned(),
                "unknown variant `secretbox`",
            ),
            (with("[]"), "aesgcm needs a key"),
            (with(KEY), "a field isn't of the type"),
            (with("[{name: a, secret: c2hvcnQ=}]"), "32 bytes"),
        ] {
            let error = parse(&rules).map(|_| ()).unwrap_err();
            assert!(error.contains(told) && !error.contains(KEY), "{rules}: {error}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("encryption.yaml");
        let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: []\n";
        std::fs::write(&path, text).unwrap();
        for (mode, may) in [(0o640, false), (0o604, false), (0o600, true), (0o400, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Encryption::load(&path).is_ok(), may, "{mode:o}");
        }
    }
}
