//! Names of objects: which a resource takes, and which are made for it.

pub use cel::names::{
    label_1035_fault, label_fault, label_value_fault, qualified_fault, qualified_faults, subdomain_fault,
};

/// Longest name that `generateName` makes.
const LONGEST_GENERATED: usize = 63;
const SUFFIX: usize = 5;
/// No vowels and no digits that look like them: no words come out.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The beginning of generated names, as a name that it could become: a `-` at the end is no fault of it.
pub fn without_dash_at_end(prefix: &str) -> String {
    let mut name = prefix.to_owned();
    if name.len() > 1 && name.ends_with('-') {
        name.pop();
        name.pop();
        name.push('a');
    }
    name
}

/// A name that begins with `base` and ends in five characters from `random`, as `generateName` asks for.
pub fn generate_name(base: &str, mut random: impl FnMut() -> u32) -> String {
    let mut end = base.len().min(LONGEST_GENERATED - SUFFIX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let suffix = (0..SUFFIX).map(|_| char::from(ALPHABET[random() as usize % ALPHABET.len()]));
    base[..end].chars().chain(suffix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit() {
        let name = generate_name(&"x".repeat(100), || 26);
        assert_eq!(name.len(), 63);
        assert!(name.ends_with("x99999"), "{name}");
    }
}
