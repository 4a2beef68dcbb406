//! Tokens by which a machine may join: bootstrap tokens as Kubernetes has them (KEP-130, "Authenticating with Bootstrap Tokens"),
//! Secrets in `kube-system` that come to their end.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use pki::SecretText;
use rand::{CryptoRng, Rng};
use serde_json::{Value, json};

/// Where these Secrets are.
pub const SECRETS_NAMESPACE: &str = "kube-system";
/// What their names begin with; the token's id follows.
pub const SECRET_PREFIX: &str = "bootstrap-token-";
const KIND: &str = "bootstrap.kubernetes.io/token";
/// Who has the token of this group may become a member, which is more than a bootstrap token is worth elsewhere: one that was made for other
/// ends doesn't open this door.
const MEMBERS: &str = "system:bootstrappers:holdfast:members";
/// Where the Secret says whose place a machine may take.
const REPLACES: &str = "replaces";
/// Where the Secret says which machine took it, by the hash of its key.
const USED_BY: &str = "used-by";
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const ID: usize = 6;
const SECRET: usize = 16;

/// A token: an id, which may be seen, and a secret of 82 bits.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    id: String,
    secret: SecretText,
}

/// A text that is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not like abcdef.0123456789abcdef: 6 and 16 small letters and digits with a dot between")]
pub struct NoToken;

/// Why a token doesn't open the door.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// There is no such token, or its secret is another one: who guesses doesn't hear which.
    #[error("the cluster knows no such token")]
    Unknown,
    /// Its time is over.
    #[error("the token's time was over at {0}")]
    Over(Timestamp),
    /// It was made for something else.
    #[error("the token isn't one for hosts that join")]
    ForOthers,
    /// Another machine took the place with it.
    #[error("a machine took the place of {0} with this token, which is good for one alone")]
    Used(String),
}

/// What a token opens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opens {
    /// Whose place its machine may take.
    pub replaces: Option<String>,
    /// The key of the machine that did.
    used_by: Option<String>,
}

impl Opens {
    /// Whether the token opens the door to a machine with this key: one by which another took its place doesn't.
    ///
    /// # Errors
    /// [`TokenRefused::Used`].
    pub fn to(&self, key: &str) -> Result<(), TokenRefused> {
        match (&self.replaces, &self.used_by) {
            (Some(name), Some(used_by)) if used_by != key => Err(TokenRefused::Used(name.clone())),
            _ => Ok(()),
        }
    }
}

impl Token {
    /// A new token.
    pub fn draw(random: &mut (impl Rng + CryptoRng)) -> Self {
        let mut text = |length| {
            (0..length).map(|_| char::from(ALPHABET[random.random_range(0..36)])).collect::<String>()
        };
        Token { id: text(ID), secret: SecretText::new(text(SECRET)) }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The whole token, for those who may see it.
    pub fn expose(&self) -> SecretText {
        SecretText::new(format!("{}.{}", self.id, self.secret.expose()))
    }

    /// The name of its Secret.
    pub fn secret_name(&self) -> String {
        format!("{SECRET_PREFIX}{}", self.id)
    }

    /// Its Secret, by which the cluster knows it until then. Who has it may join as a new host, or take the place of the one that it
    /// `replaces`, and of no other.
    pub fn object(&self, until: Timestamp, description: &str, replaces: Option<&str>) -> Value {
        let expiration = until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let data = [
            ("token-id", self.id.as_str()),
            ("token-secret", self.secret.expose()),
            ("expiration", expiration.as_str()),
            ("usage-bootstrap-authentication", "true"),
            ("auth-extra-groups", MEMBERS),
            ("description", description),
        ];
        let data = data.into_iter().chain(replaces.map(|name| (REPLACES, name)));
        let data: serde_json::Map<String, Value> =
            data.map(|(key, value)| (key.to_owned(), STANDARD.encode(value).into())).collect();
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self.secret_name(), "namespace": SECRETS_NAMESPACE},
            "type": KIND,
            "data": data,
        })
    }

    /// What is merged into its Secret once a machine with this key takes a place with it.
    pub fn used_by(key: &str) -> Value {
        json!({"data": {USED_BY: STANDARD.encode(key)}})
    }

    /// The token whose Secret this is.
    pub fn of_object(secret: &Value) -> Option<Self> {
        let Read { id, secret, .. } = Read::of(secret)?;
        format!("{id}.{secret}").parse().ok()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}.…)", self.id)
    }
}

impl FromStr for Token {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        let (id, secret) = text.trim().split_once('.').ok_or(NoToken)?;
        let is_made_so = |part: &str| part.bytes().all(|byte| ALPHABET.contains(&byte));
        if id.len() != ID || secret.len() != SECRET || !is_made_so(id) || !is_made_so(secret) {
            return Err(NoToken);
        }
        Ok(Token { id: id.to_owned(), secret: SecretText::new(secret) })
    }
}

/// What there is to see of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedToken {
    /// Its id.
    pub id: String,
    /// When its time is over; none for never.
    pub until: Option<Timestamp>,
    /// What it was made for.
    pub description: String,
}

/// The tokens for hosts among a namespace's Secrets.
pub fn listed(secrets: &[Value]) -> Vec<ListedToken> {
    let tokens = secrets.iter().filter_map(Read::of).filter(Read::is_for_hosts);
    tokens
        .map(|read| ListedToken { until: read.until(), id: read.id, description: read.description })
        .collect()
}

/// Whether a token opens the door, and what behind it: `secret` is what the store has under the name of the
/// token's Secret.
///
/// # Errors
/// [`TokenRefused`]. That its time is over, or that it was made for something else, hears only who has its secret.
pub fn check_token(token: &Token, secret: Option<&[u8]>, now: Timestamp) -> Result<Opens, TokenRefused> {
    let secret: Value = secret.and_then(|secret| serde_json::from_slice(secret).ok()).unwrap_or_default();
    let read = Read::of(&secret).filter(|read| read.id == token.id).ok_or(TokenRefused::Unknown)?;
    if !same(read.secret.as_bytes(), token.secret.expose().as_bytes()) {
        return Err(TokenRefused::Unknown);
    }
    match (read.expiration.is_empty(), read.until()) {
        (false, None) => return Err(TokenRefused::Unknown),
        (_, Some(until)) if until <= now => return Err(TokenRefused::Over(until)),
        _ => {}
    }
    match read.is_for_hosts() {
        true => Ok(Opens { replaces: read.replaces, used_by: read.used_by }),
        false => Err(TokenRefused::ForOthers),
    }
}

/// Takes as long for any two texts of a length.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

struct Read {
    id: String,
    secret: String,
    expiration: String,
    description: String,
    is_for_use: bool,
    groups: String,
    replaces: Option<String>,
    used_by: Option<String>,
}

impl Read {
    fn of(secret: &Value) -> Option<Self> {
        let text = |key: &str| {
            let bytes = STANDARD.decode(secret["data"][key].as_str()?).ok()?;
            String::from_utf8(bytes).ok()
        };
        let id = text("token-id")?;
        let is_whole = secret["type"] == KIND
            && secret["metadata"]["name"] == format!("{SECRET_PREFIX}{id}")
            && secret["metadata"]["deletionTimestamp"].is_null();
        is_whole.then(|| Read {
            secret: text("token-secret").unwrap_or_default(),
            expiration: text("expiration").unwrap_or_default(),
            description: text("description").unwrap_or_default(),
            is_for_use: text("usage-bootstrap-authentication").as_deref() == Some("true"),
            groups: text("auth-extra-groups").unwrap_or_default(),
            replaces: text(REPLACES),
            used_by: text(USED_BY),
            id,
        })
    }

    fn until(&self) -> Option<Timestamp> {
        self.expiration.parse().ok()
    }

    fn is_for_hosts(&self) -> bool {
        self.is_for_use && self.groups.split(',').any(|group| group.trim() == MEMBERS)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn token() -> Token {
        "abcdef.0123456789abcdef".parse().unwrap()
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn object() -> Value {
        token().object("2026-01-01T02:00:00Z".parse().unwrap(), "by init", None)
    }

    fn check(token: &Token, object: &Value, now: Timestamp) -> Result<Opens, TokenRefused> {
        check_token(token, Some(object.to_string().as_bytes()), now)
    }

    #[test]
    fn a_token_is_read_as_it_is_written_and_not_shown() {
        let drawn = Token::draw(&mut StdRng::seed_from_u64(1));
        assert_eq!(drawn.expose().expose().parse(), Ok(drawn.clone()));
        assert_ne!(drawn, Token::draw(&mut StdRng::seed_from_u64(2)));
        assert_eq!(format!("{:?}", token()), "Token(abcdef.…)");
        for wrong in ["", "abcdef", "abcdef.", "abcde.0123456789abcdef", "ABCDEF.0123456789abcdef"] {
            assert_eq!(wrong.parse::<Token>(), Err(NoToken), "{wrong}");
        }
        assert_eq!(Token::of_object(&object()), Some(token()));
    }

    #[test]
    fn a_token_opens_the_door_in_its_time_and_no_other_does() {
        let wrong: Token = "abcdef.0123456789abcdee".parse().unwrap();
        let other: Token = "zzzzzz.0123456789abcdef".parse().unwrap();
        let later = "2026-01-01T02:00:00Z".parse().unwrap();
        assert_eq!(check(&token(), &object(), now()), Ok(Opens::default()));
        assert_eq!(check(&token(), &object(), later), Err(TokenRefused::Over(later)));
        assert_eq!(check(&wrong, &object(), now()), Err(TokenRefused::Unknown));
        assert_eq!(check(&wrong, &object(), later), Err(TokenRefused::Unknown), "it doesn't hear of the end");
        assert_eq!(check(&other, &object(), now()), Err(TokenRefused::Unknown));
        assert_eq!(check_token(&token(), None, now()), Err(TokenRefused::Unknown));
        assert_eq!(check_token(&token(), Some(b"{"), now()), Err(TokenRefused::Unknown));
    }

    #[test]
    fn a_secret_that_says_something_else_opens_no_door() {
        type Change = fn(&mut Value);
        let changes: [(Change, TokenRefused); 5] = [
            (|secret| secret["type"] = "Opaque".into(), TokenRefused::Unknown),
            (
                |secret| secret["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into(),
                TokenRefused::Unknown,
            ),
            (|secret| secret["data"]["expiration"] = STANDARD.encode("soon").into(), TokenRefused::Unknown),
            (|secret| secret["data"]["auth-extra-groups"] = Value::Null, TokenRefused::ForOthers),
            (
                |secret| secret["data"]["usage-bootstrap-authentication"] = Value::Null,
                TokenRefused::ForOthers,
            ),
        ];
        for (change, expected) in changes {
            let mut secret = object();
            change(&mut secret);
            assert_eq!(check(&token(), &secret, now()), Err(expected), "{secret}");
        }
        // A kubeadm's token without an end has none here either.
        let mut endless = object();
        endless["data"]["expiration"] = Value::Null;
        assert_eq!(check(&token(), &endless, now()), Ok(Opens::default()));
    }

    #[test]
    fn a_place_is_taken_once_and_by_the_same_machine_again() {
        let mut secret = token().object("2026-01-01T02:00:00Z".parse().unwrap(), "", Some("n1"));
        let opens = |secret: &Value| check(&token(), secret, now()).unwrap();
        assert_eq!(opens(&secret).replaces.as_deref(), Some("n1"));
        assert_eq!((opens(&secret).to("one"), opens(&secret).to("other")), (Ok(()), Ok(())));
        secret["data"][USED_BY] = Token::used_by("one")["data"][USED_BY].take();
        assert_eq!(opens(&secret).to("one"), Ok(()), "its answer got lost");
        assert_eq!(opens(&secret).to("other"), Err(TokenRefused::Used("n1".into())));
        // A token by which several join isn't used up.
        let mut usual = object();
        usual["data"][USED_BY] = STANDARD.encode("one").into();
        assert_eq!(opens(&usual).to("other"), Ok(()));
    }

    #[test]
    fn tokens_are_listed_without_their_secrets() {
        let mut other = object();
        other["data"]["auth-extra-groups"] = Value::Null;
        let listed = listed(&[object(), other, json!({"type": "Opaque"})]);
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].id.as_str(), listed[0].description.as_str()), ("abcdef", "by init"));
        assert_eq!(listed[0].until, Some("2026-01-01T02:00:00Z".parse().unwrap()));
    }
}
