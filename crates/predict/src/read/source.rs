//! The files of one program on a host, which it reads as one.

use std::collections::{BTreeMap, BTreeSet};

use super::blocks::{BlocksError, Ends, blocks};
use super::haproxy::haproxy;
use super::keepalived::keepalived;
use super::nginx::nginx;
use super::{Host, NotUnderstood};
use crate::timers::pairs;

/// A program that reads several files as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reader {
    Haproxy,
    Keepalived,
    Nginx,
}

impl Reader {
    /// The file that names the others, or that comes first.
    fn first_file(self) -> &'static str {
        match self {
            Reader::Haproxy => "haproxy.cfg",
            Reader::Keepalived => "keepalived.conf",
            Reader::Nginx => "nginx.conf",
        }
    }

    /// What of it has a name that is there once on a host.
    fn named(self) -> &'static [&'static str] {
        match self {
            Reader::Haproxy => &["frontend", "backend", "listen"],
            Reader::Keepalived => &["vrrp_instance", "vrrp_script"],
            Reader::Nginx => &["upstream"],
        }
    }

    fn names(self, text: &str) -> BTreeSet<String> {
        let each = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let kind = words.next().filter(|word| self.named().contains(word))?;
            Some(format!("{kind} {}", words.next()?.trim_end_matches('{')))
        });
        each.collect()
    }
}

/// Texts that were given, and the names in them.
#[derive(Debug, Clone, Default)]
pub(super) struct Texts {
    all: BTreeMap<Reader, Vec<(String, String)>>,
    names: BTreeSet<(Reader, String)>,
}

/// Where the lines of several files are that were read as one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Source {
    /// Each file, with how many lines are before it.
    parts: Vec<(String, usize)>,
}

impl Source {
    fn local(&self, line: usize) -> (&str, usize) {
        let before = self.parts.iter().rev().find(|(_, before)| *before < line.max(1));
        before.map_or(("", line), |(file, before)| (file, line.saturating_sub(*before)))
    }

    /// The file of a line.
    pub(crate) fn file(&self, line: usize) -> &str {
        self.local(line).0
    }

    /// A file with a line.
    pub(crate) fn at(&self, line: usize) -> String {
        let (file, line) = self.local(line);
        if line == 0 { file.to_owned() } else { format!("{file}:{line}") }
    }
}

impl Host {
    /// Keeps a file until all of its program are there; the reason where it can't be one of them.
    pub(super) fn keep(&mut self, reader: Reader, path: &str, text: &str) -> Result<(), String> {
        let ends = match reader {
            Reader::Haproxy => None,
            Reader::Keepalived => Some(Ends::Line),
            Reader::Nginx => Some(Ends::Semicolon),
        };
        if let Some(error) = ends.and_then(|ends| blocks(text, ends).err()) {
            return Err(error.to_string());
        }
        let names: BTreeSet<_> = reader.names(text).into_iter().map(|name| (reader, name)).collect();
        if !names.is_disjoint(&self.texts.names) {
            return Err(
                "its host has another one already; put each host's files into a folder of their own".into()
            );
        }
        self.texts.names.extend(names);
        self.texts.all.entry(reader).or_default().push((path.to_owned(), text.to_owned()));
        Ok(())
    }

    /// Reads what was kept.
    pub(super) fn join(&mut self) {
        for (reader, mut parts) in std::mem::take(&mut self.texts).all {
            parts.sort_by_key(|(path, _)| path.rsplit('/').next() != Some(reader.first_file()));
            let (mut source, mut text, mut lines) = (Source::default(), String::new(), 0);
            for (path, part) in parts {
                let before = text.len();
                text += &part;
                if !part.ends_with('\n') {
                    text.push('\n');
                }
                source.parts.push((path, lines));
                lines += text[before..].matches('\n').count();
            }
            let told = match self.joined(reader, source.clone(), &text) {
                Ok(None) => continue,
                Ok(Some(why)) => why.to_owned(),
                Err(error) => error.to_string(),
            };
            self.used = self.used.saturating_sub(source.parts.len());
            self.unknown.extend(source.parts.into_iter().map(|(path, _)| (path, told.clone())));
        }
    }

    /// Why it is of no use, where it isn't.
    fn joined(
        &mut self,
        reader: Reader,
        source: Source,
        text: &str,
    ) -> Result<Option<&'static str>, BlocksError> {
        let named = match reader {
            Reader::Haproxy => {
                let read = haproxy(text);
                if pairs(&read).is_empty() {
                    return Ok(Some("there is no server in it"));
                }
                for line in &read.passwords {
                    let (file, line) = source.local(*line);
                    self.passwords.push((file.to_owned(), line, "HAProxy's users"));
                }
                let named = read.not_understood.clone();
                self.haproxy = Some((source.clone(), read));
                named
            }
            Reader::Keepalived => {
                let read = keepalived(text)?;
                let named = read.not_understood.clone();
                if read.instances.is_empty() {
                    return Ok(Some("there is no vrrp_instance in it"));
                }
                self.keepalived = Some((source.clone(), read));
                named
            }
            Reader::Nginx => {
                let read = nginx(text)?;
                let named = read.not_understood.clone();
                if read.of_api().next().is_none() {
                    let includes = named.iter().find(|told| told.what.starts_with("include "));
                    return Ok(Some(match includes {
                        Some(_) => {
                            "no server in it hands on to API servers; give the files that it includes too"
                        }
                        None => "no server in it hands on to API servers",
                    }));
                }
                self.nginx = Some((source.clone(), read));
                named
            }
        };
        for told in named {
            let (file, line) = source.local(told.line);
            let is_here = told.what.strip_prefix("include ").is_some_and(|pattern| {
                source.parts.iter().any(|(path, _)| path != file && covers(pattern, path))
            });
            if !is_here {
                self.not_understood.push(NotUnderstood { file: file.to_owned(), line, what: told.what });
            }
        }
        Ok(None)
    }
}

/// A pattern names a file, by the last folder and the name of both.
fn covers(pattern: &str, path: &str) -> bool {
    let fits = |pattern: &str, name: &str| match pattern.split_once('*') {
        Some((begin, end)) => {
            name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end)
        }
        None => pattern == name,
    };
    let mut names = path.rsplit('/');
    pattern
        .rsplit('/')
        .take(2)
        .all(|part| part.is_empty() || names.next().is_some_and(|name| fits(part, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_their_own_files() {
        let mut host = Host::default();
        host.keep(Reader::Haproxy, "conf.d/b.cfg", "frontend f\n  wondrous\n  default_backend b").unwrap();
        host.keep(
            Reader::Haproxy,
            "haproxy.cfg",
            "defaults\n timeout connect 7s\nbackend b\n server n1 10.0.0.1:6443",
        )
        .unwrap();
        host.join();
        let (source, read) = host.haproxy.as_ref().unwrap();
        let section = &read.sections[1];
        assert_eq!((source.at(section.line), section.connect_ms), ("conf.d/b.cfg:1".into(), Some(7000)));
        assert_eq!((&*host.not_understood[0].file, host.not_understood[0].line), ("conf.d/b.cfg", 2));
        assert_eq!(source.at(read.sections[0].line), "haproxy.cfg:3");
    }

    #[test]
    fn an_include_is_fulfilled_by_the_file_that_it_names() {
        for (pattern, path, is) in [
            ("/etc/nginx/conf.d/*.conf", "n1/conf.d/apis.conf", true),
            ("conf.d/*.conf", "n1/sites/apis.conf", false),
            ("apis.conf", "n1/x/apis.conf", true),
            ("*.conf", "n1/x/apis.cfg", false),
        ] {
            assert_eq!(covers(pattern, path), is, "{pattern} {path}");
        }
    }
}
