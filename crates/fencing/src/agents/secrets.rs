//! The file with an agent's secret parameters.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// The most bytes that it may have.
const LARGEST: u64 = 64 << 10;

/// The `key=value` lines of a file that nobody but its owner may read, who is root or this user.
///
/// # Errors
/// If it is another kind of file, or can't be read. What is in it is in no error.
pub(super) fn read(path: &Path) -> io::Result<Vec<(String, String)>> {
    // What is no file must hold up nobody.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let about = file.metadata()?;
    let owner = about.uid();
    if !about.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    if about.mode() & 0o077 != 0 {
        return Err(io::Error::other("others may read it: chmod 600"));
    }
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::other("it is another user's: chown it to root"));
    }
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::other("it is larger than 64 KiB"));
    }
    let lines =
        text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let pair = |(at, line): (usize, &str)| match line.split_once('=') {
        Some((name, value)) if is_name(name) => Ok((name.to_owned(), value.to_owned())),
        _ => Err(io::Error::other(format!("line {} isn't like password=VALUE", at + 1))),
    };
    lines.map(pair).collect()
}

/// Whether an agent may have a parameter of this name. What it is to do is for the host to say.
fn is_name(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    !name.is_empty() && name.bytes().all(is_word) && name != "action"
}

/// A text without the secrets in it.
pub(super) fn masked(text: &str, secrets: &[(String, String)]) -> String {
    let mut values: Vec<&str> =
        secrets.iter().map(|(_, value)| value.trim()).filter(|value| !value.is_empty()).collect();
    // What is a part of another one comes later.
    values.sort_unstable_by_key(|value| std::cmp::Reverse(value.len()));
    values.into_iter().fold(text.to_owned(), |text, value| text.replace(value, "***"))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets");
        let with = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            read(&path).map_err(|error| error.to_string())
        };
        let read_back = with("# of n2\n\npassword=a=b c\nlogin=x\n", 0o600).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read_back, [pair("password", "a=b c"), pair("login", "x")]);
        assert!(with("password=x\n", 0o640).unwrap_err().contains("chmod 600"));
        for bad in ["pa ssword=x", "action=on", "=secret", "secret"] {
            let error = with(bad, 0o600).unwrap_err();
            assert!(error.contains("line 1") && !error.contains("secret"), "{error}");
        }
        assert!(with(&"x".repeat(70_000), 0o600).unwrap_err().contains("64 KiB"));
        assert!(read(folder.path()).is_err());
    }

    #[test]
    fn no_secret_stays_in_what_is_told() {
        let secrets = ["geheim", "geheimer ", ""].map(|value| ("password".to_owned(), value.to_owned()));
        assert_eq!(masked("login geheimer failed (geheim)", &secrets), "login *** failed (***)");
    }
}
