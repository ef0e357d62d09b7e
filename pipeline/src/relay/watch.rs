//! Looks at Kafka on a thread of their own: the client blocks, and whoever leads no more does not wait for it.
//!
//! A consumer that misses records asks for them by itself; looking whether Kafka still holds what was published last is for
//! topics that nobody of ours reads or that our groups have read to their end, while others have not.

use std::thread;

use tokio::sync::oneshot;

/// Does what blocks; nothing is answered where it panics.
pub(super) async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, outcome) = oneshot::channel();
    thread::spawn(move || {
        // Nobody may be waiting any more.
        let _ = done.send(work());
    });
    outcome.await.ok()
}
