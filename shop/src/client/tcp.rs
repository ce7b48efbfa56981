//! Orders to the queue: the server greets first, then one line is sent and one read per call.

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{Extras, Failure, Outcome};

pub(super) struct Client {
    address: String,
    order: String,
    connection: Option<Connection>,
}

struct Connection {
    stream: BufReader<TcpStream>,
    /// `x-replica` and `x-version` from the greeting.
    headers: Vec<(String, String)>,
}

impl Client {
    pub(super) fn new(address: String, extras: Extras) -> Self {
        let body = String::from_utf8_lossy(&extras.body).replace(['\r', '\n'], " ");
        let order =
            if body.is_empty() { r#"{"sku":"tea","marker":"weft-shop-plaintext-order"}"#.to_owned() } else { body };
        Self { address, order, connection: None }
    }

    pub(super) async fn call(&mut self) -> Outcome {
        match self.publish().await {
            Ok((headers, answer)) => {
                let failure =
                    (!answer.starts_with("+OK")).then(|| Failure::new("protocol", format!("answered {answer:?}")));
                Outcome { protocol: "TCP", headers, body: Bytes::from(answer), failure, ..Outcome::default() }
            }
            Err(error) => {
                self.connection = None;
                Outcome::failed("TCP", Failure::from_error(&error))
            }
        }
    }

    pub(super) fn forget(&mut self) {
        self.connection = None;
    }

    async fn publish(&mut self) -> std::io::Result<(Vec<(String, String)>, String)> {
        // As any queue client: a connection that the server has closed meanwhile is replaced, and an order
        // that was not acknowledged is not sent twice.
        if self.connection.as_ref().is_some_and(Connection::is_closed) {
            self.connection = None;
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            empty => empty.insert(Connection::open(&self.address).await?),
        };
        connection.stream.write_all(format!("PUB {}\r\n", self.order).as_bytes()).await?;
        let answer = connection.line().await?;
        Ok((connection.headers.clone(), answer))
    }
}

impl Connection {
    async fn open(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut connection = Self { stream: BufReader::new(stream), headers: Vec::new() };
        let greeting = connection.line().await?;
        let info: serde_json::Value = greeting
            .strip_prefix("INFO ")
            .and_then(|json| serde_json::from_str(json).ok())
            .ok_or_else(|| std::io::Error::other(format!("greeted with {greeting:?}")))?;
        for (header, field) in [("x-replica", "replica"), ("x-version", "version")] {
            if let Some(value) = info[field].as_str() {
                connection.headers.push((header.to_owned(), value.to_owned()));
            }
        }
        Ok(connection)
    }

    /// True if the server has ended the connection, or has sent what nobody asked for.
    fn is_closed(&self) -> bool {
        let mut byte = [0];
        !matches!(
            self.stream.get_ref().try_read(&mut byte),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock
        )
    }

    async fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}
