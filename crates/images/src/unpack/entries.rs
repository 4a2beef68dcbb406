//! Reading tar: ustar, GNU's long names, and PAX, as Go's `archive/tar` reads them, by which images are made and unpacked
//! elsewhere: two readings of one archive would be two images.
//!
//! What is read into memory is bounded: headers that lengthen names or bring attributes have a megabyte, as in Go.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::UnpackError;
use super::names::shown;
use crate::compression::fill;

const BLOCK: usize = 512;
/// Go's `maxSpecialFileSize`.
const LARGEST_EXTENSION: u64 = 1 << 20;
/// Where PAX keeps extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Keys and values.
type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    Device,
}

/// What an entry says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970, and nanoseconds.
    pub(crate) modified: (i64, u32),
    pub(crate) xattrs: Records,
}

/// One entry; its content is read from the [`Entries`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    /// Where a link leads.
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    pub(crate) meta: Meta,
}

/// An archive, entry by entry; reading it reads the content of the last one.
pub(crate) struct Entries<R> {
    source: R,
    /// What is left of the last entry's content, and behind it up to the next block.
    left: u64,
    padding: u64,
    position: u64,
}

#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Records,
}

impl<R: Read> Entries<R> {
    pub(crate) fn new(source: R) -> Self {
        Entries { source, left: 0, padding: 0, position: 0 }
    }

    /// Where in the archive the content of the last entry goes on.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next entry, nothing at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.size()?;
            match header.flag() {
                b'L' => extensions.name = Some(until_nul(&self.extension(size)?).to_vec()),
                b'K' => extensions.link = Some(until_nul(&self.extension(size)?).to_vec()),
                b'x' => extensions.records = records(&self.extension(size)?)?,
                // Go gives no entry what these say, and Docker and containerd pass them over.
                b'g' => drop(self.extension(size)?),
                _ => {
                    let entry = header.entry(extensions, size)?;
                    self.expect(entry.size);
                    return Ok(Some(entry));
                }
            }
        }
    }

    fn expect(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        if size > LARGEST_EXTENSION {
            return Err(archive(format!("a header has {size} bytes, where {LARGEST_EXTENSION} may be")));
        }
        self.expect(size);
        let mut content = Vec::new();
        self.by_ref().read_to_end(&mut content)?;
        Ok(content)
    }

    /// Passes what is left of an entry.
    fn skip(&mut self) -> Result<(), UnpackError> {
        io::copy(self, &mut io::sink())?;
        let mut padding = [0; BLOCK];
        // Less than a block.
        let padding = &mut padding[..std::mem::take(&mut self.padding) as usize];
        // Go takes an archive that ends here.
        self.position += fill(&mut self.source, padding)? as u64;
        Ok(())
    }

    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        let mut block = [0; BLOCK];
        let count = fill(&mut self.source, &mut block)?;
        self.position += count as u64;
        match count {
            0 => return Ok(None),
            BLOCK => {}
            _ => return Err(archive("the archive ends in the middle of a header")),
        }
        if block == [0; BLOCK] {
            return Ok(None);
        }
        let header = Header(block);
        if !header.has_its_sum() {
            return Err(archive("this is no tar archive, or it is damaged: a header's checksum is wrong"));
        }
        Ok(Some(header))
    }
}

impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let count = self.source.read(&mut buffer[..most])?;
        if count == 0 {
            let why = "the archive ends in the middle of a file";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        self.left -= count as u64;
        self.position += count as u64;
        Ok(count)
    }
}

fn archive(why: impl Into<String>) -> UnpackError {
    UnpackError::Archive(why.into())
}

struct Header([u8; BLOCK]);

impl Header {
    fn flag(&self) -> u8 {
        self.0[156]
    }

    /// POSIX sums bytes as unsigned, some old programs as signed.
    fn has_its_sum(&self) -> bool {
        let Some(told) = number(&self.0[148..156]) else { return false };
        let counted = |index: usize| if (148..156).contains(&index) { b' ' } else { self.0[index] };
        let unsigned: i64 = (0..BLOCK).map(|index| i64::from(counted(index))).sum();
        let signed: i64 = (0..BLOCK).map(|index| i64::from(counted(index).cast_signed())).sum();
        told == unsigned || told == signed
    }

    fn size(&self) -> Result<u64, UnpackError> {
        let size = number(&self.0[124..136]).and_then(|size| u64::try_from(size).ok());
        size.ok_or_else(|| archive("a header tells no size"))
    }

    fn name(&self) -> Vec<u8> {
        let name = until_nul(&self.0[..100]);
        // GNU uses the place of the prefix for other things.
        let prefix = if self.0[257..263] == *b"ustar\0" { until_nul(&self.0[345..500]) } else { &[][..] };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    fn entry(&self, extensions: Extensions, size: u64) -> Result<Entry, UnpackError> {
        let mut entry = Entry {
            name: self.name(),
            link: until_nul(&self.0[157..257]).to_vec(),
            kind: Kind::File,
            size,
            meta: Meta { mode: 0, uid: 0, gid: 0, modified: (0, 0), xattrs: Vec::new() },
        };
        let field = |range: std::ops::Range<usize>, what: &str| {
            number(&self.0[range]).ok_or_else(|| archive(format!("a header tells no {what}")))
        };
        let (mut uid, mut gid) = (field(108..116, "owner")?, field(116..124, "group")?);
        // Beside the permissions some writers put the kind of the file there.
        entry.meta.mode = (field(100..108, "mode")? & 0o7777) as u32;
        entry.meta.modified = (field(136..148, "time")?, 0);
        let mut xattrs = BTreeMap::new();
        for (key, value) in extensions.records {
            let text = || std::str::from_utf8(&value).ok();
            let wrong = || archive(format!("{} of a PAX header is {}", shown(&key), shown(&value)));
            match key.as_slice() {
                b"path" => entry.name = value,
                b"linkpath" => entry.link = value,
                b"size" => entry.size = text().and_then(|text| text.parse().ok()).ok_or_else(wrong)?,
                b"uid" => uid = text().and_then(|text| text.parse().ok()).ok_or_else(wrong)?,
                b"gid" => gid = text().and_then(|text| text.parse().ok()).ok_or_else(wrong)?,
                b"mtime" => entry.meta.modified = text().and_then(time).ok_or_else(wrong)?,
                other if other.starts_with(b"GNU.sparse.") => return Err(sparse(&entry.name)),
                other => {
                    if let Some(name) = other.strip_prefix(XATTR) {
                        xattrs.insert(name.to_vec(), value);
                    }
                }
            }
        }
        entry.meta.xattrs = xattrs.into_iter().collect();
        entry.name = extensions.name.unwrap_or(entry.name);
        entry.link = extensions.link.unwrap_or(entry.link);
        entry.kind = match self.flag() {
            b'\0' if entry.name.ends_with(b"/") => Kind::Directory,
            b'0' | b'\0' | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' | b'4' => Kind::Device,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => return Err(sparse(&entry.name)),
            other => {
                let why = format!("entries of type {:?} are not supported", char::from(other));
                return Err(UnpackError::Entry { name: shown(&entry.name), why });
            }
        };
        if entry.kind != Kind::File {
            // Whatever they say, nothing follows: as in Go.
            entry.size = 0;
        }
        let id = |id: i64, what: &str| {
            // The last one means "leave it as it is" to the kernel.
            u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| UnpackError::Entry {
                name: shown(&entry.name),
                why: format!("there is no {what} {id}"),
            })
        };
        (entry.meta.uid, entry.meta.gid) = (id(uid, "user")?, id(gid, "group")?);
        Ok(entry)
    }
}

fn sparse(name: &[u8]) -> UnpackError {
    UnpackError::Entry { name: shown(name), why: "sparse files are not supported".into() }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A field with a number: octal digits, or where those don't suffice, two's complement after a first bit.
fn number(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let sign = if first & 0x40 != 0 { -64 } else { 0 };
        let whole = rest
            .iter()
            // Twelve bytes at most: they fit.
            .fold(i128::from(first & 0x3f) + sign, |whole, byte| whole << 8 | i128::from(*byte));
        return i64::try_from(whole).ok();
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    let digits = text.split(['\0', ' ']).next()?;
    match digits {
        "" => Some(0),
        digits if digits.starts_with('+') => None,
        digits => i64::from_str_radix(digits, 8).ok().filter(|number| *number >= 0),
    }
}

/// `[-]SECONDS[.FRACTION]`, finer than nanoseconds cut off.
fn time(text: &str) -> Option<(i64, u32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole: i64 = seconds.parse().ok()?;
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    if seconds.starts_with('-') && nanos > 0 {
        return Some((whole.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((whole, nanos))
}

/// PAX: `LENGTH KEY=VALUE\n` again and again, where the length counts all of it, and a value may be any bytes.
fn records(mut content: &[u8]) -> Result<Records, UnpackError> {
    let wrong = || archive("a PAX header is damaged");
    let mut records = Vec::new();
    while !content.is_empty() {
        let blank = content.iter().take(8).position(|byte| *byte == b' ').ok_or_else(wrong)?;
        let length = std::str::from_utf8(&content[..blank]).ok().and_then(|text| text.parse().ok());
        let length: usize = length.filter(|length| *length > blank + 1).ok_or_else(wrong)?;
        let record = content.get(blank + 1..length).ok_or_else(wrong)?;
        let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        let is_name = matches!(key, b"path" | b"linkpath");
        if key.is_empty() || key.contains(&0) || (is_name && value.contains(&0)) {
            return Err(wrong());
        }
        // An empty value takes back what was said before.
        if !value.is_empty() || key.starts_with(XATTR) {
            records.push((key.to_vec(), value.to_vec()));
        }
        content = &content[length..];
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        for (field, is) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"  644 \0 ", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"0000008\0", None),
            (b"+000001\0", None),
            (b"-000001\0", None),
            (&[0x80, 0, 0, 0, 0, 0, 0, 1, 0], Some(256)),
            (&[0xff, 0xff, 0xff, 0xfe], Some(-2)),
            (&[0xff; 12], Some(-1)),
            (&[0x80, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], None),
        ] {
            assert_eq!(number(field), is, "{field:?}");
        }
    }

    #[test]
    fn times_have_fractions() {
        for (text, is) in [
            ("12", Some((12, 0))),
            ("12.5", Some((12, 500_000_000))),
            ("12.1234567891", Some((12, 123_456_789))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-0.5", Some((-1, 500_000_000))),
            ("1.é", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(time(text), is, "{text}");
        }
    }

    #[test]
    fn records_hold_any_bytes() {
        let content = b"30 SCHILY.xattr.user.a=1\n2\n\n34\n12 path=a/b\n";
        assert!(records(content).is_err());
        let content = b"30 SCHILY.xattr.user.a=1\n2=\n3\n12 path=a/b\n";
        let found = records(content).unwrap();
        assert_eq!(found[0], (b"SCHILY.xattr.user.a".to_vec(), b"1\n2=\n3".to_vec()));
        assert_eq!(found[1], (b"path".to_vec(), b"a/b".to_vec()));
        for wrong in [&b"12 path=a/b"[..], b"99 path=a/b\n", b"0 \n", b"path=a\n", b"9 path=\0\n", b"4 =\n"] {
            assert!(records(wrong).is_err(), "{}", shown(wrong));
        }
    }

    proptest! {
        /// Whatever comes, it is read to an end or refused, and not more than came.
        #[test]
        fn any_bytes_are_read(mut bytes in proptest::collection::vec(any::<u8>(), 0..3000), flag in "[0-7xLKgS]") {
            if bytes.len() >= BLOCK {
                // With its sum a header gets further.
                bytes[156] = flag.as_bytes()[0];
                bytes[100..148].fill(b'0');
                bytes[124..136].copy_from_slice(b"00000000600\0");
                bytes[148..156].fill(b' ');
                let sum: u32 = bytes[..BLOCK].iter().map(|byte| u32::from(*byte)).sum();
                bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            let mut entries = Entries::new(bytes.as_slice());
            while let Ok(Some(_)) = entries.next() {}
            prop_assert!(entries.position() <= bytes.len() as u64);
        }
    }
}
