//! The place of a field below a value, as a rule names it: `.spec.replicas` or `.labels['app']`.

use serde_json::Value;

/// The path as causes write it, if the schema has such a field.
///
/// # Errors
/// Why it is none.
pub fn field_path(schema: &Value, text: &str) -> Result<String, String> {
    let (mut schema, mut rest, mut path) = (schema, text, String::new());
    while !rest.is_empty() {
        let (name, behind) = next(rest).ok_or_else(|| {
            format!("unexpected end or sign in {rest:?}: write .name or ['name'], without indexes of lists")
        })?;
        let property = schema.get("properties").and_then(|all| all.get(&name));
        let (below, is_key) = match (property, schema.get("additionalProperties")) {
            (Some(property), _) => (property, false),
            (None, Some(values @ Value::Object(_))) => (values, true),
            _ => return Err(format!("does not refer to a valid field: there is no {name:?}")),
        };
        if is_key || name.contains('.') {
            path.push_str(&format!("[{name}]"));
        } else {
            path.push_str(&format!(".{name}"));
        }
        (schema, rest) = (below, behind);
    }
    Ok(path)
}

/// The first name, and what is behind it.
fn next(text: &str) -> Option<(String, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        return (end > 0).then(|| (rest[..end].to_owned(), &rest[end..]));
    }
    let rest = text.strip_prefix("['")?;
    let (mut name, mut chars) = (String::new(), rest.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(chars.next()?.1),
            '\'' => return rest[at + 1..].strip_prefix(']').map(|behind| (name, behind)),
            c => name.push(c),
        }
    }
    None
}
