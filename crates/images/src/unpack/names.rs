//! The names in an archive, as paths beneath the root that they are unpacked to.

/// The parts of a path, as if it began at the root and nothing lay above that: `/a/./b/../../../c` is `c`. As Go's
/// `filepath.Clean("/" + name)`, by which Docker and containerd read names.
pub(super) fn anchored(name: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts
}

/// A name for people, shortened.
pub(super) fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    crate::digest::shortened(&text.escape_debug().to_string())
}

/// What a name in a layer means: image specification, "Whiteouts".
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// That which it names.
    Itself,
    /// What has this name below is not there.
    Gone(&'a [u8]),
    /// All that lies below in this folder is not there.
    Opaque,
    /// Nothing: AUFS's own.
    Nothing,
    /// It can't be.
    Wrong,
}

pub(super) fn meaning(name: &[u8]) -> Meaning<'_> {
    match name.strip_prefix(b".wh.") {
        None => Meaning::Itself,
        Some(b".wh..opq") => Meaning::Opaque,
        Some(rest) if rest.starts_with(b".wh.") => Meaning::Nothing,
        Some(b"" | b"." | b"..") => Meaning::Wrong,
        Some(rest) => Meaning::Gone(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_above_the_root() {
        for (name, parts) in [
            (&b"a/b"[..], &[&b"a"[..], b"b"][..]),
            (b"./a//b/", &[b"a", b"b"]),
            (b"/etc/passwd", &[b"etc", b"passwd"]),
            (b"../../etc", &[b"etc"]),
            (b"a/../../../b/..", &[]),
            (b"...", &[b"..."]),
            (b"", &[]),
        ] {
            assert_eq!(anchored(name), parts, "{}", shown(name));
        }
    }

    #[test]
    fn whiteouts_are_known_by_their_names() {
        for (name, means) in [
            (&b"a"[..], Meaning::Itself),
            (b".wh.a", Meaning::Gone(b"a")),
            (b".wh..a", Meaning::Gone(b".a")),
            (b".wh..wh..opq", Meaning::Opaque),
            (b".wh..wh.plnk", Meaning::Nothing),
            (b".wh.", Meaning::Wrong),
            (b".wh...", Meaning::Wrong),
            (b".wh..", Meaning::Wrong),
            (b".what", Meaning::Itself),
        ] {
            assert_eq!(meaning(name), means, "{}", shown(name));
        }
    }
}
