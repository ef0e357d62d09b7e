//! Counts how often a program asks PostgreSQL, from between the two.

use std::str::FromStr as _;
use std::sync::{Arc, Mutex};

use sqlx::postgres::PgConnectOptions;
use tokio::io::{self, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// A server before PostgreSQL that passes everything on.
pub(crate) struct Counting {
    /// The database behind it.
    pub(crate) url: String,
    counts: Arc<Mutex<Vec<Vec<usize>>>>,
    _server: AbortOnDropHandle<()>,
}

impl Counting {
    /// Stands before the server of that database.
    pub(crate) async fn before(url: &str) -> Counting {
        let options = PgConnectOptions::from_str(url).unwrap();
        let address = format!("{}:{}", options.get_host(), options.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap().to_string();
        // What is encrypted can't be counted.
        let with = if url.contains('?') { '&' } else { '?' };
        let url = format!("{}{with}sslmode=disable", url.replace(&address, &here));
        let counts = Arc::<Mutex<Vec<Vec<usize>>>>::default();
        let server = tokio::spawn(serve(listener, address, counts.clone()));
        Counting { url, counts, _server: AbortOnDropHandle::new(server) }
    }

    /// Of each connection its transactions, and of each of those how often the server was asked and answered.
    pub(crate) fn transactions(&self) -> Vec<Vec<usize>> {
        self.counts.lock().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, address: String, counts: Arc<Mutex<Vec<Vec<usize>>>>) {
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = TcpStream::connect(&address).await else { return };
        let connection = {
            let mut counts = counts.lock().unwrap();
            counts.push(Vec::new());
            counts.len() - 1
        };
        let (mut from_client, to_client) = client.into_split();
        let (from_server, mut to_server) = server.into_split();
        tokio::spawn(async move {
            let _ = io::copy(&mut from_client, &mut to_server).await;
            let _ = to_server.shutdown().await;
        });
        let counts = counts.clone();
        tokio::spawn(async move {
            let _ =
                answer(from_server, to_client, |count| counts.lock().unwrap()[connection].push(count)).await;
        });
    }
}

/// Passes on what the server says. It says `ReadyForQuery` whenever it has answered, and whether a transaction is open.
async fn answer(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut on_transaction: impl FnMut(usize),
) -> io::Result<()> {
    let mut answers = 0;
    loop {
        let mut head = [0; 5];
        from.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) - 4;
        let mut body = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        from.read_exact(&mut body).await?;
        match (head[0], body.first()) {
            (b'Z', Some(b'I')) if answers > 0 => on_transaction(std::mem::take(&mut answers) + 1),
            (b'Z', Some(b'T' | b'E')) => answers += 1,
            _ => {}
        }
        to.write_all(&[&head[..], &body].concat()).await?;
    }
}
