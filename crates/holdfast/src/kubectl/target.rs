//! What a command is about: `pods`, `pods,services`, `pod web-1`, `pod/web-1 service/web`.

use anyhow::bail;
use client::{Discovery, Resource};

/// One resource, and which of its objects: all where none is named.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub resource: Resource,
    pub names: Vec<String>,
}

/// Reads the words of a command line.
pub fn targets(words: &[String], discovery: &Discovery) -> anyhow::Result<Vec<Target>> {
    let Some((first, rest)) = words.split_first() else {
        bail!("say what: a type of resource such as `pods`, or TYPE/NAME");
    };
    if words.iter().any(|w| w.contains('/')) {
        let mut found: Vec<Target> = Vec::new();
        for word in words {
            let Some((kind, name)) = word.split_once('/').filter(|(k, n)| !k.is_empty() && !n.is_empty())
            else {
                bail!(
                    "there is no need to specify a resource type as a separate argument when passing \
                       arguments in resource/name form: say TYPE NAME... or TYPE/NAME... (not {word:?})"
                );
            };
            let resource = discovery.find(kind)?.clone();
            match found.last_mut().filter(|t| t.resource == resource) {
                Some(target) => target.names.push(name.to_owned()),
                None => found.push(Target { resource, names: vec![name.to_owned()] }),
            }
        }
        return Ok(found);
    }
    let mut resources: Vec<Resource> = Vec::new();
    for word in first.split(',').filter(|w| !w.is_empty()) {
        let of_category = discovery.category(word);
        match of_category.is_empty() {
            true => resources.push(discovery.find(word)?.clone()),
            false => resources.extend(of_category.into_iter().cloned()),
        }
    }
    if resources.is_empty() {
        bail!("say what: a type of resource such as `pods`, or TYPE/NAME");
    }
    Ok(resources.into_iter().map(|resource| Target { resource, names: rest.to_vec() }).collect())
}
