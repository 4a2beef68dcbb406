//! Where an image is imported from: a folder, or the members of a tar archive, in any order.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::compression::{compression, decompress, fill};
use crate::digest::{Algorithm, Hashing};
use crate::temporary::Piece;
use crate::unpack::{Entries, Kind};

/// An image has hundreds of files in its archive.
const MOST_MEMBERS: usize = 100_000;
/// As the kernel's for symbolic links.
const MOST_LINKS: usize = 40;
const BUFFER: usize = 64 << 10;

/// What an image is imported from.
pub(crate) struct Source {
    path: PathBuf,
    form: Form,
}

enum Form {
    Folder,
    Archive {
        file: File,
        members: BTreeMap<String, Member>,
        /// What was compressed lies here without that.
        _plain: Option<Piece>,
    },
}

enum Member {
    File { offset: u64, size: u64 },
    Link(String),
}

/// A file of a source, and how many bytes it has.
pub(crate) struct Content<'a> {
    pub(crate) reader: Box<dyn Read + 'a>,
    pub(crate) size: u64,
}

impl Source {
    /// Opens a folder or an archive. What is compressed, or can't be read at any place, is copied to `piece` first: `most` bytes
    /// at most.
    pub(crate) fn open(path: &Path, piece: Piece, most: u64) -> Result<Self, Error> {
        let stat = fs::metadata(path).map_err(Error::disk("read", path))?;
        if stat.is_dir() {
            return Ok(Source { path: path.to_owned(), form: Form::Folder });
        }
        let mut file = File::open(path).map_err(Error::disk("read", path))?;
        let mut head = [0; 4];
        let is_plain = stat.is_file() && {
            fill(&mut file, &mut head).map_err(Error::disk("read", path))?;
            file.rewind().map_err(Error::disk("read", path))?;
            compression(&head).is_none()
        };
        let (file, plain) =
            if is_plain { (file, None) } else { (copied(path, file, &piece, most)?, Some(piece)) };
        let members = members(path, &file)?;
        Ok(Source { path: path.to_owned(), form: Form::Archive { file, members, _plain: plain } })
    }

    /// An error that names this source.
    pub(crate) fn wrong(&self, why: impl Into<String>) -> Error {
        Error::Archive { path: self.path.clone(), why: why.into() }
    }

    /// Whether there is a file of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        match &self.form {
            Form::Folder => self.path.join(normal(name, "")).is_file(),
            Form::Archive { members, .. } => find(members, name).is_some(),
        }
    }

    /// Opens a file, by its path in the source: one that leads above it leads nowhere.
    pub(crate) fn content(&self, name: &str) -> Result<Content<'_>, Error> {
        let missing = || self.wrong(format!("there is no {name} in it"));
        match &self.form {
            Form::Folder => {
                let path = self.path.join(normal(name, ""));
                let failed = Error::disk("read", &path);
                // Before it is opened: a pipe would wait for a writer.
                let stat = match fs::metadata(&path) {
                    Ok(stat) if stat.is_file() => stat,
                    _ => return Err(missing()),
                };
                let file = File::open(&path).map_err(failed)?;
                Ok(Content { reader: Box::new(BufReader::with_capacity(BUFFER, file)), size: stat.len() })
            }
            Form::Archive { file, members, .. } => {
                let (offset, size) = find(members, name).ok_or_else(missing)?;
                let mut file = file;
                file.seek(SeekFrom::Start(offset)).map_err(Error::disk("read", &self.path))?;
                let reader = Box::new(BufReader::with_capacity(BUFFER, file.take(size)));
                Ok(Content { reader, size })
            }
        }
    }

    /// Reads a file of at most `most` bytes.
    pub(crate) fn read(&self, name: &str, most: u64) -> Result<Vec<u8>, Error> {
        let content = self.content(name)?;
        if content.size > most {
            return Err(Error::TooLarge { what: format!("{name} in {}", self.path.display()), most });
        }
        let mut whole = Vec::new();
        let read = content.reader.take(most).read_to_end(&mut whole);
        read.map_err(Error::disk("read", &self.path))?;
        Ok(whole)
    }
}

fn copied(path: &Path, file: File, piece: &Piece, most: u64) -> Result<File, Error> {
    let wrong = |why: io::Error| match why.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::disk("write", piece.path())(why),
        _ => Error::Archive { path: path.to_owned(), why: why.to_string() },
    };
    let plain = decompress(BufReader::with_capacity(BUFFER, file)).map_err(wrong)?;
    let mut plain = Hashing::new(plain, Algorithm::Sha256, most, "the archive");
    let options = File::options().read(true).write(true).create_new(true).open(piece.path());
    let mut copy = options.map_err(Error::disk("make", piece.path()))?;
    io::copy(&mut plain, &mut copy).map_err(wrong)?;
    Ok(copy)
}

fn members(path: &Path, mut file: &File) -> Result<BTreeMap<String, Member>, Error> {
    let wrong = |why: String| Error::Archive { path: path.to_owned(), why };
    file.rewind().map_err(Error::disk("read", path))?;
    let mut entries = Entries::new(BufReader::with_capacity(BUFFER, file));
    let mut members = BTreeMap::new();
    while let Some(entry) = entries.next().map_err(|why| wrong(why.to_string()))? {
        let Ok(name) = std::str::from_utf8(&entry.name) else { continue };
        let name = normal(name, "");
        let link = || std::str::from_utf8(&entry.link).unwrap_or_default();
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let member = match entry.kind {
            Kind::File => Member::File { offset: entries.position(), size: entry.size },
            // Layers that are alike are there once, in archives of Docker before 25.
            Kind::Symlink => Member::Link(normal(link(), folder)),
            Kind::HardLink => Member::Link(normal(link(), "")),
            Kind::Directory | Kind::Fifo | Kind::Device => continue,
        };
        members.insert(name, member);
        if members.len() > MOST_MEMBERS {
            return Err(wrong(format!("it has more than {MOST_MEMBERS} files")));
        }
    }
    Ok(members)
}

/// A path from the archive's root, as it is asked for; from `folder`, unless it says where it begins.
fn normal(name: &str, folder: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let from = if name.starts_with('/') { "" } else { folder };
    for part in from.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn find(members: &BTreeMap<String, Member>, name: &str) -> Option<(u64, u64)> {
    let mut name = name;
    for _ in 0..MOST_LINKS {
        match members.get(name)? {
            Member::File { offset, size } => return Some((*offset, *size)),
            Member::Link(target) => name = target,
        }
    }
    None
}
