//! `holdfast user`: people's kubeconfigs, with certificates of their own, and how these are taken back.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Client, Content, Kubeconfig};
use http::Method;
use jiff::{SignedDuration, Timestamp};
use pki::{Identity, OwnKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use server::{RevocationList, entry_key};

use crate::check::Output;
use crate::kubectl::KubeconfigArg;
use crate::tell::{say, show};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const CONFIG_MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";
/// What the entries of users begin with in the object where the list of what was taken back is.
const USERS: &str = "user-";
/// How long after its end a certificate is still shown: by then all clocks agree that it is over, and people have seen that it is.
const SHOWN_OVER: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How long a request for a certificate may wait for its signer, which the leader of the store is.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
/// The shortest and the longest time of a certificate, as its signer has them.
const SHORTEST: Duration = Duration::from_secs(600);
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Whom the administrator's kubeconfig of each host names.
const ADMIN: &str = "kubernetes-admin";
/// The longest name of a user in a certificate (RFC 5280, `ub-common-name`).
const LONGEST_NAME: usize = 64;

/// Arguments of `holdfast user`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  holdfast user add jane --group devs --for 30d\n  kubectl create clusterrolebinding devs --clusterrole=view --group=devs\n  holdfast user ls\n  holdfast user revoke jane"
)]
pub struct Args {
    #[command(flatten)]
    cluster: KubeconfigArg,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Write a kubeconfig for a person, with a key and a certificate of their own. What they may do, roles and bindings say
    Add {
        /// The user's name
        #[arg(value_parser = name)]
        user: String,
        /// A group that the user is in; may be given several times
        #[arg(long = "group", value_name = "GROUP", value_delimiter = ',')]
        groups: Vec<String>,
        /// For how long: minutes, hours or days (30m, 12h, 30d), a year at most
        #[arg(long = "for", value_name = "TIME", default_value = "90d", value_parser = life)]
        life: Duration,
        /// Where to write it, for the owner's eyes alone; `-` for standard output [default: NAME.kubeconfig]
        #[arg(short, long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Show who got a kubeconfig by `add`, until when, and what was taken back
    #[command(alias = "list")]
    Ls {
        /// The form of the answer
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Take back all that was made for users so far, on every host at once
    Revoke {
        /// Their names
        #[arg(required = true, value_name = "USER", value_parser = name)]
        users: Vec<String>,
    },
}

/// Does what is asked, as the kubeconfig's user.
pub async fn user(args: Args) -> anyhow::Result<()> {
    let kubeconfig = args.cluster.load()?;
    let client = Client::new(&kubeconfig)?;
    match args.command {
        Command::Add { user, groups, life, file } => {
            let file = file.unwrap_or_else(|| format!("{}.kubeconfig", user.replace('/', "_")).into());
            add(&client, &kubeconfig, &Wanted { user, groups, life }, &file).await
        }
        Command::Ls { output } => {
            let (users, now) = (users(&list_object(&client).await?), server_time(&client).await?);
            match output {
                Output::Text => show(&table(&users, now)),
                Output::Json => show(&format!("{:#}\n", as_json(&users, now))),
            }
        }
        Command::Revoke { users } => {
            for user in users {
                revoke(&client, &user).await?;
                say!("what was made for {user} so far opens nothing any more");
            }
            Ok(())
        }
    }
}

struct Wanted {
    user: String,
    groups: Vec<String>,
    life: Duration,
}

/// A user who got a kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    user: String,
    groups: Vec<String>,
    from: Timestamp,
    until: Timestamp,
    /// Up to when what was made for them was taken back.
    #[serde(skip)]
    before: Option<Timestamp>,
}

async fn add(client: &Client, kubeconfig: &Kubeconfig, wanted: &Wanted, file: &Path) -> anyhow::Result<()> {
    let Wanted { user, groups, .. } = wanted;
    if let Some(reserved) = pki::reserved_name(user, groups.iter().map(String::as_str)) {
        anyhow::bail!("{reserved} is a name of the cluster's own parts, for which no certificate is made so");
    }
    anyhow::ensure!(
        user != ADMIN,
        "{user} is the administrators' of all hosts, of whom nothing can be taken back by name: take another name"
    );
    let entry = entry_key(USERS, user).with_context(|| format!("{user} is too long a name"))?;
    let to_stdout = file == Path::new("-");
    anyhow::ensure!(
        to_stdout || !file.exists(),
        "{} is there already; remove it, or name another file with --file",
        file.display()
    );
    let key = OwnKey::create()?;
    let identity = certificate(client, &key, wanted).await?;
    let validity = identity.validity()?;
    let (from, until) = (Timestamp::try_from(validity.from)?, Timestamp::try_from(validity.until)?);
    let object = list_object(client).await?;
    if let Some(before) = RevocationList::read(&object).before(user)
        && from <= before
    {
        anyhow::bail!(
            "what was made for {user} before {before} was taken back, and a certificate counts from five minutes before it is made: try again in {} minutes",
            (before.duration_since(from).as_secs() + 1).div_euclid(60) + 1
        );
    }
    // First, since the object may be full. The certificate's time is the signer's, less five minutes.
    tidy(client, &object, from).await;
    let known = Known { user: user.clone(), groups: groups.clone(), from, until, before: None };
    merge(client, &json!({"data": {entry: json!(known).to_string()}})).await?;
    let text = kubeconfig_text(kubeconfig, user, &identity);
    if to_stdout {
        return show(&text);
    }
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).and_then(|mut to| {
            to.write_all(text.as_bytes())?;
            to.sync_all()
        });
    written.with_context(|| format!("can't write {}", file.display()))?;
    say!("{} is {user}'s, until {until}. Bring it to them by a way that nobody else reads", file.display());
    Ok(())
}

/// A certificate for the user: asked for, approved and signed as any other that people ask for. Nothing of the request is left.
async fn certificate(client: &Client, key: &OwnKey, wanted: &Wanted) -> anyhow::Result<Identity> {
    let Wanted { user, groups, life } = wanted;
    let request = json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "holdfast-user-"},
        "spec": {
            "request": STANDARD.encode(key.user_request(user, groups)?),
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth", "digital signature"],
            "expirationSeconds": life.as_secs(),
        },
    });
    let mut made = client.create(REQUESTS, &request).await?;
    let name = made["metadata"]["name"].as_str().context("the server made a request without a name")?;
    let path = format!("{REQUESTS}/{name}");
    made["status"]["conditions"] = json!([{
        "type": "Approved",
        "status": "True",
        "reason": "UserAdd",
        "message": "approved by `holdfast user add`",
    }]);
    let signed = async {
        client.send(Method::PUT, &format!("{path}/approval"), Content::Json, &made).await?;
        let waited = tokio::time::timeout(PATIENCE, signed(client, &path)).await;
        waited.context("nobody signs the request: is a leader there, and does a host run the controllers?")?
    };
    let signed = signed.await;
    // Also where it failed; and it goes by itself within an hour.
    let _ = client.delete(&path, &json!({})).await;
    Ok(key.identity(&signed?)?)
}

/// The certificate in a request, once it is there.
async fn signed(client: &Client, path: &str) -> anyhow::Result<String> {
    loop {
        let request = client.get(path).await?;
        let status = &request["status"];
        if let Some(certificate) = status["certificate"].as_str() {
            return Ok(String::from_utf8(STANDARD.decode(certificate)?)?);
        }
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        if let Some(failed) = conditions.find(|condition| condition["type"] == "Failed") {
            anyhow::bail!("it isn't signed: {}", failed["message"].as_str().unwrap_or_default());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn revoke(client: &Client, user: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        user != ADMIN && !user.starts_with("system:"),
        "{user} is the administrators' of all hosts, or a part of the cluster: what was taken back from it would be from all hosts at once. \
         A machine is taken back by letting another take its place (`holdfast token create --replace`)"
    );
    // The server's time. Certificates are made by the signer's clock, which may be ahead of it: one that we know of counts as well.
    let now = server_time(client).await?;
    let known = users(&list_object(client).await?).into_iter().filter(|known| known.user == user);
    let before = known.map(|known| known.from).fold(now, Timestamp::max);
    let entry = RevocationList::of_user(user, before);
    merge(client, &entry.with_context(|| format!("{user} is too long a name"))?).await?;
    if let Ok(object) = list_object(client).await {
        tidy(client, &object, now).await;
    }
    Ok(())
}

/// Takes out of the object, as it was read, what says nothing any more. What can't be tidied up now, or was changed by somebody
/// meanwhile, is at the next time.
async fn tidy(client: &Client, object: &Value, now: Timestamp) {
    if let Some(forgotten) = RevocationList::forgotten(object, long_over(object, now), now) {
        let _ = merge(client, &forgotten).await;
    }
}

/// The keys of those whose certificate has been over for long.
fn long_over(object: &Value, now: Timestamp) -> Vec<String> {
    let over = entries(object).filter(|(_, known)| now.duration_since(known.until) > SHOWN_OVER);
    over.map(|(key, _)| key.to_owned()).collect()
}

async fn server_time(client: &Client) -> anyhow::Result<Timestamp> {
    const PATH: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let question = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = client.create(PATH, &question).await?;
    let time = answer["metadata"]["creationTimestamp"].as_str().unwrap_or_default();
    time.parse::<Timestamp>().with_context(|| format!("{PATH} doesn't tell the server's time"))
}

/// The object with the users and with what was taken back; nothing where nobody made it yet.
async fn list_object(client: &Client) -> anyhow::Result<Value> {
    match client.get(RevocationList::PATH).await {
        Err(error) if error.is_not_found() => Ok(Value::Null),
        answer => Ok(answer?),
    }
}

/// Merges an entry into it, which is made where there is none.
async fn merge(client: &Client, entry: &Value) -> anyhow::Result<()> {
    match client.patch(RevocationList::PATH, Content::MergePatch, entry).await {
        Err(error) if error.is_not_found() => {}
        merged => return Ok(merged.map(drop)?),
    }
    match client.create(CONFIG_MAPS, &RevocationList::object()).await {
        // Somebody else made it just now.
        Err(error) if error.code() != Some(409) => return Err(error.into()),
        _ => {}
    }
    Ok(client.patch(RevocationList::PATH, Content::MergePatch, entry).await.map(drop)?)
}

fn kubeconfig_text(of: &Kubeconfig, user: &str, identity: &Identity) -> String {
    let mut cluster = json!({
        "server": of.server,
        "certificate-authority-data": STANDARD.encode(&of.certificate_authority),
    });
    if let Some(name) = &of.tls_server_name {
        cluster["tls-server-name"] = name.as_str().into();
    }
    values::to_yaml(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "holdfast",
        "clusters": [{"name": "holdfast", "cluster": cluster}],
        "contexts": [{"name": "holdfast", "context": {"cluster": "holdfast", "user": user}}],
        "users": [{"name": user, "user": {
            "client-certificate-data": STANDARD.encode(identity.certificate_pem()),
            "client-key-data": STANDARD.encode(identity.key_pem().expose()),
        }}],
    }))
}

/// Those who got a kubeconfig.
fn users(object: &Value) -> Vec<Known> {
    let list = RevocationList::read(object);
    entries(object).map(|(_, known)| Known { before: list.before(&known.user), ..known }).collect()
}

/// Their entries, with their keys.
fn entries(object: &Value) -> impl Iterator<Item = (&str, Known)> {
    let entries = object["data"].as_object().into_iter().flatten();
    let entries = entries.filter(|(key, _)| key.starts_with(USERS));
    entries
        .filter_map(|(key, entry)| Some((key.as_str(), serde_json::from_str::<Known>(entry.as_str()?).ok()?)))
}

fn state(known: &Known, now: Timestamp) -> &'static str {
    match known.before {
        Some(before) if known.from <= before => "revoked",
        _ if known.until < now => "over",
        _ => "valid",
    }
}

fn as_json(users: &[Known], now: Timestamp) -> Value {
    let one = |known: &Known| {
        json!({
            "user": known.user,
            "groups": known.groups,
            "until": known.until,
            "state": state(known, now),
        })
    };
    json!({"users": users.iter().map(one).collect::<Vec<_>>()})
}

fn table(users: &[Known], now: Timestamp) -> String {
    let mut text = format!("{:<24}{:<24}{:<9}{}\n", "USER", "UNTIL", "STATE", "GROUPS");
    for known in users {
        let (until, groups) = (known.until.to_string(), known.groups.join(","));
        let line = format!("{:<24}{until:<24}{:<9}{groups}", known.user, state(known, now));
        // What others wrote may hold anything, commands to a terminal among it.
        text += line.replace(char::is_control, " ").trim_end();
        text.push('\n');
    }
    text
}

fn name(text: &str) -> Result<String, String> {
    let is_name = !text.is_empty() && text.len() <= LONGEST_NAME && !text.chars().any(char::is_control);
    is_name.then(|| text.to_owned()).ok_or_else(|| format!("take 1 to {LONGEST_NAME} characters"))
}

/// How long a certificate lasts, as people write it.
fn life(text: &str) -> Result<Duration, String> {
    let unit = |unit| match unit {
        'm' => Some(60),
        'h' => Some(60 * 60),
        'd' => Some(24 * 60 * 60),
        _ => None,
    };
    let parts = text.chars().next_back().and_then(|last| Some((text.strip_suffix(last)?, unit(last)?)));
    let time = parts.and_then(|(number, unit)| number.parse::<u64>().ok()?.checked_mul(unit));
    let time = time.map(Duration::from_secs).ok_or("it is no time such as 30m, 12h or 30d")?;
    match (SHORTEST..=LONGEST).contains(&time) {
        true => Ok(time),
        false => Err("take ten minutes at least and a year (365d) at most".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_s_time_is_said_in_minutes_hours_or_days() {
        for (text, hours) in [("60m", 1), ("12h", 12), ("30d", 720), ("365d", 8760)] {
            assert_eq!(life(text), Ok(Duration::from_secs(hours * 3600)), "{text}");
        }
        for wrong in ["", "d", "30", "-1d", "9m", "366d", "1y", "1.5d", "99999999999999999999d", "é"] {
            assert!(life(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn users_are_shown_with_what_was_taken_back() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-06-01T00:00:00Z");
        let known = |user: &str, from: &str, until: &str| Known {
            user: user.into(),
            groups: vec!["devs".into()],
            from: at(from),
            until: at(until),
            before: None,
        };
        let mut object = RevocationList::object();
        for one in [
            known("jane \x1b[2J", "2026-05-01T00:00:00Z", "2026-07-01T00:00:00Z"),
            known("jack", "2026-05-01T00:00:00Z", "2026-07-01T00:00:00Z"),
            known("john", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
        ] {
            object["data"][entry_key(USERS, &one.user).unwrap()] = json!(one).to_string().into();
        }
        let revoked = RevocationList::of_user("jack", at("2026-05-02T00:00:00Z")).unwrap();
        for (key, entry) in revoked["data"].as_object().unwrap() {
            object["data"][key] = entry.clone();
        }
        assert_eq!(long_over(&object, at("2026-03-03T00:00:00Z")), [""; 0], "it is shown for a while");
        assert_eq!(long_over(&object, at("2026-03-04T00:00:00Z")), ["user-john"]);
        object["metadata"]["resourceVersion"] = "7".into();
        let forgotten = RevocationList::forgotten(&object, long_over(&object, now), now).unwrap();
        assert_eq!(forgotten, json!({"metadata": {"resourceVersion": "7"}, "data": {"user-john": null}}));
        let users = users(&object);
        let expected = "USER                    UNTIL                   STATE    GROUPS
jack                    2026-07-01T00:00:00Z    revoked  devs
jane  [2J               2026-07-01T00:00:00Z    valid    devs
john                    2026-02-01T00:00:00Z    over     devs
";
        assert_eq!(table(&users, now), expected);
        assert_eq!(as_json(&users, now)["users"][0]["state"], "revoked");
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // Any moment will do.
    fn a_kubeconfig_is_read_as_it_is_written_whatever_the_user_is_called() {
        let authority = pki::Authority::create("a", std::time::SystemTime::now()).unwrap();
        let of = Kubeconfig {
            certificate_authority: authority.certificate_pem().into(),
            ..Kubeconfig::anonymous("https://10.0.0.100:6443")
        };
        let identity = authority.admin_identity(std::time::SystemTime::now()).unwrap();
        for user in ["jane", "jane: {}\n#", "yes", "\"'"] {
            let read =
                Kubeconfig::parse(&kubeconfig_text(&of, user, &identity), Path::new("."), "it").unwrap();
            assert_eq!(
                (read.server.as_str(), &read.certificate_authority),
                (of.server.as_str(), &of.certificate_authority)
            );
            assert_eq!(read.client_certificate.as_deref(), Some(identity.certificate_pem().as_bytes()));
            assert_eq!(read.client_key.as_deref(), Some(identity.key_pem().expose().as_bytes()));
        }
    }
}
