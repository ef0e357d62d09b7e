//! Files and directories. What a stack keeps is its owner's alone: there are secrets in it, and who has ordered and paid what.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use nix::unistd::{Gid, Uid};

use crate::error::{Result, StackError};

/// The bits of a mode that say what others may do.
const OTHERS: u32 = 0o077;

/// With what the names of a data directory's entries begin.
const OURS: [&str; 8] = ["admin.", "callback.", "gateway", "kafka", "postgres", "stack.", "tls", "wire."];

/// Makes the data directory of a stack, its owner's alone, and closes one that an earlier version has left open. One that holds something
/// else is left as it is, and so is one that many share, like `/tmp`; what a stack puts into it is closed anyway.
///
/// As root, others can pass through it, though not look into it: PostgreSQL runs as a user of its own then.
///
/// # Errors
/// Where it can't be made, read or closed.
pub fn private_data_dir(dir: &Path) -> Result<()> {
    make_data_dir(dir)?;
    let metadata = dir.metadata().map_err(StackError::io("read", dir))?;
    let is_shared = metadata.mode() & 0o1000 != 0 || metadata.uid() != Uid::effective().as_raw();
    if is_shared || !is_a_stacks(dir).map_err(StackError::io("read", dir))? {
        return Ok(());
    }
    take_from_others(dir, &metadata, kept_from_others())
}

/// Makes the data directory of a stack where it is missing.
pub(crate) fn make_data_dir(dir: &Path) -> Result<()> {
    make_dir(dir, 0o777 & !kept_from_others())
}

/// What others may not do with a data directory.
fn kept_from_others() -> u32 {
    if Uid::effective().is_root() { 0o066 } else { OTHERS }
}

/// Whether nothing is in it but what a stack puts there.
fn is_a_stacks(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if !OURS.iter().any(|ours| name.as_encoded_bytes().starts_with(ours.as_bytes())) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes a directory that is its owner's alone, where it is missing.
///
/// # Errors
/// Where it can't be made.
pub fn make_private_dir(dir: &Path) -> Result<()> {
    make_dir(dir, 0o700)
}

fn make_dir(dir: &Path, mode: u32) -> Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(dir).map_err(StackError::io("create", dir))
}

/// Takes from others what they may do with a file, or with a directory and all that is in it. Nothing if it is not there, or a link.
pub(crate) fn close(path: &Path) -> Result<()> {
    let metadata = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_symlink() => return Ok(()),
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StackError::io("read", path)(error)),
    };
    take_from_others(path, &metadata, OTHERS)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path).map_err(StackError::io("read", path))? {
            close(&entry.map_err(StackError::io("read", path))?.path())?;
        }
    }
    Ok(())
}

fn take_from_others(path: &Path, metadata: &Metadata, bits: u32) -> Result<()> {
    let mode = metadata.mode() & 0o7777;
    if mode & bits == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode & !bits)).map_err(StackError::io("close", path))
}

/// Writes a file that only its owner can read, whole or not at all.
///
/// # Errors
/// Where it can't be written.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    write_private_of(path, text, None)
}

/// The same as a file of another user's. It is given away before it has its name: in a directory of theirs they may put something else there, which
/// is not theirs, as soon as it has.
pub(crate) fn write_private_of(path: &Path, text: &str, user: Option<(Uid, Gid)>) -> Result<()> {
    let half = path.with_extension("new");
    // One that is there keeps its mode when it is written to; so it goes first.
    let _ = fs::remove_file(&half);
    let file = File::options().write(true).create_new(true).mode(0o600).open(&half);
    // It is there before its name is: half of a secret would be none.
    let write = |mut file: File| {
        file.write_all(text.as_bytes())?;
        if let Some((uid, gid)) = user {
            fchown(&file, Some(uid.as_raw()), Some(gid.as_raw()))?;
        }
        file.sync_all()
    };
    file.and_then(write).and_then(|()| fs::rename(&half, path)).map_err(StackError::io("write", path))
}

/// Removes a directory and all that is in it.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StackError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_data_directory_is_its_owners_alone_also_where_an_earlier_version_left_it_open() {
        let dir = tempfile::tempdir().unwrap();
        let closed = 0o755 & !kept_from_others();
        let data = dir.path().join("shop/data");
        private_data_dir(&data).unwrap();
        assert_eq!(mode(&data) & !closed, 0);
        set_mode(&data, 0o755);
        private_data_dir(&data).unwrap();
        assert_eq!(mode(&data), closed, "it was empty");
        fs::write(data.join("kafka.run"), "").unwrap();
        set_mode(&data, 0o755);
        private_data_dir(&data).unwrap();
        assert_eq!(mode(&data), closed, "it was a stack's");
    }

    #[test]
    fn a_directory_that_holds_something_else_or_that_many_share_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), "").unwrap();
        set_mode(dir.path(), 0o755);
        private_data_dir(dir.path()).unwrap();
        assert_eq!(mode(dir.path()), 0o755);
        fs::write(dir.path().join("gateway.run"), "").unwrap();
        private_data_dir(dir.path()).unwrap();
        assert_eq!(mode(dir.path()), 0o755, "also once a stack has been there");
        fs::remove_file(dir.path().join("thesis.txt")).unwrap();
        set_mode(dir.path(), 0o1777);
        private_data_dir(dir.path()).unwrap();
        assert_eq!(mode(dir.path()), 0o1777);
    }

    #[test]
    fn a_file_for_another_user_is_theirs_and_what_a_link_there_names_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (file, outside) = (dir.path().join("file"), dir.path().join("outside"));
        fs::write(&outside, "not theirs").unwrap();
        for name in ["file", "file.new"] {
            symlink(&outside, dir.path().join(name)).unwrap();
        }
        let own = (Uid::effective(), Gid::effective());
        let user = if own.0.is_root() { (Uid::from_raw(65_533), Gid::from_raw(65_533)) } else { own };
        write_private_of(&file, "theirs", Some(user)).unwrap();
        let owner = |path: &Path| path.symlink_metadata().unwrap().uid();
        assert_eq!([owner(&file), owner(&outside)], [user.0.as_raw(), own.0.as_raw()]);
        assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), ("theirs", 0o600));
        assert_eq!(fs::read_to_string(&outside).unwrap(), "not theirs");
    }

    #[test]
    fn closing_a_directory_closes_what_is_in_it_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let (home, outside) = (dir.path().join("home"), dir.path().join("outside"));
        let (below, file) = (home.join("below"), home.join("below/file"));
        fs::create_dir_all(&below).unwrap();
        for file in [&file, &outside] {
            fs::write(file, "").unwrap();
            set_mode(file, 0o664);
        }
        set_mode(&below, 0o755);
        set_mode(&home, 0o775);
        symlink(&outside, home.join("link")).unwrap();
        close(&home).unwrap();
        assert_eq!([&home, &below, &file].map(|path| mode(path)), [0o700, 0o700, 0o600]);
        assert_eq!(mode(&outside), 0o664);
        close(&home.join("nothing")).unwrap();
    }
}
