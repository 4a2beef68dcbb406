//! `--sort-by`: objects in the order of what a path leads to, as kubectl sorts them.

use anyhow::ensure;
use machinery::json_path::{Path, order};
use serde_json::Value;

use super::jsonpath::first;

/// Sorts what `object` finds an object in. What has nothing there comes first; what can't be compared stays as it is.
///
/// # Errors
/// No object has such a field.
pub fn sort(all: &mut Vec<Value>, by: &Path, object: impl Fn(&Value) -> &Value) -> anyhow::Result<()> {
    let mut keyed: Vec<(Option<Value>, Value)> = Vec::with_capacity(all.len());
    for one in all.iter() {
        keyed.push((first(by, object(one))?.cloned(), one.clone()));
    }
    let is_known = keyed.is_empty() || keyed.iter().any(|(key, _)| key.is_some());
    ensure!(is_known, "couldn't find any field with the path of --sort-by");
    keyed.sort_by_cached_key(|(key, _)| Key(key.clone()));
    *all = keyed.into_iter().map(|(_, one)| one).collect();
    Ok(())
}

/// A value to sort by: ordered as a whole, whatever there is, for the kinds that come before each other.
#[derive(PartialEq, Eq)]
struct Key(Option<Value>);

impl Key {
    fn kind(&self) -> u8 {
        match &self.0 {
            None | Some(Value::Null) => 0,
            Some(Value::Bool(_)) => 1,
            Some(Value::Number(_)) => 2,
            Some(Value::String(_)) => 3,
            Some(_) => 4,
        }
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let within = match (&self.0, &other.0) {
            (Some(left), Some(right)) => order(left, right),
            _ => None,
        };
        self.kind().cmp(&other.kind()).then(within.unwrap_or(std::cmp::Ordering::Equal))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_sorted_and_those_without_the_field_come_first() {
        let mut all = vec![
            json!({"n": 20}),
            json!({"n": 3}),
            json!({"m": 1}),
            json!({"n": "text"}),
            json!({"n": 20, "x": 1}),
        ];
        sort(&mut all, &".n".parse().unwrap(), |one| one).unwrap();
        let expected = [
            json!({"m": 1}),
            json!({"n": 3}),
            json!({"n": 20}),
            json!({"n": 20, "x": 1}),
            json!({"n": "text"}),
        ];
        assert_eq!(all, expected);
        let refused = sort(&mut all, &".nothing".parse().unwrap(), |one| one).unwrap_err().to_string();
        assert!(refused.contains("couldn't find any field"), "{refused}");
        sort(&mut Vec::new(), &".n".parse().unwrap(), |one| one).unwrap();
    }
}
