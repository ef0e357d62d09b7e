//! Who runs the command, for the audit.

use nix::unistd::{Uid, User};

/// `cli:<user>@<host>`: the user as the operating system knows it, not as a variable says.
pub(super) fn actor() -> String {
    let uid = Uid::current();
    let user = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    format!("cli:{user}@{}", host.trim())
}
