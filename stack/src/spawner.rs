//! One thread that starts every child.
//!
//! The kernel sends a child its parent-death signal when the *thread* that started it ends, and the threads of tests
//! and runtimes come and go. So one thread starts them all and lives as long as the process.

use std::io;
use std::process::{Child, Command};
use std::sync::{OnceLock, mpsc};
use std::thread;

struct Request {
    command: Command,
    answer: mpsc::Sender<io::Result<Child>>,
}

/// Starts a command on the spawning thread.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static REQUESTS: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    let requests = REQUESTS.get_or_init(|| {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || serve(receiver));
        sender
    });
    let (answer, answered) = mpsc::channel();
    requests.send(Request { command, answer }).map_err(io::Error::other)?;
    answered.recv().map_err(io::Error::other)?
}

fn serve(requests: mpsc::Receiver<Request>) {
    for Request { mut command, answer } in requests {
        // A caller that is gone drops the child's handle with the answer; the child then ends with this process.
        let _ = answer.send(command.spawn());
    }
}
