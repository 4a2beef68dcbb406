use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

/// An archive made byte by byte: what no writer would write, too.
#[derive(Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn header(&mut self, flag: u8, name: &[u8], link: &[u8], size: u64, change: impl Fn(&mut [u8; 512])) {
        let mut block = [0; 512];
        block[..name.len()].copy_from_slice(name);
        block[100..108].copy_from_slice(b"0000755\0");
        block[108..116].copy_from_slice(b"0000000\0");
        block[116..124].copy_from_slice(b"0000000\0");
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        block[136..148].copy_from_slice(b"00000001000\0");
        block[156] = flag;
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        change(&mut block);
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(block);
    }

    fn content(&mut self, content: &[u8]) {
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn file(mut self, name: &str, content: &str) -> Self {
        self.header(b'0', name.as_bytes(), b"", content.len() as u64, |_| {});
        self.content(content.as_bytes());
        self
    }

    fn bare(mut self, flag: u8, name: &str, link: &str) -> Self {
        self.header(flag, name.as_bytes(), link.as_bytes(), 0, |_| {});
        self
    }

    fn folder(self, name: &str) -> Self {
        self.bare(b'5', name, "")
    }

    fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
            let length = (1..).find(|length| length.to_string().len() + rest.len() == *length).unwrap();
            content.extend(length.to_string().into_bytes());
            content.extend(rest);
        }
        self.header(b'x', b"PaxHeaders/0", b"", content.len() as u64, |_| {});
        self.content(&content);
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// A place to unpack in, beside what must stay as it is.
struct Ground {
    dir: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["root", "trash", "outside/folder"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("outside/file"), "untouched").unwrap();
        Ground { dir }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path)
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    fn unpack_with(&self, archive: &[u8], limits: Limits) -> Result<Unpacked, Error> {
        let diff_id = Digest::sha256(archive);
        let expected = Expected { diff_id: &diff_id, blob: None };
        let overlay = Overlay::of(self.dir.path());
        layer(archive, &expected, &self.at(""), &self.dir.path().join("trash"), limits, overlay)
    }

    fn unpack(&self, archive: Raw) -> Result<Unpacked, Error> {
        self.unpack_with(&archive.end(), Limits::default())
    }

    /// What lies beside, with contents, links and modes.
    fn outside(&self) -> BTreeMap<PathBuf, String> {
        let mut all = BTreeMap::new();
        let mut folders = vec![self.dir.path().join("outside")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let stat = fs::symlink_metadata(&path).unwrap();
                if stat.is_dir() {
                    folders.push(path.clone());
                }
                let says = fs::read_to_string(&path).unwrap_or_default();
                all.insert(path, format!("{:o} {} {} {says}", stat.mode(), stat.uid(), stat.nlink()));
            }
        }
        let beside = fs::read_dir(self.dir.path()).unwrap().count();
        all.insert("beside".into(), beside.to_string());
        all
    }
}

fn stat(path: &Path) -> fs::Metadata {
    fs::symlink_metadata(path).unwrap()
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 256];
    let count = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    Some(value[..count].to_vec())
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn files_are_as_their_archive_says() {
    let ground = Ground::new();
    let capability = [1, 0, 0, 2, 0, 4, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut archive = Raw::default().folder("./");
    archive.header(b'5', b"bin/", b"", 0, |block| block[100..108].copy_from_slice(b"0000500\0"));
    let archive = archive.file("bin/deep/er/tool", "tool").bare(b'2', "bin/link", "/no/where").bare(
        b'1',
        "bin/hard",
        "/bin/deep/er/tool",
    );
    let mut archive = archive.pax(&[
        ("SCHILY.xattr.security.capability", &capability),
        ("SCHILY.xattr.user.a", b"1\n2"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("mtime", b"12.5"),
        ("uid", b"1234"),
        ("path", format!("{}/x", "long".repeat(50)).as_bytes()),
    ]);
    archive.header(b'0', b"short", b"", 3, |block| block[100..108].copy_from_slice(b"0104755\0"));
    archive.content(b"abc");
    let archive = archive.bare(b'6', "pipe", "").bare(b'3', "null", "").bare(b'0', "empty", "");
    let unpacked = ground.unpack(archive).unwrap();
    assert_eq!(unpacked, Unpacked { bytes: 7, entries: 9, opaque: false });
    assert_eq!(stat(&ground.at("bin")).permissions().mode() & 0o7777, 0o500);
    assert_eq!(stat(&ground.at("bin")).mtime(), 0o1000, "although files came into it later");
    assert_eq!(fs::read_link(ground.at("bin/link")).unwrap(), Path::new("/no/where"));
    assert_eq!(stat(&ground.at("bin/link")).mtime(), 0o1000);
    assert_eq!(stat(&ground.at("bin/hard")).ino(), stat(&ground.at("bin/deep/er/tool")).ino());
    let long = ground.at(&format!("{}/x", "long".repeat(50)));
    assert_eq!(fs::read(&long).unwrap(), b"abc");
    assert_eq!((stat(&long).mtime(), stat(&long).mtime_nsec()), (12, 500_000_000));
    assert_eq!(stat(&long).permissions().mode() & 0o7777, 0o4755, "set-uid, although its owner changed");
    assert_eq!(xattr(&long, "user.a").unwrap(), b"1\n2");
    for name in ["trusted.overlay.opaque", "user.overlay.opaque"] {
        assert_eq!(xattr(&long, name), None, "{name} is not the archive's to say");
    }
    if is_root() {
        assert_eq!(stat(&long).uid(), 1234);
        assert_eq!(xattr(&long, "security.capability").unwrap(), capability);
    }
    assert!(stat(&ground.at("pipe")).file_type().is_fifo());
    assert!(!ground.at("null").exists(), "devices are left out");
    assert_eq!(ground.text("empty"), "");
}

#[test]
fn whiteouts_and_opaque_folders_are_overlayfs_own() {
    let ground = Ground::new();
    let archive = Raw::default()
        .folder("etc/")
        .file("etc/.wh.gone", "")
        .file("etc/stays", "1")
        .file("etc/.wh.stays", "")
        .folder("new/")
        .file("new/file", "1")
        .file(".wh.new", "")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/after", "1")
        .file(".wh.again", "")
        .folder("again/")
        .file(".wh.below", "")
        .file("below/deeper/file", "1")
        .file(".wh.file", "")
        .file("file", "1")
        .file(".wh..wh.plnk/1", "aufs")
        .file(".wh..wh.aufs", "aufs");
    ground.unpack(archive).unwrap();
    let gone = stat(&ground.at("etc/gone"));
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let attribute = Overlay::of(ground.dir.path()).opaque();
    for (folder, is_opaque) in
        [("etc", false), ("new", true), ("opaque", true), ("again", true), ("below", true)]
    {
        assert_eq!(xattr(&ground.at(folder), attribute).is_some(), is_opaque, "{folder}");
    }
    for file in ["etc/stays", "new/file", "opaque/after", "below/deeper/file", "file"] {
        assert_eq!(ground.text(file), "1", "{file}");
    }
    assert!(!ground.at(".wh..wh.aufs").exists() && !ground.at(".wh..wh.plnk").exists());
    let whole = Ground::new().unpack(Raw::default().file("a", "").file("/.wh..wh..opq", "")).unwrap();
    assert!(whole.opaque, "the layers' stack is cut here");
}

#[test]
fn the_last_of_a_name_counts() {
    let ground = Ground::new();
    let archive = Raw::default()
        .file("a", "first")
        .file("a", "second")
        .file("d/e/f", "1")
        .bare(b'5', "d/e", "")
        .file("d", "no folder any more")
        .bare(b'2', "link", "a")
        .file("link", "no link any more")
        .bare(b'2', "to", "real")
        .folder("to")
        .file("to/file", "1")
        .folder("same")
        .file("same/one", "1")
        .folder("same")
        .file("same/two", "2")
        .file("self", "1")
        .bare(b'1', "self", "self");
    ground.unpack(archive).unwrap();
    for (file, text) in [
        ("a", "second"),
        ("d", "no folder any more"),
        ("link", "no link any more"),
        ("to/file", "1"),
        ("same/one", "1"),
        ("same/two", "2"),
        ("self", "1"),
    ] {
        assert_eq!(ground.text(file), text, "{file}");
    }
    assert!(!ground.at("real").exists());
}

#[test]
fn nothing_outside_of_the_root_is_made_changed_or_read() {
    let ground = Ground::new();
    let outside = ground.dir.path().join("outside");
    let outside = outside.to_str().unwrap();
    let up = "../outside";
    let before = ground.outside();
    let cases = [
        ("a name that leads above", Raw::default().file("../outside/file", "hit"), true),
        ("an absolute name", Raw::default().file(&format!("{outside}/file"), "hit"), true),
        ("many steps up", Raw::default().file(&format!("{}etc/x", "../".repeat(30)), "hit"), true),
        ("an absolute link", Raw::default().bare(b'2', "l", outside).file("l/file", "hit"), true),
        ("a link that leads above", Raw::default().bare(b'2', "l", up).file("l/file", "hit"), true),
        (
            "two links",
            Raw::default().bare(b'2', "a", up).bare(b'2', "b", "a/folder").file("b/x", "hit"),
            true,
        ),
        ("a folder over a link", Raw::default().bare(b'2', "l", up).folder("l").file("l/file", "hit"), true),
        ("a file over a link", Raw::default().bare(b'2', "l", &format!("{up}/file")).file("l", "hit"), true),
        ("whiteout behind a link", Raw::default().bare(b'2', "l", up).file("l/.wh.file", ""), true),
        ("opaque behind a link", Raw::default().bare(b'2', "l", up).file("l/.wh..wh..opq", ""), true),
        ("a whiteout of what is above", Raw::default().file("a/.wh...", ""), false),
        ("a hard link to outside", Raw::default().bare(b'1', "h", &format!("{outside}/file")), false),
        ("a hard link that leads above", Raw::default().bare(b'1', "h", "../outside/file"), false),
        ("a hard link behind a link", Raw::default().bare(b'2', "l", up).bare(b'1', "h", "l/file"), false),
        (
            "a hard link to a link, and through it",
            Raw::default().bare(b'2', "l", &format!("{up}/file")).bare(b'1', "h", "l").file("h", "hit"),
            true,
        ),
        ("a hard link to a folder", Raw::default().folder("d").bare(b'1', "h", "d"), false),
        ("a hard link to the root", Raw::default().bare(b'1', "h", "."), false),
        ("a hard link to a whiteout", Raw::default().file(".wh.w", "").bare(b'1', "h", "w"), false),
        (
            "links in a circle",
            Raw::default().bare(b'2', "a", "b").bare(b'2', "b", "a").file("a/x", "hit"),
            false,
        ),
        ("a file as a folder", Raw::default().file("f", "").file("f/x", "hit"), false),
        ("a link to nothing", Raw::default().bare(b'2', "l", ""), false),
        ("the root as a file", Raw::default().file("/", "hit"), false),
        ("the root as a link", Raw::default().bare(b'2', ".", outside), false),
        (
            "a name that is too long",
            Raw::default().pax(&[("path", "n".repeat(300).as_bytes())]).file("x", ""),
            false,
        ),
        (
            "a path that is too deep",
            Raw::default().pax(&[("path", "d/".repeat(2000).as_bytes())]).folder("x"),
            false,
        ),
        ("a sparse file", Raw::default().bare(b'S', "s", ""), false),
        ("PAX's sparse file", Raw::default().pax(&[("GNU.sparse.major", b"1")]).file("s", ""), false),
        ("no such user", Raw::default().pax(&[("uid", b"4294967295")]).file("s", ""), false),
        ("a type of its own", Raw::default().bare(b'V', "volume", ""), false),
    ];
    for (what, archive, is_taken) in cases {
        let ground = Ground { dir: tempfile::tempdir_in(ground.dir.path()).unwrap() };
        fs::create_dir_all(ground.at("")).unwrap();
        fs::create_dir_all(ground.dir.path().join("trash")).unwrap();
        // For `..` to lead to, by its name.
        std::os::unix::fs::symlink(outside, ground.dir.path().join("outside")).unwrap();
        let done = ground.unpack(archive);
        assert_eq!(done.is_ok(), is_taken, "{what}: {done:?}");
        if let Err(error) = done {
            assert!(
                matches!(error, Error::Layer { why: UnpackError::Entry { .. }, .. }),
                "{what}: {error:?}"
            );
        }
    }
    assert_eq!(ground.outside(), before);
}

#[test]
fn an_archive_that_is_damaged_or_too_large_is_refused() {
    let good = Raw::default().file("a", &"x".repeat(5000)).file("b", "y").end();
    let small = Limits { bytes: 4000, entries: 10 };
    let few = Limits { bytes: 1 << 20, entries: 1 };
    let error = |archive: &[u8], limits| Ground::new().unpack_with(archive, limits).unwrap_err().to_string();
    assert!(error(&good, small).contains("more than the 4000 bytes"));
    assert!(error(&good, few).contains("more than the 1 files"));
    assert!(error(&good[..3000], Limits::default()).contains("ends in the middle of a file"));
    assert!(error(&good[..700 + 5120], Limits::default()).contains("ends in the middle of a header"));
    assert!(error(&[7; 2000], Limits::default()).contains("no tar archive"));
    let mut bent = good.clone();
    bent[3] ^= 1;
    assert!(error(&bent, Limits::default()).contains("checksum"));
    let mut huge = Raw::default();
    huge.header(b'0', b"huge", b"", 0, |block| {
        block[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    });
    assert!(error(&huge.end(), Limits::default()).contains("unpacks to more than"));
    let mut long = Raw::default();
    long.header(b'x', b"p", b"", 1 << 30, |_| {});
    assert!(error(&long.end(), Limits::default()).contains("where 1048576 may be"));
    // A hundred megabytes in a few bytes.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    io::copy(&mut io::repeat(0).take(100 << 20), &mut bomb).unwrap();
    let mut whole = Raw::default();
    whole.header(b'0', b"zeros", b"", 100 << 20, |_| {});
    let mut head = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    io::Write::write_all(&mut head, &whole.0).unwrap();
    let bomb = [head.finish().unwrap(), bomb.finish().unwrap()].concat();
    assert!(bomb.len() < 200_000);
    assert!(error(&bomb, Limits { bytes: 10 << 20, entries: 10 }).contains("more than the 10485760 bytes"));
}

#[test]
fn a_layer_that_is_not_what_was_said_is_refused() {
    let archive = Raw::default().file("a", "b").end();
    let (right, wrong) = (Digest::sha256(&archive), Digest::sha256(b"other"));
    let length = archive.len() as u64;
    for (diff_id, digest, size, why) in [
        (&right, &right, length, None),
        (&wrong, &right, length, Some("should have the digest")),
        (&right, &wrong, length, Some("should have the digest")),
        (&right, &right, length + 1, Some("bytes and has")),
        (&right, &right, length - 1, Some("more than")),
        (&right, &right, 100, Some("more than")),
    ] {
        let ground = Ground::new();
        let blob = Descriptor::new("", digest.clone(), size);
        let expected = Expected { diff_id, blob: Some(&blob) };
        let (root, trash) = (ground.at(""), ground.dir.path().join("trash"));
        let done = layer(archive.as_slice(), &expected, &root, &trash, Limits::default(), Overlay::User);
        match why {
            None => assert!(done.is_ok()),
            Some(why) => assert!(done.as_ref().unwrap_err().to_string().contains(why), "{done:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Names, links and whiteouts by chance: whatever they do to each other, they stay inside.
    #[test]
    fn whatever_an_archive_says_it_stays_inside(
        steps in proptest::collection::vec(("[015260]", 0..12_usize, 0..12_usize), 1..25)
    ) {
        let ground = Ground::new();
        let before = ground.outside();
        let outside = ground.dir.path().join("outside");
        let names = [
            "a", "b", "a/b", "b/a/c", "../outside/file", "a/../../outside/folder", ".wh.a", "a/.wh.b", "b/.wh..wh..opq",
            "/", outside.to_str().unwrap(), "a/file",
        ];
        let mut archive = Raw::default();
        for (flag, name, link) in steps {
            archive = match flag.as_bytes()[0] {
                b'0' => archive.file(names[name], "content"),
                flag => archive.bare(flag, names[name], names[link]),
            };
        }
        let done = ground.unpack(archive);
        prop_assert_eq!(ground.outside(), before, "{:?}", done);
        if let Err(error) = done {
            let expected = matches!(error, Error::Layer { why: UnpackError::Entry { .. }, .. });
            prop_assert!(expected, "{:?}", error);
        }
    }
}
