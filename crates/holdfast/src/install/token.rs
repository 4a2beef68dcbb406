//! `holdfast token`: the tokens by which machines join.

use anyhow::Context;
use client::{Client, Kubeconfig};
use install::{ListedToken, SECRET_PREFIX, SECRETS_NAMESPACE, Token, listed};
use jiff::{SignedDuration, Timestamp};
use pki::{KeyHash, Trust};
use serde_json::{Value, json};

use super::init::random;
use crate::kubectl::KubeconfigArg;
use crate::tell::{say, show};

/// The longest that a token may last: what opens the door to all keys should not lie about.
const LONGEST: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Arguments of `holdfast token`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    cluster: KubeconfigArg,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a token, and print the line by which a machine joins
    Create {
        /// How long machines may join with it
        #[arg(long, value_name = "TIME", default_value = "2h", value_parser = time)]
        ttl: SignedDuration,
        /// What it is for, to be told by `list`
        #[arg(long, default_value = "")]
        description: String,
        /// Let a machine take the place of this host, whose own machine is off and never comes back
        #[arg(long, value_name = "NAME", value_parser = host_name)]
        replace: Option<String>,
    },
    /// Show which tokens there are, without their secrets
    List,
    /// Take tokens back
    Revoke {
        /// Their ids: what stands before the dot
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

/// Does what is asked, as the kubeconfig's user.
pub async fn token(args: Args) -> anyhow::Result<()> {
    let kubeconfig = args.cluster.load()?;
    let client = Client::new(&kubeconfig)?;
    match args.command {
        Command::Create { ttl, description, replace } => {
            let description = match &replace {
                Some(name) if description.is_empty() => format!("to replace {name}"),
                _ => description,
            };
            create(&client, &kubeconfig, ttl, &description, replace.as_deref()).await
        }
        Command::List => show(&table(&tokens(&client).await?, now())),
        Command::Revoke { ids } => {
            for id in ids {
                revoke(&client, &id).await?;
                say!("token {id} opens no door any more");
            }
            Ok(())
        }
    }
}

async fn create(
    client: &Client,
    kubeconfig: &Kubeconfig,
    ttl: SignedDuration,
    description: &str,
    replace: Option<&str>,
) -> anyhow::Result<()> {
    let authority = String::from_utf8(kubeconfig.certificate_authority.clone())?;
    let hash = Trust::from_pem(authority)?.hash()?;
    // Those whose time is over are of no use to anybody. Somebody else may remove them just now: that is no reason to make none.
    for old in tokens(client).await?.iter().filter(|token| token.until.is_some_and(|until| until <= now())) {
        if let Err(error) = revoke(client, &old.id).await {
            say!("{error:#}");
        }
    }
    let token = Token::draw(&mut random());
    client.create(&collection(), &token.object(until(ttl)?, description, replace)).await?;
    let name = replace.map(|name| format!(" --name {name}")).unwrap_or_default();
    show(&format!("{}{name}\n", join_line(client.server(), &token, hash)))
}

async fn tokens(client: &Client) -> anyhow::Result<Vec<ListedToken>> {
    let path = client::with_query(&collection(), &[("fieldSelector", "type=bootstrap.kubernetes.io/token")]);
    let secrets = client.get(&path).await?;
    Ok(listed(secrets["items"].as_array().map(Vec::as_slice).unwrap_or_default()))
}

async fn revoke(client: &Client, id: &str) -> anyhow::Result<()> {
    let is_id = id.len() == 6 && id.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    anyhow::ensure!(
        is_id,
        "{id:?} is no token's id: 6 small letters and digits, as `holdfast token list` shows them"
    );
    let deleted = client.delete(&format!("{}/{SECRET_PREFIX}{id}", collection()), &json!({})).await;
    deleted.map(|_: Value| ()).with_context(|| format!("can't revoke the token {id}"))
}

fn collection() -> String {
    format!("/api/v1/namespaces/{SECRETS_NAMESPACE}/secrets")
}

/// The line that a machine joins by. The token is no argument of the command, which all users of the machine see while it runs; `echo` is
/// the shell's own.
pub fn join_line(cluster: &str, token: &Token, hash: KeyHash) -> String {
    format!("echo {} | holdfast join {cluster} --ca-hash {hash}", token.expose().expose())
}

/// The name of a host, as people write it.
fn host_name(text: &str) -> Result<String, String> {
    match config::is_host_name(text) {
        true => Ok(text.to_owned()),
        false => Err("it is no host's name: 1 to 63 small letters, digits, '-' and '.'".to_owned()),
    }
}

/// The end of a token that is made now.
pub fn until(ttl: SignedDuration) -> anyhow::Result<Timestamp> {
    now().checked_add(ttl).context("a token can't last that long")
}

#[allow(clippy::disallowed_methods, reason = "the program: a token's time begins now")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// How long a token may last, as people write it.
pub fn time(text: &str) -> Result<SignedDuration, String> {
    let time: SignedDuration =
        text.parse().map_err(|_| "it is no time such as 30m, 2h or 1h 30m".to_owned())?;
    match time > SignedDuration::ZERO && time <= LONGEST {
        true => Ok(time),
        false => Err(format!("take more than nothing and at most {} hours", LONGEST.as_hours())),
    }
}

fn table(tokens: &[ListedToken], now: Timestamp) -> String {
    let mut text = format!("{:<8}{:<24}{}\n", "ID", "UNTIL", "DESCRIPTION");
    for ListedToken { id, until, description } in tokens {
        let until = match until {
            Some(until) if *until <= now => "over".to_owned(),
            Some(until) => until.to_string(),
            None => "for ever".to_owned(),
        };
        let line = format!("{id:<8}{until:<24}{description}");
        // What others wrote may hold anything, commands to a terminal among it.
        text += line.replace(char::is_control, " ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_s_time_is_short() {
        assert_eq!(time("2h"), Ok(SignedDuration::from_hours(2)));
        assert_eq!(time("1h 30m"), Ok(SignedDuration::from_mins(90)));
        for wrong in ["", "0s", "-1h", "2", "400d", "169h"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tokens_are_shown_with_their_ends() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let token = |id: &str, until: Option<&str>, description: &str| ListedToken {
            id: id.into(),
            until: until.map(|until| until.parse().unwrap()),
            description: description.into(),
        };
        let tokens = [
            token("abcdef", Some("2026-01-01T02:00:00Z"), "n2 \x1b[2J"),
            token("ghijkl", Some("2025-01-01T02:00:00Z"), ""),
            token("mnopqr", None, ""),
        ];
        let expected = "ID      UNTIL                   DESCRIPTION
abcdef  2026-01-01T02:00:00Z    n2  [2J
ghijkl  over
mnopqr  for ever
";
        assert_eq!(table(&tokens, now), expected);
    }
}
