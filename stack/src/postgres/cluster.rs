//! The cluster on disk: where it lies, whose it is, and how it is made so that it is there whole or not at all.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use derive_more::Debug;
use nix::unistd::{Gid, Uid, User};
use uuid::Uuid;

use super::installation::Installation;
use crate::certificates::ServerTls;
use crate::child::Program;
use crate::error::{Result, StackError};
use crate::files::{remove_if_there, write_private_of};

/// Where clusters lie whose data directory the PostgreSQL user can't enter.
const ELSEWHERE: &str = "/var/lib/ordermill";

/// Who may connect to a server with a certificate: whoever comes from this machine over TLS, with a password. It has no line for others.
const HBA_TLS: &str = "\
hostssl all all 127.0.0.1/32 scram-sha-256
hostssl all all ::1/128 scram-sha-256
";

/// `initdb` takes one to three seconds; a slow disk may make it many more.
const INITDB_DEADLINE: Duration = Duration::from_secs(120);

/// A finished cluster. Its home holds `data`, the cluster proper, and `password`, that of the role `ordermill`.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Without symbolic links, as `/proc` shows it.
    pub(crate) data: PathBuf,
    // It would end up in a log.
    #[debug(skip)]
    pub(crate) password: String,
    pub(crate) installation: Installation,
    /// The user whom it belongs to, if that is not us.
    pub(crate) user: Option<(Uid, Gid)>,
}

impl Cluster {
    /// Whether `dir` has a cluster already.
    pub(crate) fn exists(dir: &Path) -> bool {
        link(dir).symlink_metadata().is_ok()
    }

    /// Makes the cluster of `dir`. Remains of an attempt that was cut short are cleared away.
    ///
    /// The caller holds the claim on `dir`, so whatever is unfinished there belongs to nobody.
    pub(crate) fn create(dir: &Path) -> Result<()> {
        let installation = Installation::newest()?;
        let user = server_user()?;
        let home = home_for(dir, user)?;
        let unfinished = unfinished(&home);
        remove_if_there(&unfinished)?;
        make_home(&unfinished, user)?;
        let password = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        write_private_of(&unfinished.join("password"), &password, user)?;
        initdb(&installation, &unfinished, &dir.join("postgres-initdb.log"), user)?;
        fs::rename(&unfinished, &home).map_err(StackError::io("rename", &unfinished))?;
        if home != link(dir) {
            symlink(&home, link(dir)).map_err(StackError::io("link", &link(dir)))?;
        }
        Ok(())
    }

    /// Opens the cluster of `dir`.
    pub(crate) fn open(dir: &Path) -> Result<Cluster> {
        let link = link(dir);
        let unusable = |reason: &str| {
            let remedy = format!("restore it, or remove {} to begin anew", link.display());
            StackError::unusable_data(&link, format!("{reason}: {remedy}"))
        };
        let home = link.canonicalize().map_err(|_| unusable("it points to a directory that is gone"))?;
        let data = home.join("data");
        if !data.join("PG_VERSION").is_file() {
            return Err(unusable("its cluster is gone"));
        }
        let password = fs::read_to_string(home.join("password"))
            .map_err(|_| unusable("its file 'password' is missing or not ours to read"))?;
        let metadata = data.metadata().map_err(StackError::io("read", &data))?;
        let user = if Uid::from_raw(metadata.uid()) == Uid::effective() {
            None
        } else if Uid::effective().is_root() {
            Some((Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid())))
        } else {
            return Err(unusable("it belongs to another user"));
        };
        Ok(Cluster { installation: Installation::of_cluster(&data)?, data, password, user })
    }

    /// Takes in a certificate with its key: the server reads them as its own user, and refuses a key that is anybody else's.
    pub(crate) fn take_in(&self, tls: &ServerTls) -> Result<()> {
        let certificate = &tls.certificate;
        let text = fs::read_to_string(certificate).map_err(StackError::io("read", certificate))?;
        for (file, text) in [(self.certificate(), text.as_str()), (self.hba(), HBA_TLS)] {
            write_private_of(&file, text, self.user)?;
        }
        Ok(())
    }

    /// The settings by which a server answers by TLS alone, with what was taken in.
    pub(crate) fn tls_settings(&self) -> Vec<(String, String)> {
        let (certificate, hba) = (self.certificate(), self.hba());
        let certificate = certificate.to_string_lossy();
        [
            ("ssl", "on"),
            ("ssl_cert_file", &*certificate),
            ("ssl_key_file", &*certificate),
            ("hba_file", &*hba.to_string_lossy()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// Certificate and key. Beside the data, where a backup of it does not take them along.
    fn certificate(&self) -> PathBuf {
        self.data.with_file_name("server.pem")
    }

    fn hba(&self) -> PathBuf {
        self.data.with_file_name("hba-tls.conf")
    }
}

/// What `dir` shows: the cluster's home itself, or a link to it.
fn link(dir: &Path) -> PathBuf {
    dir.join("postgres")
}

fn unfinished(home: &Path) -> PathBuf {
    home.with_extension("unfinished")
}

/// PostgreSQL refuses to run as root; then it runs as the user that Debian's package makes.
fn server_user() -> Result<Option<(Uid, Gid)>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    match User::from_name("postgres") {
        Ok(Some(user)) => Ok(Some((user.uid, user.gid))),
        _ => Err(StackError::not_installed(
            "the user postgres, as whom PostgreSQL runs when we are root,",
            "run scripts/install, or run this as another user than root",
        )),
    }
}

/// In `dir` itself where the server's user can reach it, else in a place named after it.
fn home_for(dir: &Path, user: Option<(Uid, Gid)>) -> Result<PathBuf> {
    let here = link(dir);
    remove_if_there(&unfinished(&here))?;
    let Some(user) = user else { return Ok(here) };
    if can_enter(dir, user)? {
        return Ok(here);
    }
    let elsewhere = Path::new(ELSEWHERE);
    fs::create_dir_all(elsewhere).map_err(StackError::io("create", elsewhere))?;
    fs::set_permissions(elsewhere, fs::Permissions::from_mode(0o711))
        .map_err(StackError::io("open up", elsewhere))?;
    let path = dir.canonicalize().map_err(StackError::io("find", dir))?;
    let name = Uuid::new_v5(&Uuid::NAMESPACE_URL, path.as_os_str().as_encoded_bytes());
    let home = elsewhere.join(name.simple().to_string());
    if home.exists() {
        // Nothing in `dir` points to it: that data directory was deleted. It is set aside once, not kept for ever.
        let aside = home.with_extension("orphan");
        remove_if_there(&aside)?;
        fs::rename(&home, &aside).map_err(StackError::io("set aside", &home))?;
    }
    Ok(home)
}

/// Whether the user can reach `dir`: every directory on the way must let them through.
fn can_enter(dir: &Path, (uid, gid): (Uid, Gid)) -> Result<bool> {
    let path = dir.canonicalize().map_err(StackError::io("find", dir))?;
    for step in path.ancestors() {
        let metadata = step.metadata().map_err(StackError::io("read", step))?;
        let bit = if metadata.uid() == uid.as_raw() {
            0o100
        } else if metadata.gid() == gid.as_raw() {
            0o010
        } else {
            0o001
        };
        if metadata.mode() & bit == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn make_home(home: &Path, user: Option<(Uid, Gid)>) -> Result<()> {
    fs::create_dir(home).map_err(StackError::io("create", home))?;
    fs::set_permissions(home, fs::Permissions::from_mode(0o700)).map_err(StackError::io("close", home))?;
    let Some((uid, gid)) = user else { return Ok(()) };
    lchown(home, Some(uid.as_raw()), Some(gid.as_raw())).map_err(StackError::io("give away", home))
}

/// Passwords on every connection, since other users of the machine reach the loopback address too.
fn initdb(installation: &Installation, home: &Path, log: &Path, user: Option<(Uid, Gid)>) -> Result<()> {
    let with_locale = |locale: &str| {
        let data = home.join("data");
        remove_if_there(&data)?;
        Program::new("initdb", installation.program("initdb"), log)
            .without_env_prefix("PG")
            .env("LC_ALL", "C")
            .directory(home)
            .user(user)
            .arg("--pgdata")
            .arg(&data)
            .arg("--pwfile")
            .arg(home.join("password"))
            .args(["--username=ordermill", "--auth=scram-sha-256", "--encoding=UTF8", "--no-instructions"])
            .arg(format!("--locale={locale}"))
            .telling(|line| line.contains("error:"))
            .start()
    };
    let mut child = with_locale("C.UTF-8")?;
    child.wait(INITDB_DEADLINE);
    if child.output().contains("invalid locale name") {
        // Not every system has C.UTF-8; C sorts alike, but folds the case of ASCII letters only.
        child = with_locale("C")?;
    }
    child.finish(INITDB_DEADLINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_closed_to_others_can_not_be_entered_by_another_user() {
        let dir = tempfile::tempdir().unwrap();
        let nobody = (Uid::from_raw(65_533), Gid::from_raw(65_533));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!can_enter(dir.path(), nobody).unwrap());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        assert_eq!(can_enter(dir.path(), nobody).unwrap(), can_enter(&std::env::temp_dir(), nobody).unwrap());
    }

    #[test]
    fn a_link_to_a_cluster_that_is_gone_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        symlink(dir.path().join("nowhere"), link(dir.path())).unwrap();
        assert!(Cluster::exists(dir.path()));
        let error = Cluster::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("points to a directory that is gone"), "{error}");
    }
}
