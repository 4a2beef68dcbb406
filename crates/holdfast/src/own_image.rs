//! An image of this program: for containers that run it, wherever there is no registry to ask.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use images::{Reference, SavedFile};

/// The image's name.
pub const NAME: &str = "holdfast.local/holdfast:this";

/// Writes it into an empty folder: the program as `holdfast`, and the libraries that it was started with.
///
/// # Errors
/// If one of these can't be read, or the folder can't be written.
pub fn make(folder: &Path, program: &Path) -> anyhow::Result<()> {
    let program = SavedFile { path: "/bin/holdfast".into(), source: program.to_owned() };
    let libraries = libraries().into_iter().map(|path| SavedFile { source: path.clone(), path });
    let files: Vec<SavedFile> = [program].into_iter().chain(libraries).collect();
    Ok(images::save(folder, &Reference::parse(NAME)?, &files)?)
}

/// What this process was linked to when it started, its linker among them, by the paths at which the linker found it: there it is
/// looked for again. Nothing, for a program that needs none.
fn libraries() -> Vec<PathBuf> {
    unsafe extern "C" fn one(
        about: *mut libc::dl_phdr_info,
        _: libc::size_t,
        list: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: the linker calls this with what it knows of an object, and with the list that is passed below.
        let (about, list) = unsafe { (&*about, &mut *list.cast::<Vec<PathBuf>>()) };
        if !about.dlpi_name.is_null() {
            // SAFETY: it is a string that lives as long as the object is loaded.
            let name = unsafe { CStr::from_ptr(about.dlpi_name) };
            list.push(PathBuf::from(OsStr::from_bytes(name.to_bytes())));
        }
        0
    }
    let mut list: Vec<PathBuf> = Vec::new();
    // SAFETY: the function takes what it is called with, and the list lives through the call.
    unsafe { libc::dl_iterate_phdr(Some(one), (&raw mut list).cast()) };
    // The program itself has no name here, and what the kernel maps into each has no path.
    list.retain(|path| path.is_absolute());
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_runs_on_what_is_in_its_image() {
        let folder = tempfile::tempdir().unwrap();
        let (saved, store) = (folder.path().join("saved"), folder.path().join("store"));
        std::fs::create_dir(&saved).unwrap();
        // As small a program as there is stands for this one: the libraries are those of the test.
        make(&saved, Path::new("/bin/true")).unwrap();
        let images = images::Store::open(&store).unwrap().import(&saved, None).unwrap();
        let layer = &images[0].layers[0];
        assert!(layer.join("bin/holdfast").is_file());
        for library in libraries() {
            assert!(layer.join(library.strip_prefix("/").unwrap()).is_file(), "{}", library.display());
        }
    }
}
