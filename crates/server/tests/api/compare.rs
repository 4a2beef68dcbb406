//! Holds an answer against a recorded one with placeholders.

use serde_json::Value;

/// Fields that nobody holds a server to: sentences for people.
const NOT_COMPARED: [&str; 2] = ["message", "description"];

/// Every difference between the recorded and the actual value, each with its path.
pub fn differences(recorded: &Value, actual: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", recorded, actual, &mut found);
    found
}

fn compare(path: &str, recorded: &Value, actual: &Value, found: &mut Vec<String>) {
    match (recorded, actual) {
        (Value::Object(recorded), Value::Object(actual)) => {
            let keys = recorded.keys().chain(actual.keys().filter(|key| !recorded.contains_key(*key)));
            for key in keys.filter(|key| !NOT_COMPARED.contains(&key.as_str())) {
                let path = format!("{path}/{key}");
                match (recorded.get(key), actual.get(key)) {
                    (Some(recorded), Some(actual)) => compare(&path, recorded, actual, found),
                    (Some(recorded), None) => {
                        found.push(format!("{path}: recorded {recorded}, here nothing"))
                    }
                    (None, Some(actual)) => found.push(format!("{path}: recorded nothing, here {actual}")),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(recorded), Value::Array(actual)) => {
            if recorded.len() != actual.len() {
                found.push(format!("{path}: recorded {} items, here {}", recorded.len(), actual.len()));
            }
            for (index, (recorded, actual)) in recorded.iter().zip(actual).enumerate() {
                compare(&format!("{path}/{index}"), recorded, actual, found);
            }
        }
        (Value::String(pattern), actual) if matches(pattern, actual) => {}
        _ if recorded == actual => {}
        _ => found.push(format!("{path}: recorded {recorded}, here {actual}")),
    }
}

/// Whether a value is what a text with placeholders stands for.
fn matches(pattern: &str, actual: &Value) -> bool {
    match actual {
        Value::Number(number) => {
            pattern == "<port>" && number.as_u64().is_some_and(|port| (30000..=32767).contains(&port))
        }
        Value::String(text) => matches_text(pattern, text),
        _ => false,
    }
}

fn matches_text(pattern: &str, text: &str) -> bool {
    let Some((before, rest)) = pattern.split_once('<') else { return pattern == text };
    let Some((name, after)) = rest.split_once('>') else { return pattern == text };
    let Some(text) = text.strip_prefix(before) else { return false };
    let fits: fn(&str) -> bool = match name {
        "uid" => |t| t.len() == 36 && t.chars().all(|c| c.is_ascii_hexdigit() || c == '-'),
        "time" => |t| t.parse::<jiff::Timestamp>().is_ok(),
        "rv" | "age" => |t| t.chars().all(|c| c.is_ascii_alphanumeric() || c == '<' || c == '>'),
        "ip" => |t| t.parse::<std::net::Ipv4Addr>().is_ok(),
        "port" => |t| t.parse::<u16>().is_ok(),
        "gen" => |t| t.len() == 5,
        "continue" | "token" => |t| !t.is_empty(),
        _ => return pattern == format!("{before}{text}"),
    };
    (1..=text.len())
        .rev()
        .filter(|end| text.is_char_boundary(*end))
        .any(|end| fits(&text[..end]) && matches_text(after, &text[end..]))
}

#[test]
fn placeholders_stand_for_what_they_say() {
    let same = |a: &str, b: Value| matches(a, &b);
    assert!(same("<rv>", "12".into()) && !same("<rv>", "".into()));
    assert!(same("a <time> b", "a 2026-01-01T00:00:00Z b".into()) && !same("<time>", "soon".into()));
    assert!(same("x-<gen>", "x-abcde".into()) && !same("x-<gen>", "x-abcd".into()));
    assert!(same("<port>", 30001.into()) && !same("<port>", 80.into()));
    assert!(same("80:<port>/TCP", "80:30001/TCP".into()));
}
