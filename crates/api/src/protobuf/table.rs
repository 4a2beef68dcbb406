//! The messages of the API: `messages.txt`, each line read when it is first needed.

use std::sync::OnceLock;

/// What `messages.py` wrote from Kubernetes' published `.proto` files; its head says how to read it.
const MESSAGES: &str = include_str!("messages.txt");

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Bool,
    Int32,
    Int64,
    Double,
    /// Base64 in JSON.
    Bytes,
    Message,
    /// A message whose fields are the outer one's in JSON.
    Inline,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// JSON as bytes, in a message.
    Raw,
    /// A list of strings in a message.
    Texts,
    SchemaOrArray,
    SchemaOrBool,
    SchemaOrTexts,
}

/// How often a field is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    One,
    Repeated,
    /// A map from strings.
    Map,
}

/// When a decoded field appears in the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// Unless it is zero.
    NotZero,
    /// Whenever it is there.
    IfThere,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) count: Count,
    pub(super) presence: Presence,
    /// Its name in JSON; empty for an inline message.
    pub(super) name: &'static str,
    /// The message of its value.
    pub(super) message: Option<&'static Message>,
}

/// One message; its fields are read when they are first asked for.
#[derive(Debug)]
pub(super) struct Message {
    name: &'static str,
    line: &'static str,
    fields: OnceLock<Box<[Field]>>,
}

impl Message {
    /// Its fields, by number.
    pub(super) fn fields(&self) -> &[Field] {
        self.fields.get_or_init(|| self.line.split(' ').filter_map(|word| self.field(word)).collect())
    }

    /// The field of that number.
    pub(super) fn numbered(&self, number: u32) -> Option<&Field> {
        let fields = self.fields();
        fields.binary_search_by_key(&number, |field| field.number).ok().map(|at| &fields[at])
    }

    fn field(&self, word: &'static str) -> Option<Field> {
        let (number, rest) = word.split_at(word.find(|c: char| !c.is_ascii_digit())?);
        let (count, rest) = match rest.as_bytes().first()? {
            b'*' => (Count::Repeated, &rest[1..]),
            b'%' => (Count::Map, &rest[1..]),
            _ => (Count::One, rest),
        };
        let kind = match rest.as_bytes().first()? {
            b's' => Kind::Text,
            b'b' => Kind::Bool,
            b'i' => Kind::Int32,
            b'l' => Kind::Int64,
            b'd' => Kind::Double,
            b'y' => Kind::Bytes,
            b'm' => Kind::Message,
            b'n' => Kind::Inline,
            b't' => Kind::Time,
            b'u' => Kind::MicroTime,
            b'q' => Kind::Quantity,
            b'o' => Kind::IntOrString,
            b'r' => Kind::Raw,
            b'e' => Kind::Texts,
            b'A' => Kind::SchemaOrArray,
            b'B' => Kind::SchemaOrBool,
            b'C' => Kind::SchemaOrTexts,
            _ => return None,
        };
        let rest = &rest[1..];
        let (presence, rest) = match rest.as_bytes().first() {
            Some(b'?' | b'!') => (Presence::IfThere, &rest[1..]),
            _ => (Presence::NotZero, rest),
        };
        let (name, message) = rest.split_once('=').map_or((rest, None), |(name, of)| (name, self.other(of)));
        Some(Field { number: number.parse().ok()?, kind, count, presence, name, message })
    }

    /// The message that a field names, in this one's package if it starts with a dot.
    fn other(&self, name: &str) -> Option<&'static Message> {
        match name.strip_prefix('.') {
            Some(short) => message(&format!("{}.{short}", self.name.rsplit_once('.')?.0)),
            None => message(name),
        }
    }
}

/// The message of that name, such as `core.v1.Pod`.
pub(super) fn message(name: &str) -> Option<&'static Message> {
    let messages = messages();
    messages.binary_search_by(|message| message.name.cmp(name)).ok().map(|at| &messages[at])
}

fn messages() -> &'static [Message] {
    static TABLE: OnceLock<Box<[Message]>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let message = |line: &'static str| {
            let (name, line) = line.split_once(' ').unwrap_or((line, ""));
            Message { name, line, fields: OnceLock::new() }
        };
        MESSAGES.lines().map(message).collect()
    })
}

/// The message of an object's apiVersion and kind.
pub(super) fn message_of(api_version: &str, kind: &str) -> Option<&'static Message> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    // The built-in groups alone have messages; others share the domain, but have dots before it.
    let package = match group {
        "" => "core",
        "apps" | "batch" | "autoscaling" | "policy" => group,
        "rbac.authorization.k8s.io" => "rbac",
        "flowcontrol.apiserver.k8s.io" => "flowcontrol",
        _ => group.strip_suffix(".k8s.io").filter(|label| !label.contains('.'))?,
    };
    let own = message(&format!("{package}.{version}.{kind}"));
    // `Status`, `DeleteOptions` and their like are of every group and version.
    own.or_else(|| message(&format!("meta.v1.{kind}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_whole_and_in_order() {
        assert!(messages().is_sorted_by_key(|message| message.name));
        for message in messages() {
            let words = message.line.split(' ').filter(|word| !word.is_empty()).count();
            assert_eq!(message.fields().len(), words, "{}", message.name);
            assert!(message.fields().is_sorted_by_key(|field| field.number), "{}", message.name);
            for field in message.fields() {
                let needs = matches!(field.kind, Kind::Message | Kind::Inline);
                assert_eq!(needs, field.message.is_some(), "{} {}", message.name, field.name);
                assert_eq!(
                    field.name.is_empty(),
                    field.kind == Kind::Inline,
                    "{} {}",
                    message.name,
                    field.number
                );
            }
        }
    }

    #[test]
    fn every_kind_served_has_a_message_with_a_list() {
        for resource in crate::resources() {
            let version = resource.api_version();
            assert!(message_of(&version, resource.kind).is_some(), "{resource:?}");
            let list = message_of(&version, &format!("{}List", resource.kind));
            assert_eq!(list.is_some(), resource.has_verb("list"), "{resource:?}");
        }
        assert!(message_of("example.com/v1", "Pod").is_none());
        assert!(message_of("policy/v1", "DeleteOptions").is_some());
    }
}
