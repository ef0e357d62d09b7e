//! What the driver leaves unset on its sockets to the database (sqlx issues 3540 and 4335).
//!
//! A database may vanish without a word: its machine is gone, or a firewall drops what it says. Then a statement would wait for ever, and with it
//! whoever waits for its connection. The driver does not show its sockets either, so those of this process that lead to the server's port
//! are looked for, and the kernel is told to give up on a server that acknowledges nothing.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// How long nothing may be heard of the server before it is asked for a sign of life, and how often it is asked again.
const ASK_AFTER: Duration = Duration::from_secs(3);
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long the server may acknowledge nothing before the connection is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);

/// Sets what is unset on this process's sockets to that port.
///
/// # Errors
/// Where the process's own descriptors can't be read.
pub(crate) fn set_up(port: u16) -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let fd: Option<i32> = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(fd) = fd.filter(|fd| *fd >= 0) {
            // What is no socket, or has been closed meanwhile, says so here.
            let _ = set_up_one(fd, port);
        }
    }
    Ok(())
}

#[expect(unsafe_code, reason = "the driver shows its sockets in no other way")]
fn set_up_one(fd: i32, port: u16) -> io::Result<()> {
    // SAFETY: `fd` is not negative; nothing is read, written or closed by it, and it is not kept. Where another thread closes it meanwhile, the
    // calls below fail, or are about whatever has its number by then: another socket that is given up when its peer vanishes.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let socket = SockRef::from(&fd);
    let leads_there = socket.peer_addr()?.as_socket().is_some_and(|peer| peer.port() == port);
    if leads_there && socket.tcp_user_timeout()?.is_none() {
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(ASK_AFTER).with_interval(ASK_EVERY))?;
        socket.set_tcp_user_timeout(Some(GIVE_UP_AFTER))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn sockets_that_lead_to_the_port_are_set_up_and_others_are_left_alone() {
        let (there, elsewhere) = (listener(), listener());
        let ours = TcpStream::connect(there.local_addr().unwrap()).unwrap();
        let other = TcpStream::connect(elsewhere.local_addr().unwrap()).unwrap();
        set_up(there.local_addr().unwrap().port()).unwrap();
        let socket = SockRef::from(&ours);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(GIVE_UP_AFTER));
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        assert_eq!(SockRef::from(&other).tcp_user_timeout().unwrap(), None);
    }

    fn listener() -> TcpListener {
        TcpListener::bind(("127.0.0.1", 0)).unwrap()
    }
}
