//! The functions that an expression may call: those of Kubernetes' environment.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::types::Type;

/// One form of a function.
#[derive(Debug)]
pub(crate) struct Signature {
    pub(crate) receiver: Option<Type<'static>>,
    pub(crate) arguments: Vec<Type<'static>>,
    pub(crate) result: Type<'static>,
}

/// A line each: the receiver's type or `-`, name and arguments, and the result's type.
const LINES: &str = include_str!("signatures.txt");

/// All forms of the function of that name, if there is one.
pub(crate) fn of(name: &str) -> Option<&'static [Signature]> {
    static ALL: OnceLock<BTreeMap<&'static str, Vec<Signature>>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let mut all: BTreeMap<&str, Vec<Signature>> = BTreeMap::new();
        for (name, signature) in LINES.lines().filter_map(signature) {
            all.entry(name).or_default().push(signature);
        }
        all
    });
    all.get(name).map(Vec::as_slice)
}

fn signature(line: &'static str) -> Option<(&'static str, Signature)> {
    let mut words = line.split(' ');
    let (receiver, call, result) = (words.next()?, words.next()?, words.next()?);
    let (name, arguments) = call.strip_suffix(')')?.split_once('(')?;
    let receiver = if receiver == "-" { None } else { Some(named(receiver)) };
    let arguments = split(arguments).into_iter().map(named).collect();
    Some((name, Signature { receiver, arguments, result: named(result) }))
}

/// What stands between the commas that are not within brackets.
fn split(list: &'static str) -> Vec<&'static str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !list.is_empty() {
        parts.push(&list[start..]);
    }
    parts
}

fn named(name: &'static str) -> Type<'static> {
    let inner = |prefix: &str| name.strip_prefix(prefix)?.strip_prefix('<')?.strip_suffix('>');
    if let Some(of) = inner("list") {
        return Type::list(named(of));
    }
    if let Some(of) = inner("optional") {
        return Type::optional(named(of));
    }
    if let Some([key, value]) = inner("map").map(split).as_deref() {
        return Type::Map(Box::new(named(key)), Box::new(named(value)));
    }
    match name {
        "dyn" => Type::Dyn,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "type" => Type::Type,
        "A" | "K" | "V" => Type::Parameter(if name == "V" { 1 } else { 0 }),
        opaque => Type::Opaque(opaque_name(opaque)),
    }
}

/// The name of a type of Kubernetes' own, in full.
fn opaque_name(short: &'static str) -> &'static str {
    match short {
        "IP" => "net.IP",
        "CIDR" => "net.CIDR",
        "URL" => "kubernetes.URL",
        "Quantity" => "kubernetes.Quantity",
        "Semver" => "kubernetes.Semver",
        "Format" => "kubernetes.NamedFormat",
        "Authorizer" => "kubernetes.authorization.Authorizer",
        "PathCheck" => "kubernetes.authorization.PathCheck",
        "GroupCheck" => "kubernetes.authorization.GroupCheck",
        "ResourceCheck" => "kubernetes.authorization.ResourceCheck",
        "Decision" => "kubernetes.authorization.Decision",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_signature() {
        for line in LINES.lines() {
            assert!(signature(line).is_some(), "{line}");
        }
        let query = &of("getQuery").unwrap()[0];
        assert_eq!(query.result.to_string(), "map(string, list(string))");
        assert_eq!(query.receiver.as_ref().unwrap().to_string(), "kubernetes.URL");
    }
}
