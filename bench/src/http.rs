//! The smallest HTTP/1.1 client that measures an API without costing what it measures: one connection that is kept
//! alive, requests that are bytes already, one buffer for the answers.

use std::io;
use std::net::SocketAddr;

use httparse::{EMPTY_HEADER, Response, Status};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longer answers are none of this API's.
const ANSWER_MAX: usize = 1 << 20;
/// More headers are none of this API's either.
const HEADERS_MAX: usize = 64;
/// An answer to an order fits in.
const BUFFER: usize = 16 << 10;

/// A connection that carries one request at a time.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: &'a [u8],
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Where the body begins.
    length: usize,
    body_length: usize,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Where nobody listens there.
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Sends a whole request and reads the whole answer. After an error the connection is of no more use.
    ///
    /// # Errors
    /// Where the connection ends before the answer does, or the answer is not of the kind that this client reads: with a
    /// content length, and of a sane size.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        self.buffer.clear();
        self.stream.write_all(request).await?;
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let end = match head(&self.buffer)? {
                Some(Head { status, length, body_length }) => {
                    let end = length.saturating_add(body_length);
                    if end <= self.buffer.len() {
                        return Ok(Answer { status, body: &self.buffer[length..end] });
                    }
                    end
                }
                None => self.buffer.len(),
            };
            if end > ANSWER_MAX {
                return Err(malformed("an answer that is too long"));
            }
        }
    }
}

/// The head of an answer; `None` while it is not there in whole.
fn head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut response = Response::new(&mut headers);
    let Status::Complete(length) = response.parse(bytes).map_err(io::Error::other)? else { return Ok(None) };
    let status = response.code.ok_or_else(|| malformed("no status line"))?;
    let mut headers = response.headers.iter();
    let body_length = headers
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
        .ok_or_else(|| malformed("no content length"))?;
    Ok(Some(Head { status, length, body_length }))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_head_says_the_status_and_where_the_body_ends() {
        let bytes = b"HTTP/1.1 202 Accepted\r\nContent-Length: 12\r\nx: y\r\n\r\n{";
        let expected = Head { status: 202, length: bytes.len() - 1, body_length: 12 };
        assert_eq!(head(bytes).unwrap(), Some(expected));
    }

    #[test]
    fn half_a_head_is_none_yet() {
        let bytes = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
        for end in 0..bytes.len() {
            assert_eq!(head(&bytes[..end]).unwrap(), None, "{end}");
        }
    }

    #[test]
    fn what_is_no_answer_with_a_length_is_an_error() {
        for wrong in ["220 smtp\r\n\r\n", "HTTP/1.1 20\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
            assert!(head(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }

    /// Answers each connection's requests of 4 bytes with these bytes, in the given pieces.
    async fn serve(pieces: &'static [&'static [u8]]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4];
            while stream.read_exact(&mut request).await.is_ok() {
                for piece in pieces {
                    stream.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn one_connection_carries_answers_that_come_in_pieces_one_after_the_other() {
        let address = serve(&[b"HTTP/1.1 422 No\r\ncontent-", b"length: 5\r\n\r\nhe", b"llo"]).await;
        let mut connection = Connection::open(address).await.unwrap();
        for _ in 0..3 {
            let answer = connection.exchange(b"ping").await.unwrap();
            assert_eq!(answer, Answer { status: 422, body: b"hello" });
        }
    }

    #[tokio::test]
    async fn an_answer_without_end_is_an_error() {
        let address = serve(&[b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n"]).await;
        let mut connection = Connection::open(address).await.unwrap();
        assert!(connection.exchange(b"ping").await.is_err());
    }
}
