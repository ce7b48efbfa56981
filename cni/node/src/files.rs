//! Files of the node, replaced so that nobody ever sees half of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Puts a file with `content` in the place of the one at `path`: written beside it, synced, renamed, and the folder synced.
///
/// `only_if` is asked last, so that what somebody else wrote in between is not lost; if it says no, nothing happens and the answer is false.
///
/// # Errors
/// What the system says, with the path.
pub fn replace(path: &Path, content: &[u8], mode: u32, only_if: impl FnOnce() -> bool) -> io::Result<bool> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // Runtimes look for .conf, .conflist and .json only.
    let new = beside(path, "weft-new");
    let write = || -> io::Result<bool> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        file.write_all(content)?;
        // The mode given at creation is subject to the umask, and a leftover file has its own.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        if !only_if() {
            fs::remove_file(&new)?;
            return Ok(false);
        }
        fs::rename(&new, path)?;
        File::open(folder)?.sync_all()?;
        Ok(true)
    };
    write().map_err(|error| named(path, "write", &error))
}

/// Removes a file, if it is there.
///
/// # Errors
/// What the system says, with the path.
pub fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(named(path, "remove", &error)),
    }
}

/// Copies the program `source` into `folder` under its name; false if the same is there already.
///
/// # Errors
/// What the system says, with the path.
pub fn install_program(source: &Path, folder: &Path) -> io::Result<bool> {
    let content = fs::read(source).map_err(|error| named(source, "read", &error))?;
    let target = folder.join(weft_cni::PLUGIN);
    let executable =
        |path: &Path| fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o111 == 0o111);
    if executable(&target) && fs::read(&target).is_ok_and(|there| there == content) {
        return Ok(false);
    }
    fs::create_dir_all(folder).map_err(|error| named(folder, "create", &error))?;
    // By renaming: a plugin that is running right now goes on, where writing into it would be refused (ETXTBSY).
    replace(&target, &content, 0o755, || true)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{suffix}"));
    path.with_file_name(name)
}

fn named(path: &Path, action: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {action} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_installed_once() {
        let folder = tempfile::tempdir().unwrap();
        let (source, bin) = (folder.path().join("source"), folder.path().join("opt/cni/bin"));
        fs::write(&source, "one").unwrap();
        assert!(install_program(&source, &bin).unwrap());
        assert!(!install_program(&source, &bin).unwrap(), "the same again");
        fs::write(&source, "two").unwrap();
        assert!(install_program(&source, &bin).unwrap());
        let target = bin.join("weft-cni");
        assert_eq!(fs::read(&target).unwrap(), b"two");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o755);
        fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(install_program(&source, &bin).unwrap(), "what cannot be run is replaced");
        assert_eq!(fs::read_dir(&bin).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_somebody_else_wrote_in_between_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("10-net.conflist");
        fs::write(&path, "theirs").unwrap();
        assert!(!replace(&path, b"ours", 0o600, || false).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let missing = folder.path().join("gone/x");
        let error = replace(&missing, b"", 0o600, || true).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot write {}", missing.display())), "{error}");
    }
}
